"""In which numbers a run multiplies: bfloat16 where the machine does that natively, float32 elsewhere."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback, TrainingArguments
from transformers.trainer_callback import ExportableState

from ..utils.errors import InputError
from ..utils.hardware import multiplies_bfloat16
from .run_directory import recorded

logger = logging.getLogger(__name__)
AUTO = "auto"


@dataclass(frozen=True)
class Precision:
    """`name` is what matrix products are computed in, `reason` why."""

    name: str
    reason: str

    def __str__(self) -> str:
        return f"{self.name} ({self.reason})"

    @property
    def bf16(self) -> bool:
        return self.name == "bfloat16"


def choose_precision(
    bf16: bool | str, fp16: bool, device: torch.device | str, checkpoint: Path | None = None
) -> Precision:
    """What a run multiplies in.

    Args:
        bf16: true, false, or "auto": as the checkpoint was, or without one, as the machine does natively.
        checkpoint: that the run goes on from.

    Raises:
        InputError: float16 on a processor, where accelerate would train in float32 instead.
    """
    kind = torch.device(device).type
    if fp16 and kind == "cpu":
        raise InputError("fp16 must be false on a processor, got true; set bf16: auto")
    native = multiplies_bfloat16(kind)
    before = None if checkpoint is None else recorded_precision(checkpoint)
    if bf16 == AUTO and not fp16:
        if before is not None:
            ours = "bfloat16" if native else "float32"
            other = "" if before == ours else f"; bf16: auto would choose {ours} on this machine"
            return Precision(before, f"bf16: auto, as {checkpoint} was trained{other}")
        what = "multiplies" if native else "does not multiply"
        return Precision("bfloat16" if native else "float32", f"bf16: auto, {kind} {what} bfloat16 natively here")
    name = "float16" if fp16 else "bfloat16" if bf16 is True else "float32"
    if name == "bfloat16" and not native:
        logger.warning(
            "bf16 is true, and %s only emulates bfloat16 here, at two to four times the time of float32: set bf16 to "
            "auto, or leave it out", kind,
        )  # fmt: skip
    if before is not None and before != name:
        logger.warning(
            "%s was trained in %s and goes on in %s, so the run does not end as one without a break would: "
            "set bf16 to auto to keep to %s", checkpoint, before, name, before,
        )  # fmt: skip
    return Precision(name, "as asked for" if fp16 or bf16 is True else "bf16 is false")


def recorded_precision(checkpoint: Path) -> str | None:
    """What a checkpoint was trained in; None of one that does not say."""
    name: str | None = recorded(checkpoint, PrecisionRecord, "name")
    return name


class PrecisionRecord(TrainerCallback, ExportableState):
    """Keeps in every checkpoint what it was trained in."""

    def __init__(self, name: str = "float32"):
        self.name = name

    def on_train_begin(self, args: TrainingArguments, *_: Any, **__: Any) -> None:
        # Trainer restores the callback of the checkpoint, which may have been trained in another precision.
        self.name = "bfloat16" if args.bf16 else "float16" if args.fp16 else "float32"

    def state(self) -> dict[str, Any]:
        return {"args": {"name": self.name}, "attributes": {}}
