"""Batches of examples of similar length within a budget of tokens, for evaluation and training without packing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from torch.utils.data import Sampler

from ..utils.errors import InputError

if TYPE_CHECKING:
    from datasets import Dataset  # takes seconds to import, and translating does not need it


def bucket_batches(
    source_lengths: Sequence[int],
    target_lengths: Sequence[int] | None,
    max_tokens: int,
    seed: int | None = None,
) -> list[list[int]]:
    """Batches of indices whose padded size, sources and targets together, is at most `max_tokens`.

    Every index is in exactly one batch. Without a seed the longest come first, so that a batch too large for memory
    fails at once. With a seed examples of equal length are shuffled, and so are the batches. An example that is over
    the budget by itself has a batch of its own. Without target lengths only sources count. The result can be the
    `batch_sampler` of a `DataLoader`.

    ```python
    >>> bucket_batches([3, 9, 4, 3], [2, 8, 4, 3], max_tokens=18)
    [[1], [2, 3], [0]]
    ```
    """
    target_lengths = [0] * len(source_lengths) if target_lengths is None else target_lengths
    if len(source_lengths) != len(target_lengths) or not len(source_lengths):
        raise InputError(
            f"source and target lengths must be of the same number, at least 1, got {len(source_lengths)} and "
            f"{len(target_lengths)}; give one of each for every example"
        )
    if max_tokens < 1:
        raise InputError(f"max_tokens must be at least 1, got {max_tokens}")
    rng = None if seed is None else np.random.default_rng(seed)
    ties = np.arange(len(source_lengths)) if rng is None else rng.permutation(len(source_lengths))
    order = np.lexsort((ties, -np.asarray(target_lengths), -np.asarray(source_lengths)))
    batches: list[list[int]] = []
    longest_source = longest_target = 0
    for index in order.tolist():
        source, target = max(longest_source, source_lengths[index]), max(longest_target, target_lengths[index])
        if not batches or (len(batches[-1]) + 1) * (source + target) > max_tokens:
            batches.append([])
            source, target = source_lengths[index], target_lengths[index]
        batches[-1].append(index)
        longest_source, longest_target = source, target
    return batches if rng is None else [batches[index] for index in rng.permutation(len(batches))]


class BucketSampler(Sampler[list[int]]):
    """Training batches from `bucket_batches`, different ones in every epoch; a `batch_sampler` for a `DataLoader`.

    Batches are a function of the seed and the epoch, and every epoch has the same number of them. So a run resumes bit
    for bit.

    Args:
        features: tokenised examples with `input_ids` and `labels`.
        max_tokens: tokens in a batch at most, both sides and padding included.
        seed: another seed gives other batches.
    """

    def __init__(self, features: Dataset, max_tokens: int, seed: int = 0) -> None:
        sources, targets = features["input_ids"], features["labels"]
        # Labels of whole texts are single numbers, and take no place.
        of_targets = [len(ids) if isinstance(ids, Sequence) else 0 for ids in targets]
        self.lengths = ([len(ids) for ids in sources], of_targets)
        self.max_tokens = max_tokens
        self.seed = seed
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        """Takes that epoch's batches."""
        seed = int(np.random.SeedSequence((self.seed, epoch)).generate_state(1)[0])
        self.batches = bucket_batches(*self.lengths, self.max_tokens, seed)

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self.batches)
