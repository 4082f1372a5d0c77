"""Packing of streams: rows of whole examples out of data of any size, in constant memory."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from typing import Any

import datasets
import numpy as np
from torch.utils.data import IterableDataset, get_worker_info

from ..utils.errors import InputError
from .collator import Feature
from .packing import PackingStatistics, compact, pack, sides

Rows = list[list[Feature]]


class StreamFault(InputError):
    """Data of a stream that cannot be trained on, found on the way.

    A worker's fault reaches the loader as a text that ends with it, behind the traceback: the last line is kept.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message.strip().splitlines()[-1].split(f"{type(self).__name__}: ")[-1])


@dataclass(frozen=True)
class StreamState:
    """Where in a stream one is: everything that the portions from here on depend on."""

    epoch: int = 0
    epochs_left: int | None = 0  # to read after this one; None never ends
    portion: int = 0  # portions of this epoch that are done with
    batches: int = 0  # batches of this portion that are done with, those of all processes
    source: Any = None  # the state of the examples' source where this portion starts
    carried: list[dict[str, list[int]]] = field(default_factory=list)  # examples that wait for more


class PackedStream(IterableDataset):
    """Batches of packed rows out of a stream, for a `DataLoader` with `batch_size=None` and a `PackedCollator`.

    Takes `buffer` examples at a time, shuffles and packs them, and deals the batches out to the processes in turn.
    Rows that do not fill a whole optimizer step are opened again, and their examples packed with those that follow. So
    memory is bounded, every example is given out exactly once to one process, all have the same number of batches, and
    the rows of every step are the same however many processes share them, unless each has several workers. All
    processes read the whole stream.

    In workers of a `DataLoader`, a `datasets.IterableDataset` divides its shards among them (have a shard or
    more for each); of anything else they take one portion each in turn. The loader takes a batch of each worker in
    turn, so that the rows of a step then depend on the number of workers and on that of processes: resume with both.

    `state_dict` and `load_state_dict` resume in the middle of the stream, bit for bit, without workers also with
    another number of processes where a step has the same batches. They take in the source's own state where it has
    those methods, as `datasets.IterableDataset` does; other sources are read up to that place again. (A source's own
    `shuffle(buffer)` forgets its buffer there: let this class shuffle.)

    ```python
    >>> examples = [{"input_ids": [5] * n, "labels": [7] * n} for n in (2, 3, 1, 4, 2)]
    >>> [[len(row) for row in batch] for batch in PackedStream(examples, 6, 6, batch_size=2)]
    [[2, 3]]
    ```

    Args:
        source: what gives one example after the other, anew every time that it is iterated over. Its `set_epoch` is
            called where it has one.
        source_length, target_length: the size of a row.
        batch_size: rows in a batch.
        processes, process: how many share the batches, and which of them this is, from 0.
        accumulation: batches of each process in an optimizer step.
        seed: another seed shuffles otherwise.
        buffer: examples that are packed at a time. More pack a little tighter, and are better shuffled.
        epochs: how often the stream is read; None never ends: so a Trainer, which then needs `max_steps`, resumes
            exactly.
        prepare: makes features of a portion's examples, tokenises them for instance; in the workers where there are
            any. By default they are features: `input_ids`, `labels`, optionally `decoder_prefix_ids`.
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
                f"the source is a {type(source).__name__}, which can be read once: give an iterable that starts anew, "
                "such as datasets.IterableDataset.from_generator(function)"
            )
        for name, value in {
            "batch_size": batch_size,
            "accumulation": accumulation,
            "buffer": buffer,
            "epochs": epochs,
        }.items():
            if value is not None and value < 1:
                raise InputError(f"{name} is {value}: expected at least 1")
        if not 0 <= process < processes:
            raise InputError(f"process is {process} of {processes}: expected a number from 0 below that")
        self.source, self.prepare = source, prepare
        self.budget = (source_length, target_length)
        self.batch_size, self.processes, self.process = batch_size, processes, process
        self.step = batch_size * processes * accumulation  # rows
        self.seed, self.buffer, self.epochs = seed, buffer, epochs
        self.epoch = 0
        self._place, self._resumed = StreamState(), False
        self._filled = np.zeros(4, np.int64)  # examples, rows, source tokens, target tokens

    def set_epoch(self, epoch: int) -> None:
        """Starts the next iteration with that epoch, unless it was to resume."""
        self.epoch = epoch

    def state_dict(self) -> dict[str, Any]:
        """Where the iteration is, after the last batch that it gave; of plain Python values."""
        return asdict(self._place)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Lets the next iteration go on from there."""
        self._place, self._resumed = StreamState(**state), True

    @property
    def statistics(self) -> PackingStatistics:
        """How well the rows that were packed so far are filled, in this process and not in its workers."""
        examples, rows, *tokens = self._filled.tolist()
        filled = [count / max(rows * size, 1) for count, size in zip(tokens, self.budget, strict=True)]
        return PackingStatistics(examples, rows, *filled)

    def __iter__(self) -> Iterator[Rows]:
        left = None if self.epochs is None else self.epochs - 1
        place = self._place if self._resumed else StreamState(self.epoch, left)
        self._resumed = False
        workers, worker = self._workers()
        idle = 0  # whole epochs in which nothing fell to this worker
        while True:
            reader, ended = _Reader(self.source, place), False
            whole, found = place.portion == 0, bool(place.carried)
            while not ended:
                self._place = place
                examples, ended = reader.take(self.buffer)
                # Told from the epoch too, so that every worker has its turn where an epoch has few portions.
                mine = (place.epoch + place.portion) % workers == worker
                over = ended and place.epochs_left == 0
                carried = place.carried
                if mine or over:
                    features = [*carried, *self._features(examples if mine else [])]
                    found = found or bool(features)
                    rows, carried = self._pack(features, place, over)
                    yield from self._deal(rows, place)
                source = None if ended else reader.state()
                place = replace(place, portion=place.portion + 1, batches=0, source=source, carried=carried)
            if place.epochs_left == 0:
                return
            idle = 0 if found else idle + whole
            if place.epochs_left is None and idle >= workers:
                raise StreamFault(
                    "the stream gave no example in a whole epoch: give one that is not empty and has a shard "
                    "for each worker, or raise the limits over which examples are dropped"
                )
            left = None if place.epochs_left is None else place.epochs_left - 1
            place = StreamState(place.epoch + 1, left, carried=place.carried)

    def _workers(self) -> tuple[int, int]:
        worker = get_worker_info()
        if worker is None or isinstance(self.source, datasets.IterableDataset):
            return 1, 0
        return worker.num_workers, worker.id

    def _features(self, examples: list[Any]) -> Iterator[Feature]:
        yield from examples if self.prepare is None or not examples else self.prepare(examples)

    def _pack(
        self, features: list[Feature], place: StreamState, over: bool
    ) -> tuple[Rows, list[dict[str, list[int]]]]:
        """Rows that fill whole steps, shuffled, and the examples of those that do not; all rows at the very end."""
        if not features:
            return [], []
        rng = np.random.default_rng((self.seed, place.epoch, place.portion))
        shuffled = [compact(features[at]) for at in rng.permutation(len(features))]
        lengths = [sides(feature) for feature in shuffled]
        rows = pack(lengths, self.budget)
        # First-fit decreasing: the last rows are those with most space left.
        whole = len(rows) if over else len(rows) // self.step * self.step
        kept = [at for row in rows[:whole] for at in row]
        tokens = np.asarray(lengths, np.int64)[kept].sum(axis=0) if kept else (0, 0)
        self._filled += np.array([len(kept), whole, *tokens])
        carried = [{k: v.tolist() for k, v in shuffled[at].items()} for row in rows[whole:] for at in row]
        return [[shuffled[at] for at in rows[index]] for index in rng.permutation(whole)], carried

    def _deal(self, rows: Rows, place: StreamState) -> Iterator[Rows]:
        batches = [rows[start : start + self.batch_size] for start in range(0, len(rows), self.batch_size)]
        batches += [[]] * (-len(batches) % self.processes)
        for start in range(place.batches, len(batches), self.processes):
            self._place = replace(place, batches=start + self.processes)
            yield batches[start + self.process]


class _Reader:
    """Takes examples off a source from a place on, and tells its state."""

    def __init__(self, source: Iterable[Any], place: StreamState) -> None:
        self.source, self.taken = source, 0
        self.stateful = hasattr(source, "state_dict") and hasattr(source, "load_state_dict")
        if hasattr(source, "set_epoch"):
            source.set_epoch(place.epoch)
        if self.stateful and place.source is not None:
            source.load_state_dict(place.source)
        elif isinstance(source, datasets.IterableDataset):
            # It starts every pass of an epoch from the state that was loaded for that epoch last; -1 is none.
            source.load_state_dict({"epoch": -1})
        self.examples = iter(source)
        if not self.stateful and place.source is not None:
            self.take(place.source)

    def take(self, count: int) -> tuple[list[Any], bool]:
        """The next examples, up to `count`, and whether these are the last."""
        examples = list(islice(self.examples, count))
        self.taken += len(examples)
        return examples, len(examples) < count

    def state(self) -> Any:
        return self.source.state_dict() if self.stateful else self.taken
