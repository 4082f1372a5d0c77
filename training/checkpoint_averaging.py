"""The mean of a run's last checkpoints: often better than each of them (Junczys-Dowmunt et al. 2016)."""

import json
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from transformers import PreTrainedModel, TrainingArguments
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME

from ..modeling.ties import complete, differing
from ..utils.errors import InputError
from .requirements import spread_by
from .run_directory import whole_checkpoints
from .trainer import CrossMaskTrainer

logger = logging.getLogger(__name__)

_REMEDY = "go on with --resume_from_checkpoint last and without average_checkpoints"


def check_averaging(arguments: TrainingArguments, number: int) -> None:
    """Refuse, before training, a run that will have no checkpoints to average; one with fewer averages what it has.

    Raises:
        InputError: none will be saved or judged, or weights will be spread over processes.
    """
    if (name := spread_by(arguments)) is not None:
        raise InputError(
            f"average_checkpoints must be left out under {name}, whose checkpoints have their weights in pieces; "
            "average the saved models afterwards"
        )
    if arguments.save_strategy == "no" or arguments.eval_strategy == "no":
        raise InputError(
            f"average_checkpoints={number} needs checkpoints, and validation to judge their mean by: set "
            "save_strategy and eval_strategy to epoch or steps"
        )


def weight_files(checkpoint: Path) -> list[Path]:
    """The files that hold a checkpoint's weights, one or several.

    Raises:
        InputError: there are none, an index cannot be read, or a file that it names is missing.
    """
    if (checkpoint / SAFE_WEIGHTS_NAME).is_file():
        return [checkpoint / SAFE_WEIGHTS_NAME]
    index = checkpoint / SAFE_WEIGHTS_INDEX_NAME
    try:
        shards = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except FileNotFoundError:
        raise InputError(f"{checkpoint} has no {SAFE_WEIGHTS_NAME}: {_REMEDY}") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{index} is not an index of weights ({error}): {_REMEDY}") from error
    for shard in shards:
        if not (checkpoint / shard).is_file():
            raise InputError(f"{checkpoint / shard} is missing, though {index.name} names it: {_REMEDY}")
    return [checkpoint / shard for shard in shards]


def average_weights(checkpoints: Sequence[Path]) -> dict[str, torch.Tensor]:
    """The mean of every tensor over the checkpoints' weights, summed in float32, in the tensors' own dtypes.

    Raises:
        InputError: no checkpoints, ones whose weights cannot be read, or ones whose tensors do not match.
    """
    if not checkpoints:
        raise InputError("no checkpoints to average: save at least one (save_strategy)")
    sums: dict[str, torch.Tensor] = {}
    dtypes: dict[str, torch.dtype] = {}
    first = None
    for checkpoint in checkpoints:
        names = set()
        for name, tensor in _read(checkpoint):
            names.add(name)
            if name in sums and sums[name].shape != tensor.shape:
                shapes = f"{tuple(tensor.shape)} and {tuple(sums[name].shape)}"
                raise InputError(f"{name} is {shapes} in {checkpoint} and {checkpoints[0]}: average one run's own")
            dtypes[name] = tensor.dtype
            sums[name] = sums[name] + tensor.float() if name in sums else tensor.float()
        first = names if first is None else first
        if names != first:
            odd = sorted(names ^ first)[0]
            raise InputError(f"{checkpoint} and {checkpoints[0]} do not both have {odd}: average one run's own")
    return {name: (total / len(checkpoints)).to(dtypes[name]) for name, total in sums.items()}


def _read(checkpoint: Path) -> Iterator[tuple[str, torch.Tensor]]:
    for file in weight_files(checkpoint):
        try:
            with safe_open(file, framework="pt") as weights:
                for name in weights.keys():  # noqa: SIM118
                    yield name, weights.get_tensor(name)
        except SafetensorError as error:
            raise InputError(f"{file} cannot be read ({error}): {_REMEDY}") from error


def load_average(model: PreTrainedModel, checkpoints: Sequence[Path]) -> None:
    """Give a model the mean of checkpoints' weights; tied ones are in their files under one of their names.

    Raises:
        InputError: as `average_weights`, or the weights are not this model's.
    """
    own, mean, ties = model.state_dict(), average_weights(checkpoints), tied_names(model)
    odd = differing(mean, ties)
    not_saved = {name: own[name] for name in model._keys_to_ignore_on_save or () if name in own}  # Marian's positions
    mean = {**not_saved, **complete(mean, ties)}
    odd = odd or sorted(own.keys() ^ mean.keys()) or sorted(n for n, t in own.items() if t.shape != mean[n].shape)
    if odd:
        raise InputError(f"{odd[0]} is not the same in {checkpoints[-1]} and in the model that was trained: {_REMEDY}")
    model.load_state_dict(mean)


def tied_names(model: PreTrainedModel) -> list[list[str]]:
    """The names of each parameter that has more than one."""
    names: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    return [group for group in names.values() if len(group) > 1]


def load_average_if_better(trainer: CrossMaskTrainer, folder: Path, number: int) -> bool:
    """Put the mean of the last `number` checkpoints into the trainer's model, unless its score in validation is worse.

    Returns:
        Whether the model is the mean now; if not, its weights are those it came with.
    """
    trainer.accelerator.wait_for_everyone()  # one process may still be writing the last checkpoint
    checkpoints = whole_checkpoints(folder)[-number:]
    metric = f"eval_{trainer.args.metric_for_best_model.removeprefix('eval_')}"  # Trainer takes it either way
    sign = 1 if trainer.args.greater_is_better else -1
    model = trainer.accelerator.unwrap_model(trainer.model)
    own = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    is_best = has_best_metric(trainer)
    before = trainer.state.best_metric if is_best else trainer.evaluate()[metric]
    load_average(model, checkpoints)
    after = trainer.evaluate()[metric]
    better = sign * after >= sign * before
    if not better:
        model.load_state_dict(own)
    logger.warning(
        "the mean of %d checkpoints has %s %.4f, the %s single one %.4f: %s is kept",
        len(checkpoints), metric, after, "best" if is_best else "last", before,
        "the mean" if better else "the single one",
    )  # fmt: skip
    return better


def has_best_metric(trainer: CrossMaskTrainer) -> bool:
    """Whether the model is the one that the best metric was measured of: not every evaluation has a checkpoint."""
    loaded = trainer.state.best_model_checkpoint if trainer.args.load_best_model_at_end else None
    return loaded is not None and Path(loaded).name == f"{PREFIX_CHECKPOINT_DIR}-{trainer.state.best_global_step}"
