"""How long a run took, however often it was interrupted."""

import time
from typing import Any

from transformers import Trainer, TrainerCallback
from transformers.trainer_callback import ExportableState


class Stopwatch(TrainerCallback, ExportableState):
    """Counts the seconds of a run from here on, and those up to the checkpoint that it goes on from."""

    def __init__(self, before: float = 0.0):
        self.before = before
        self.started = time.perf_counter()

    def state(self) -> dict[str, Any]:
        return {"args": {"before": self.seconds()}, "attributes": {}}

    def seconds(self) -> float:
        return self.before + time.perf_counter() - self.started


def seconds_of(trainer: Trainer) -> float:
    """What the trainer's stopwatch shows; Transformers puts another in its place when a run is resumed."""
    return next(one.seconds() for one in trainer.callback_handler.callbacks if isinstance(one, Stopwatch))
