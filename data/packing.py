"""Packing: whole examples one after the other in rows of fixed size, with little padding (Krell et al. 2021).

Segment ids say which example of a row a token belongs to (1, 2, ...; padding is 0). By them the model keeps the
examples from seeing one another, in the source and in the target.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from datasets import Dataset

from ..seq2seq.decoder_inputs import IGNORED, shift_right
from ..utils.errors import InputError
from .collator import Feature, check_target, with_prefix

Lengths = Sequence[tuple[int, int]]

# Examples are packed in portions of this size, each in the order of length. Larger portions hardly pack tighter.
_PORTION = 4096
_COLUMNS = ("input_ids", "labels", "decoder_prefix_ids")


def compact(feature: Feature) -> dict[str, np.ndarray]:
    """The columns of an example that the packed collator reads, as arrays of int32.

    Raises:
        InputError: it has no labels.
    """
    check_target(feature)
    return {name: np.asarray(feature[name], np.int32) for name in _COLUMNS if name in feature}


def token_counts(feature: Feature) -> tuple[int, int]:
    """The numbers of tokens of an example that the encoder and the decoder read."""
    return len(feature["input_ids"]), sum(len(feature.get(name, ())) for name in _COLUMNS[1:])


@dataclass(frozen=True)
class PackingStatistics:
    """How well a packing fills its rows; an efficiency is the share of tokens that are not padding."""

    examples: int
    rows: int
    source_efficiency: float
    target_efficiency: float


def pack(lengths: Lengths, budget: tuple[int, int], seed: int | Sequence[int] | None = None) -> list[list[int]]:
    """Rows of example indices within a source and a target budget; every example is in exactly one row.

    First-fit decreasing: the longest examples first, each into the first row with space for its source and target.
    With a seed the examples are shuffled and divided into portions first, so that another seed gives other rows.

    ```python
    >>> pack([(3, 2), (2, 2), (4, 4), (1, 1)], budget=(5, 4))
    [[2], [0, 1], [3]]
    ```

    Args:
        lengths: (source tokens, target tokens) of every example; target tokens are those that the decoder reads.
        budget: the largest number of source tokens and of target tokens in a row.
        seed: as for `numpy.random.default_rng`; None keeps the order of the examples.
    """
    sizes = np.asarray(lengths, dtype=np.int64).reshape(-1, 2)
    limits = np.asarray(budget, dtype=np.int64)
    if len(sizes) == 0:
        raise InputError("packing must have at least one example, got none")
    if (too_long := np.flatnonzero((sizes > limits).any(axis=1))).size:
        first = too_long[0]
        raise InputError(
            f"example {first} must have at most {budget[0]} source and {budget[1]} target tokens, which a packed row "
            f"holds, got {sizes[first, 0]} and {sizes[first, 1]}; raise the budget, or truncate or drop the example"
        )
    order = np.arange(len(sizes)) if seed is None else np.random.default_rng(seed).permutation(len(sizes))
    fill = (sizes / limits).max(axis=1)
    portions = [order] if seed is None else np.array_split(order, -(-len(order) // _PORTION))
    rows: list[list[int]] = []
    for portion in portions:
        rows.extend(_first_fit(portion[np.argsort(-fill[portion], kind="stable")], sizes, limits))
    return rows


def _first_fit(order: np.ndarray, sizes: np.ndarray, limits: np.ndarray) -> list[list[int]]:
    # Free source and target tokens of each row. Rows that are not used yet are free, so there always is a fit.
    free = np.tile(limits, (len(order), 1))
    rows: list[list[int]] = []
    first_open = 0
    for index in order.tolist():
        size = sizes[index]
        last = len(rows) + 1
        fits = (free[first_open:last] >= size).all(axis=1)
        row = first_open + int(fits.argmax())
        if row == len(rows):
            rows.append([])
        rows[row].append(index)
        free[row] -= size
        while first_open < len(rows) and not free[first_open].all():
            first_open += 1
    return rows


def packing_statistics(lengths: Lengths, budget: tuple[int, int], rows: Sequence[Sequence[int]]) -> PackingStatistics:
    """How well rows of `pack` are filled."""
    packed = np.asarray(lengths, dtype=np.int64)[[index for row in rows for index in row]]
    source, target = (packed.sum(axis=0) / (len(rows) * np.asarray(budget))).tolist()
    return PackingStatistics(len(packed), len(rows), source, target)


class PackedDataset(torch.utils.data.Dataset):
    """Packed rows as a map-style dataset: item i is the list of examples in row i.

    To a `DataLoader` or Trainer a row is an example, so the batch size counts rows. `set_epoch` packs anew: rows are a
    function of the seed and the epoch, and every epoch has the same number of them. Use it with a `PackedSampler`, and
    without `persistent_workers`, which would keep the first epoch's rows.

    ```python
    >>> features = [{"input_ids": [5, 2], "labels": [7, 2]}, {"input_ids": [6, 2], "labels": [8, 9, 2]}]
    >>> len(PackedDataset(features, source_length=8, target_length=8)[0])
    2
    ```

    Args:
        features: tokenised examples: `input_ids`, `labels`, optionally `decoder_prefix_ids`.
        source_length, target_length: the size of a row.
        seed: another seed gives other rows in another order.
    """

    def __init__(
        self, features: Dataset | Sequence[Feature], source_length: int, target_length: int, seed: int = 0
    ) -> None:
        self.budget = (source_length, target_length)
        self.seed = seed
        self._features = [compact(feature) for feature in features]
        self.lengths = [token_counts(feature) for feature in self._features]
        # Packings of the same examples differ by one or two rows in a thousand.
        rows = len(pack(self.lengths, self.budget, (seed, 0)))
        self._count = min(rows + rows // 256, len(self.lengths))
        self.epoch, self.rows = 0, self._pack(0)

    def set_epoch(self, epoch: int) -> None:
        """Takes that epoch's rows."""
        if epoch != self.epoch:
            self.epoch, self.rows = epoch, self._pack(epoch)

    @property
    def statistics(self) -> PackingStatistics:
        """How well this epoch's rows are filled."""
        return packing_statistics(self.lengths, self.budget, self.rows)

    def _pack(self, epoch: int) -> list[list[int]]:
        """The same number of rows in every epoch, because the number of steps is fixed before the first."""
        rows = pack(self.lengths, self.budget, (self.seed, epoch))
        if len(rows) > self._count:
            # Rare. The sampler shuffles rows, so that two epochs differ even then.
            rows = pack(self.lengths, self.budget, (self.seed, 0))
        while len(rows) < self._count:
            fullest = max(range(len(rows)), key=lambda index: len(rows[index]))
            half = len(rows[fullest]) // 2
            rows.append(rows[fullest][half:])
            rows[fullest] = rows[fullest][:half]
        return rows

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, row: int) -> list[Feature]:
        return [self._features[index] for index in self.rows[row]]


