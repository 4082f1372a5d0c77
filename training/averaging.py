"""The mean of a run's last checkpoints: often better than each of them (Junczys-Dowmunt et al. 2016)."""

import logging
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import safe_open
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR
from transformers.utils import SAFE_WEIGHTS_NAME

from ..utils.errors import InputError
from .folder import whole_checkpoints
from .trainer import CrossMaskTrainer

logger = logging.getLogger(__name__)


def average_weights(checkpoints: Sequence[Path]) -> dict[str, torch.Tensor]:
    """The mean of every tensor over the checkpoints' weights, summed in float32, in the tensors' own dtypes.

    Raises:
        ValueError: no checkpoints, or ones whose tensors do not match. OSError: one without readable weights.
    """
    if not checkpoints:
        raise InputError("no checkpoints to average: save at least one (save_strategy)")
    sums: dict[str, torch.Tensor] = {}
    dtypes: dict[str, torch.dtype] = {}
    for checkpoint in checkpoints:
        with safe_open(checkpoint / SAFE_WEIGHTS_NAME, framework="pt") as weights:
            names = set(weights.keys())
            if sums and names != set(sums):
                odd = sorted(names ^ set(sums))[0]
                raise InputError(f"{checkpoint} and {checkpoints[0]} do not both have {odd}: average one run's own")
            for name in names:
                tensor = weights.get_tensor(name)
                dtypes[name] = tensor.dtype
                if name in sums and sums[name].shape != tensor.shape:
                    shapes = f"{tuple(tensor.shape)} and {tuple(sums[name].shape)}"
                    raise InputError(f"{name} is {shapes} in {checkpoint} and {checkpoints[0]}: average one run's own")
                sums[name] = sums[name] + tensor.float() if name in sums else tensor.float()
    return {name: (total / len(checkpoints)).to(dtypes[name]) for name, total in sums.items()}


def keep_the_better(trainer: CrossMaskTrainer, folder: Path, number: int) -> bool:
    """Put the mean of the last `number` checkpoints into the trainer's model, unless validation likes it less.

    Returns:
        Whether the model is the mean now; if not, its weights are those it came with.
    """
    trainer.accelerator.wait_for_everyone()  # one process may still be writing the last checkpoint
    checkpoints = whole_checkpoints(folder)[-number:]
    metric = f"eval_{trainer.args.metric_for_best_model.removeprefix('eval_')}"  # Trainer takes it either way
    sign = 1 if trainer.args.greater_is_better else -1
    model = trainer.accelerator.unwrap_model(trainer.model)
    own = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    before = trainer.state.best_metric if has_best_metric(trainer) else trainer.evaluate()[metric]
    # Tied tensors are saved once, under one of their names.
    model.load_state_dict(average_weights(checkpoints), strict=False)
    after = trainer.evaluate()[metric]
    better = sign * after >= sign * before
    if not better:
        model.load_state_dict(own)
    logger.warning(
        "the mean of %d checkpoints has %s %.4f, the best single one %.4f: %s is kept",
        len(checkpoints), metric, after, before, "the mean" if better else "the single one",
    )  # fmt: skip
    return better


def has_best_metric(trainer: CrossMaskTrainer) -> bool:
    """Whether the model is the one that the best metric was measured of: not every evaluation has a checkpoint."""
    loaded = trainer.state.best_model_checkpoint if trainer.args.load_best_model_at_end else None
    return loaded is not None and Path(loaded).name == f"{PREFIX_CHECKPOINT_DIR}-{trainer.state.best_global_step}"
