"""How long a run took, however often it was interrupted."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from transformers import Trainer, TrainerCallback, TrainerState
from transformers.trainer_callback import ExportableState


class Stopwatch(TrainerCallback, ExportableState):
    """Counts the seconds of a run from here on, and those up to the checkpoint that it goes on from.

    Every entry of the log gets `training_seconds` and `training_cpu_seconds`, evaluations left out.

    Args:
        before: seconds before, evaluations included. training, training_cpu: those of training alone, by the clock and
            of the processor (all threads of this process).
    """

    def __init__(self, before: float = 0.0, training: float = 0.0, training_cpu: float = 0.0):
        self.before, self.training, self.training_cpu = before, training, training_cpu
        self.started = time.perf_counter()
        self.counted_from: tuple[float, float] | None = self._now()

    @staticmethod
    def _now() -> tuple[float, float]:
        return time.perf_counter(), time.process_time()

    def state(self) -> dict[str, Any]:
        training, training_cpu = self.training_seconds()
        before = {"before": self.seconds(), "training": training, "training_cpu": training_cpu}
        return {"args": before, "attributes": {}}

    def seconds(self) -> float:
        return self.before + time.perf_counter() - self.started

    def training_seconds(self) -> tuple[float, float]:
        """Seconds of training, by the clock and of the processor."""
        if self.counted_from is None:
            return self.training, self.training_cpu
        (clock, processor), (clock_then, processor_then) = self._now(), self.counted_from
        return self.training + clock - clock_then, self.training_cpu + processor - processor_then

    def on_log(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        clock, processor = self.training_seconds()
        state.log_history[-1].update(training_seconds=round(clock, 3), training_cpu_seconds=round(processor, 3))

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Leave out of training what is done inside."""
        self.training, self.training_cpu = self.training_seconds()
        self.counted_from = None
        try:
            yield
        finally:
            self.counted_from = self._now()


def stopwatch_of(trainer: Trainer) -> Stopwatch:
    """The trainer's stopwatch; Transformers puts another in its place when a run is resumed."""
    return next(one for one in trainer.callback_handler.callbacks if isinstance(one, Stopwatch))
