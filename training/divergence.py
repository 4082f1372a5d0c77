"""A run whose loss is not finite any more ends there, before a model is made of it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..utils.errors import InputError
from .muon import OwnOptimizer, options_of
from .run_directory import whole_checkpoints

if TYPE_CHECKING:
    from transformers import Trainer

SKIPPED_IN_A_ROW = 40  # GradScaler halves its factor each time: 2**16 at first, it is then less than 2**-24


class DivergedError(InputError):
    """A loss or a gradient that is not finite: the settings do not fit the data."""


def check_step(trainer: Trainer, loss: float, norm: float, skipped: int) -> int:
    """Refuse to take an optimizer step that would spoil the weights.

    Args:
        loss: of the step, over its batches.
        norm: of its gradient.
        skipped: steps before it, in a row, that GradScaler has skipped.

    Returns:
        `skipped` with this step counted.

    Raises:
        DivergedError: with the step, the learning rate and what to do.
    """
    if math.isfinite(loss) and math.isfinite(norm):
        return 0
    scales = getattr(trainer.accelerator, "scaler", None) is not None
    if scales and math.isfinite(loss) and skipped < SKIPPED_IN_A_ROW:
        return skipped + 1  # float16: the gradient is scaled by too much, and by less in the next step
    what = f"the gradient norm is {norm}" if math.isfinite(loss) else f"the loss is {loss}"
    raise DivergedError(f"{what} {place_of(trainer, trainer.state.global_step + 1)}; {advice(trainer)}")


def check_evaluation(trainer: Trainer, name: str, loss: float) -> None:
    """Refuse an evaluation loss that is not finite: no checkpoint is saved of such a model.

    Raises:
        DivergedError: with the step, the learning rate and what to do.
    """
    if not math.isfinite(loss):
        raise DivergedError(f"{name} is {loss} {place_of(trainer, trainer.state.global_step)}; {advice(trainer)}")


def place_of(trainer: Trainer, step: int) -> str:
    if trainer.lr_scheduler is None:
        return f"in step {step}"
    optimizer: Any = trainer.optimizer
    rates = sorted({f"{group['lr']:.3g}" for group in optimizer.param_groups}, key=float)
    return f"in step {step} at learning rate{'s' if len(rates) > 1 else ''} {', '.join(rates)}"


def advice(trainer: Trainer) -> str:
    """What to change, and what to go on from."""
    arguments, folder = trainer.args, Path(trainer.args.output_dir)
    clip = (
        f"lower max_grad_norm ({arguments.max_grad_norm:g})" if arguments.max_grad_norm else "set max_grad_norm to 1"
    )
    rate = f"learning_rate ({arguments.learning_rate:.3g})"
    if arguments.optim == OwnOptimizer.MUON and (other := options_of(arguments.optim_args).get("learning_rate")):
        rate += f" and that in optim_args ({other:.3g})"
    change = f"lower {rate}, {clip}, or raise warmup_steps ({arguments.warmup_steps:g})"
    checkpoints = whole_checkpoints(folder) if folder.is_dir() else []
    if not checkpoints:
        return f"{change}; no checkpoint was saved before"
    best = trainer.state.best_model_checkpoint
    path = Path(best) if best in map(str, checkpoints) else checkpoints[-1]
    which = "the best checkpoint" if str(path) == best else "the last checkpoint"
    return f"{change}; {which}, {path}, is whole: go on from it with --resume_from_checkpoint {path}"
