"""Packing: whole examples side by side in rows of fixed size, so that hardly a token is padding.

Examples in a row are told apart by segment ids (1, 2, ...; padding is 0), by which the model keeps them from seeing
one another on either side. Krell et al. 2021 describe the gain.
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

# Examples are packed in portions of this size, each in the order of length. A larger one hardly packs tighter.
_PORTION = 4096
_COLUMNS = ("input_ids", "labels", "decoder_prefix_ids")


def compact(feature: Feature) -> dict[str, np.ndarray]:
    """What the packed collator reads of an example, as arrays of int32.

    Raises:
        InputError: it has no labels.
    """
    check_target(feature)
    return {name: np.asarray(feature[name], np.int32) for name in _COLUMNS if name in feature}


def sides(feature: Feature) -> tuple[int, int]:
    """How many tokens the encoder reads of an example, and how many the decoder."""
    return len(feature["input_ids"]), sum(len(feature.get(name, ())) for name in _COLUMNS[1:])


@dataclass(frozen=True)
class PackingStatistics:
    """How well a packing fills its rows; the efficiencies are real tokens over all tokens."""

    examples: int
    rows: int
    source_efficiency: float
    target_efficiency: float


def pack(lengths: Lengths, budget: tuple[int, int], seed: int | Sequence[int] | None = None) -> list[list[int]]:
    """Rows of example indices that keep within a source and a target budget; every example is in exactly one row.

    First-fit decreasing: the longest examples first, each into the first row that has room on both sides. With a seed
    the examples are shuffled and dealt into portions first, so that another seed gives other rows.

    ```python
    >>> pack([(3, 2), (2, 2), (4, 4), (1, 1)], budget=(5, 4))
    [[2], [0, 1], [3]]
    ```

    Args:
        lengths: (source tokens, target tokens) of every example; target tokens are those that the decoder reads.
        budget: the most source tokens and the most target tokens of a row.
        seed: what `numpy.random.default_rng` takes; None keeps the order given.
    """
    sizes = np.asarray(lengths, dtype=np.int64).reshape(-1, 2)
    limits = np.asarray(budget, dtype=np.int64)
    if len(sizes) == 0:
        raise InputError("no examples to pack: expected at least one")
    if (over := np.flatnonzero((sizes > limits).any(axis=1))).size:
        first = over[0]
        raise InputError(
            f"example {first} has {sizes[first, 0]} source and {sizes[first, 1]} target tokens, a packed row holds "
            f"{budget[0]} and {budget[1]}: raise the budget, or truncate or drop the example"
        )
    order = np.arange(len(sizes)) if seed is None else np.random.default_rng(seed).permutation(len(sizes))
    fill = (sizes / limits).max(axis=1)
    portions = [order] if seed is None else np.array_split(order, -(-len(order) // _PORTION))
    rows: list[list[int]] = []
    for portion in portions:
        rows.extend(_first_fit(portion[np.argsort(-fill[portion], kind="stable")], sizes, limits))
    return rows


def _first_fit(order: np.ndarray, sizes: np.ndarray, limits: np.ndarray) -> list[list[int]]:
    # Free room on either side; a row that was not opened yet is all free, so there always is a first fit.
    room = np.tile(limits, (len(order), 1))
    rows: list[list[int]] = []
    first_open = 0
    for index in order.tolist():
        size = sizes[index]
        last = len(rows) + 1
        fits = (room[first_open:last] >= size).all(axis=1)
        at = first_open + int(fits.argmax())
        if at == len(rows):
            rows.append([])
        rows[at].append(index)
        room[at] -= size
        while first_open < len(rows) and not room[first_open].all():
            first_open += 1
    return rows


def packing_statistics(lengths: Lengths, budget: tuple[int, int], rows: Sequence[Sequence[int]]) -> PackingStatistics:
    """How well `rows`, as `pack` gives them, are filled."""
    packed = np.asarray(lengths, dtype=np.int64)[[index for row in rows for index in row]]
    source, target = (packed.sum(axis=0) / (len(rows) * np.asarray(budget))).tolist()
    return PackingStatistics(len(packed), len(rows), source, target)


class PackedDataset(torch.utils.data.Dataset):
    """Packed rows as a map-style dataset: item i is the list of examples in row i.

    A row takes the place of an example for everything around it; Trainer's batch size counts rows. `set_epoch` packs
    anew: rows are a function of the seed and the epoch, and their number is the same in every epoch. Read it through a
    `PackedSampler`, and without `persistent_workers`, which would keep the first epoch's rows.

    ```python
    >>> features = [{"input_ids": [5, 2], "labels": [7, 2]}, {"input_ids": [6, 2], "labels": [8, 9, 2]}]
    >>> len(PackedDataset(features, source_length=8, target_length=8)[0])
    2
    ```

    Args:
        features: tokenised examples: `input_ids`, `labels`, optionally `decoder_prefix_ids`.
        source_length, target_length: the size of a row.
        seed: another seed packs and orders otherwise.
    """

    def __init__(
        self, features: Dataset | Sequence[Feature], source_length: int, target_length: int, seed: int = 0
    ) -> None:
        self.budget = (source_length, target_length)
        self.seed = seed
        self._features = [compact(row) for row in features]
        self.lengths = [sides(row) for row in self._features]
        # Packings of the same examples differ by a row or two in a thousand.
        rows = len(pack(self.lengths, self.budget, (seed, 0)))
        self._count = min(rows + rows // 256, len(self.lengths))
        self.epoch, self.rows = 0, self._pack(0)

    def set_epoch(self, epoch: int) -> None:
        """Makes the rows those of that epoch."""
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
            # Rare; the sampler shuffles rows, so that even then no two epochs are alike.
            rows = pack(self.lengths, self.budget, (self.seed, 0))
        while len(rows) < self._count:
            longest = max(range(len(rows)), key=lambda at: len(rows[at]))
            half = len(rows[longest]) // 2
            rows.append(rows[longest][half:])
            rows[longest] = rows[longest][:half]
        return rows

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, row: int) -> list[Feature]:
        return [self._features[index] for index in self.rows[row]]


class PackedSampler(torch.utils.data.Sampler[int]):
    """The rows of a `PackedDataset` in an order that is a function of its seed and the epoch.

    Whatever sets the sampler's epoch sets the dataset's with it, also where a run resumes in the middle of an epoch:
    there Trainer's data loader tells the sampler alone. For a Trainer, return it from `_get_train_sampler`.
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
    """Lays rows of whole examples out as tensors of fixed size.

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
        for at, row in enumerate(rows):
            source_at = target_at = 0
            for segment, feature in enumerate(row, start=1):
                target, prefix_length = with_prefix(feature)
                source_end, target_end = source_at + len(feature["input_ids"]), target_at + len(target)
                if source_end > self.source_length or target_end > self.target_length:
                    raise InputError(
                        f"row {at} of the batch has more than {self.source_length} source or {self.target_length} "
                        "target tokens: pack with the collator's source_length and target_length"
                    )
                input_ids[at, source_at:source_end] = torch.as_tensor(feature["input_ids"])
                segment_ids[at, source_at:source_end] = segment
                decoded[at, target_at:target_end] = torch.as_tensor(target)
                labels[at, target_at + prefix_length : target_end] = torch.as_tensor(target[prefix_length:])
                decoder_segment_ids[at, target_at:target_end] = segment
                starts.append((at, target_at))
                source_at, target_at = source_end, target_end
        decoder_input_ids = shift_right(decoded, self.decoder_start_token_id, self.pad_token_id)
        # The shift runs over the row: what it carries from one example into the next, or into padding, is undone.
        decoder_input_ids[tuple(torch.tensor(starts, dtype=torch.int64).view(-1, 2).T)] = self.decoder_start_token_id
        return {
            "input_ids": input_ids,
            "segment_ids": segment_ids,
            "decoder_input_ids": decoder_input_ids.masked_fill(decoder_segment_ids == 0, self.pad_token_id),
            "decoder_segment_ids": decoder_segment_ids,
            "labels": labels,
        }
