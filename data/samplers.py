"""Which examples a process takes at a step: the same global batches for any number of processes."""

from collections.abc import Iterator
from typing import Protocol

import numpy as np
from torch.utils.data import BatchSampler, Sampler


class Batches(Protocol):
    """Batches of indices, a function of the epoch."""

    def set_epoch(self, epoch: int) -> None: ...

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[list[int]]: ...


class ShuffledSampler(Sampler[int]):
    """The indices below `count` in an order that is a function of the seed and the epoch."""

    def __init__(self, count: int, seed: int = 0) -> None:
        self.count, self.seed, self.epoch = count, seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Shuffles as in that epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[int]:
        yield from np.random.default_rng((self.seed, self.epoch, self.count)).permutation(self.count).tolist()


class EpochSampler(Protocol):
    """Indices in an order that depends on the epoch."""

    def set_epoch(self, epoch: int) -> None: ...

    def __iter__(self) -> Iterator[int]: ...


class EpochBatches(BatchSampler):
    """torch's `BatchSampler` over a sampler that has `set_epoch`, which it passes on."""

    sampler: EpochSampler

    def set_epoch(self, epoch: int) -> None:
        """Takes that epoch's batches."""
        self.sampler.set_epoch(epoch)


class SharedBatches(Sampler[list[int]]):
    """One process's part of the batches: one of every `processes` successive ones.

    Every batch goes to exactly one process, and all processes have the same number of batches. Where they cannot be
    shared out evenly the last ones are empty. The collators turn an empty batch into a row of padding, which adds
    nothing to a loss that is summed over target tokens. So the gradient of every step is that of one process which
    accumulates over the same batches. A run resumes with another number of processes if processes times accumulation
    steps stays the same.

    ```python
    >>> batches = EpochBatches(ShuffledSampler(5), 2, drop_last=False)
    >>> list(batches)
    [[0, 1], [4, 3], [2]]
    >>> [list(SharedBatches(batches, processes=2, process=process)) for process in (0, 1)]
    [[[0, 1], [2]], [[4, 3], []]]
    ```

    Args:
        batches: all batches, the same in every process.
        processes, process: how many take part, and which of them this is, from 0.
    """

    def __init__(self, batches: Batches, processes: int, process: int) -> None:
        self.batches, self.processes, self.process = batches, processes, process

    def set_epoch(self, epoch: int) -> None:
        """Takes that epoch's batches."""
        self.batches.set_epoch(epoch)

    def __len__(self) -> int:
        return -(-len(self.batches) // self.processes)

    def __iter__(self) -> Iterator[list[int]]:
        for index, batch in enumerate(self.batches):
            if index % self.processes == self.process:
                yield batch
        if 0 < len(self.batches) % self.processes <= self.process:
            yield []