class PackedSampler(torch.utils.data.Sampler[int]):
    """The rows of a `PackedDataset` in an order that is a function of its seed and the epoch.

    `set_epoch` of the sampler sets the dataset's epoch too: where a run resumes in the middle of an epoch, Trainer's
    data loader calls that of the sampler alone. For a Trainer, return it from `_get_train_sampler`.
    """

    def __init__(self, dataset: PackedDataset) -> None:
        self.dataset = dataset

    def set_epoch(self, epoch: int) -> None:
        """Packs and orders as in that epoch."""
        self.dataset.set_epoch(epoch)

    def __len__(self) -> int:
        return len(self.dataset)

    def __iter__(self) -> Iterator[int]:
        rng = np.random.default_rng((self.dataset.seed, self.dataset.epoch, len(self)))
        yield from rng.permutation(len(self)).tolist()


@dataclass(frozen=True)
class PackedCollator:
    """Turns rows of whole examples into tensors of fixed size.

    ```python
    >>> collate = PackedCollator(pad_token_id=0, decoder_start_token_id=1, source_length=5, target_length=5)
    >>> row = [{"input_ids": [5, 2], "labels": [7, 2]}, {"input_ids": [6, 2], "labels": [8, 2]}]
    >>> batch = collate([row])
    >>> batch["segment_ids"], batch["decoder_input_ids"]
    (tensor([[1, 1, 2, 2, 0]]), tensor([[1, 7, 1, 8, 0]]))
    ```

    Called with B rows, each a list of features as `PackedDataset` gives them. Returns, all int64, `input_ids`,
    `segment_ids` (B, source_length) and `decoder_input_ids`, `decoder_segment_ids`, `labels` (B, target_length).
    Every example has a decoder start token of its own; prefixes and padding are -100 in the labels. Called with no
    rows, as a process is that has nothing left at the end of an epoch, it returns one row of padding. Sources whose
    vocabulary is another are filled with `source_pad_token_id`.
    """

    pad_token_id: int
    decoder_start_token_id: int
    source_length: int
    target_length: int
    source_pad_token_id: int | None = None

    def __call__(self, rows: Sequence[Sequence[Feature]]) -> dict[str, torch.Tensor]:
        rows = rows or [[]]
        fill = self.pad_token_id if self.source_pad_token_id is None else self.source_pad_token_id
        input_ids = torch.full((len(rows), self.source_length), fill)
        segment_ids = torch.zeros_like(input_ids)
        decoded = torch.full((len(rows), self.target_length), IGNORED)
        labels, decoder_segment_ids = decoded.clone(), torch.zeros_like(decoded)
        starts: list[tuple[int, int]] = []
        for index, row in enumerate(rows):
            source_start = target_start = 0
            for segment, feature in enumerate(row, start=1):
                target, prefix_length = with_prefix(feature)
                source_end, target_end = source_start + len(feature["input_ids"]), target_start + len(target)
                if source_end > self.source_length or target_end > self.target_length:
                    raise InputError(
                        f"row {index} of the batch must have at most {self.source_length} source and "
                        f"{self.target_length} target tokens, got {source_end} and {target_end}; pack with the "
                        "collator's source_length and target_length"
                    )
                input_ids[index, source_start:source_end] = torch.as_tensor(feature["input_ids"])
                segment_ids[index, source_start:source_end] = segment
                decoded[index, target_start:target_end] = torch.as_tensor(target)
                labels[index, target_start + prefix_length : target_end] = torch.as_tensor(target[prefix_length:])
                decoder_segment_ids[index, target_start:target_end] = segment
                starts.append((index, target_start))
                source_start, target_start = source_end, target_end
        decoder_input_ids = shift_right(decoded, self.decoder_start_token_id, self.pad_token_id)
        # The row was shifted as a whole, which moved a token from each example into the next one or into padding.
        decoder_input_ids[tuple(torch.tensor(starts, dtype=torch.int64).view(-1, 2).T)] = self.decoder_start_token_id
        return {
            "input_ids": input_ids,
            "segment_ids": segment_ids,
            "decoder_input_ids": decoder_input_ids.masked_fill(decoder_segment_ids == 0, self.pad_token_id),
            "decoder_segment_ids": decoder_segment_ids,
            "labels": labels,
        }
