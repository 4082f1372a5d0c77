"""Packing of streams: rows of whole examples from data of any size, in constant memory."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from typing import Any

import datasets
import numpy as np
from torch.utils.data import IterableDataset, get_worker_info

from ..utils.errors import InputError
from .collator import Feature
from .packing import PackingStatistics, compact, pack, token_counts

Rows = list[list[Feature]]


class StreamFault(InputError):
    """Data of a stream that cannot be trained on, found while it is read.

    An error of a worker process reaches the loader as a traceback, whose last line is the message; only that is kept.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message.strip().splitlines()[-1].split(f"{type(self).__name__}: ")[-1])


@dataclass(frozen=True)
class StreamState:
    """A position in a stream, with everything that the portions from there on depend on."""

    epoch: int = 0
    epochs_left: int | None = 0  # to read after this one; None never ends
    portion: int = 0  # finished portions of this epoch
    batches: int = 0  # finished batches of this portion, those of all processes
    source: Any = None  # the state of the examples' source where this portion starts
    carried: list[dict[str, list[int]]] = field(default_factory=list)  # examples to pack with the next portion


class PackedStream(IterableDataset):
    """Batches of packed rows from a stream, for a `DataLoader` with `batch_size=None` and a `PackedCollator`.

    Takes `buffer` examples at a time (a portion), shuffles and packs them, and gives the batches to the processes in
    turn. Rows that do not fill a whole optimizer step are taken apart, and their examples are packed with the next
    portion. So memory is bounded, every example goes to exactly one process once, and all processes have the same
    number of batches. The rows of a step are the same for any number of processes, unless each has several workers.
    All processes read the whole stream.

    In the workers of a `DataLoader`, a `datasets.IterableDataset` divides its shards among them, so it should have at
    least one for each. From other sources each worker takes every n-th portion. The loader takes a batch of each
    worker in turn. The rows of a step then depend on the numbers of workers and of processes: resume with the same.

    `state_dict` and `load_state_dict` resume in the middle of the stream, bit for bit. Without workers the number of
    processes may change, if a step has the same batches. They include the state of a source that has those methods,
    as `datasets.IterableDataset` has; other sources are read again up to the position. (A source's own
    `shuffle(buffer)` loses its buffer when it resumes: let this class shuffle.)

    ```python
    >>> examples = [{"input_ids": [5] * n, "labels": [7] * n} for n in (2, 3, 1, 4, 2)]
    >>> [[len(row) for row in batch] for batch in PackedStream(examples, 6, 6, batch_size=2)]
    [[2, 3]]
    ```

    Args:
        source: an iterable of examples that starts anew each time. Its `set_epoch` is called if it has one.
        source_length, target_length: the size of a row.
        batch_size: rows in a batch.
        processes, process: the number of processes that share the batches, and the index of this one, from 0.
        accumulation: batches of each process in an optimizer step.
        seed: of shuffling.
        buffer: examples in a portion. A larger one packs a little tighter and shuffles better.
        epochs: how often the stream is read; None never ends, with which a Trainer resumes exactly (it then needs
            `max_steps`).
        prepare: makes features of a portion's examples, for instance by tokenizing them; in the workers where there
            are any. By default the examples are features: `input_ids`, `labels`, optionally `decoder_prefix_ids`.
    """

    def __init__(
        self,
        source: Iterable[Any],
        source_length: int,
        target_length: int,
        batch_size: int,
        *,
        processes: int = 1,
        process: int = 0,
        accumulation: int = 1,
        seed: int = 0,
        buffer: int = 4096,
        epochs: int | None = 1,
        prepare: Callable[[list[Any]], Iterable[Feature]] | None = None,
    ) -> None:
        if iter(source) is source:
            raise TypeError(
                f"source must be an iterable that starts anew each time, got a {type(source).__name__}, which can be "
                "read once; give one such as datasets.IterableDataset.from_generator(function)"
            )
        for name, value in {
            "batch_size": batch_size,
            "accumulation": accumulation,
            "buffer": buffer,
            "epochs": epochs,
        }.items():
            if value is not None and value < 1:
                raise InputError(f"{name} must be at least 1, got {value}")
        if not 0 <= process < processes:
            raise InputError(f"process must be at least 0 and less than processes={processes}, got {process}")
        self.source, self.prepare = source, prepare
        self.budget = (source_length, target_length)
        self.batch_size, self.processes, self.process = batch_size, processes, process
        self.rows_per_step = batch_size * processes * accumulation
        self.seed, self.buffer, self.epochs = seed, buffer, epochs
        self.epoch = 0
        self._state, self._resumed = StreamState(), False
        self._filled = np.zeros(4, np.int64)  # examples, rows, source tokens, target tokens

    def set_epoch(self, epoch: int) -> None:
        """Starts the next iteration with that epoch, unless a state was loaded to resume from."""
        self.epoch = epoch

    def state_dict(self) -> dict[str, Any]:
        """The position after the last batch that was given, in plain Python values."""
        return asdict(self._state)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Lets the next iteration continue from that position."""
        self._state, self._resumed = StreamState(**state), True

    @property
    def statistics(self) -> PackingStatistics:
        """How well the rows so far are filled; those packed in this process, not in its workers."""
        examples, rows, *tokens = self._filled.tolist()
        filled = [count / max(rows * size, 1) for count, size in zip(tokens, self.budget, strict=True)]
        return PackingStatistics(examples, rows, *filled)

    def __iter__(self) -> Iterator[Rows]:
        epochs_left = None if self.epochs is None else self.epochs - 1
        state = self._state if self._resumed else StreamState(self.epoch, epochs_left)
        self._resumed = False
        workers, worker = self._workers()
        empty_epochs = 0  # successive whole epochs that gave this worker nothing
        while True:
            reader, ended = _Reader(self.source, state), False
            is_whole_epoch, has_examples = state.portion == 0, bool(state.carried)
            while not ended:
                self._state = state
                examples, ended = reader.take(self.buffer)
                # The epoch counts too, so that every worker has its turn where an epoch has few portions.
                is_turn = (state.epoch + state.portion) % workers == worker
                is_last = ended and state.epochs_left == 0
                carried = state.carried
                if is_turn or is_last:
                    features = [*carried, *self._features(examples if is_turn else [])]
                    has_examples = has_examples or bool(features)
                    rows, carried = self._pack(features, state, is_last)
                    yield from self._share_out(rows, state)
                source = None if ended else reader.state()
                state = replace(state, portion=state.portion + 1, batches=0, source=source, carried=carried)
            if state.epochs_left == 0:
                return
            empty_epochs = 0 if has_examples else empty_epochs + is_whole_epoch
            if state.epochs_left is None and empty_epochs >= workers:
                raise StreamFault(
                    "the stream must give an example in every epoch, got none in a whole epoch; give one that is not "
                    "empty and has a shard for each worker, or raise the limits over which examples are dropped"
                )
            epochs_left = None if state.epochs_left is None else state.epochs_left - 1
            state = StreamState(state.epoch + 1, epochs_left, carried=state.carried)

    def _workers(self) -> tuple[int, int]:
        worker = get_worker_info()
        if worker is None or isinstance(self.source, datasets.IterableDataset):
            return 1, 0
        return worker.num_workers, worker.id

    def _features(self, examples: list[Any]) -> Iterator[Feature]:
        yield from examples if self.prepare is None or not examples else self.prepare(examples)

    def _pack(
        self, features: list[Feature], state: StreamState, is_last: bool
    ) -> tuple[Rows, list[dict[str, list[int]]]]:
        """Shuffled rows that fill whole steps, and the examples of the other rows; at the very end all rows."""
        if not features:
            return [], []
        rng = np.random.default_rng((self.seed, state.epoch, state.portion))
        shuffled = [compact(features[index]) for index in rng.permutation(len(features))]
        lengths = [token_counts(feature) for feature in shuffled]
        rows = pack(lengths, self.budget)
        # First-fit decreasing: the last rows are the least filled ones.
        kept = len(rows) if is_last else len(rows) // self.rows_per_step * self.rows_per_step
        kept_examples = [index for row in rows[:kept] for index in row]
        tokens = np.asarray(lengths, np.int64)[kept_examples].sum(axis=0) if kept_examples else (0, 0)
        self._filled += np.array([len(kept_examples), kept, *tokens])
        carried = [{k: v.tolist() for k, v in shuffled[index].items()} for row in rows[kept:] for index in row]
        return [[shuffled[index] for index in rows[row]] for row in rng.permutation(kept)], carried

    def _share_out(self, rows: Rows, state: StreamState) -> Iterator[Rows]:
        """This process's batches of the rows, from the position on."""
        batches = [rows[start : start + self.batch_size] for start in range(0, len(rows), self.batch_size)]
        batches += [[]] * (-len(batches) % self.processes)
        for start in range(state.batches, len(batches), self.processes):
            self._state = replace(state, batches=start + self.processes)
            yield batches[start + self.process]


class _Reader:
    """Reads examples from a source, from a position on, and gives its state."""

    def __init__(self, source: Iterable[Any], position: StreamState) -> None:
        self.source, self.taken = source, 0
        self.stateful = hasattr(source, "state_dict") and hasattr(source, "load_state_dict")
        if hasattr(source, "set_epoch"):
            source.set_epoch(position.epoch)
        if self.stateful and position.source is not None:
            source.load_state_dict(position.source)
        elif isinstance(source, datasets.IterableDataset):
            # It starts an epoch from the state that was loaded for that epoch last; there is no epoch -1.
            source.load_state_dict({"epoch": -1})
        self.examples = iter(source)
        if not self.stateful and position.source is not None:
            self.take(position.source)

    def take(self, count: int) -> tuple[list[Any], bool]:
        """The next examples, up to `count`, and whether these are the last."""
        examples = list(islice(self.examples, count))
        self.taken += len(examples)
        return examples, len(examples) < count

    def state(self) -> Any:
        return self.source.state_dict() if self.stateful else self.taken
