"""What a run that goes on from a checkpoint must have in common with the run that left it."""

from __future__ import annotations

import hashlib
import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import TrainerCallback, TrainingArguments
from transformers.trainer_callback import ExportableState

from ..utils.errors import InputError
from ..utils.secrets import Secrets
from .combinations import all_fields
from .run_directory import recorded, state_of_trainer
from .schedule import BY_METRIC

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from .recipe import RecipeArguments
    from .run_arguments import RunArguments

logger = logging.getLogger(__name__)

# The checkpoint's state belongs to these, and is of no use to others.
KEPT = ("optim", "tokenizer", "freeze", "lora", "learning_rates", "lr_scheduler_type")
# The data's order follows from these, and with it which examples a run that goes on has seen.
ORDER = (
    "task", "task_options", "train", "temperature", "source_prefix", "source_language", "target_language", "overlong",
    "max_source_length", "max_target_length", "batching",
    "source_row_length", "target_row_length", "batch_tokens", "stream_buffer", "bpe_dropout", "bpe_dropout_copies",
    "multipath_k", "seed", "per_device_train_batch_size", "gradient_accumulation_steps", "dataloader_drop_last",
)  # fmt: skip
# Sizes of weights follow from these fields of a config.
SIZES = (
    "vocab_size", "hidden_size", "intermediate_size", "encoder_layers", "decoder_layers", "num_attention_heads",
    "num_key_value_heads", "head_dim", "embedding_size", "memory_length", "cross_attention_score",
    "tie_word_embeddings",
)  # fmt: skip


class SettingsRecord(TrainerCallback, ExportableState):
    """Keeps in every checkpoint digests of the settings that it was trained with."""

    def __init__(self, settings: dict[str, str] | None = None):
        self.settings = settings or {}

    def on_train_begin(self, args: TrainingArguments, *_: Any, **__: Any) -> None:
        # Trainer restores the callback of the checkpoint, which may have been trained with other settings.
        self.settings = getattr(args, "settings", self.settings)

    def state(self) -> dict[str, Any]:
        return {"args": {"settings": self.settings}, "attributes": {}}


def settings_of(recipe: RecipeArguments, arguments: RunArguments) -> dict[str, str]:
    """Each setting that a run has to go on with, or a digest of it where it is not one word.

    Accumulation counts over all processes. Schedules of steps are all alike: their state is the number of the step.
    """
    values = {item.name: value for item, value in all_fields(recipe, arguments)}
    values["gradient_accumulation_steps"] *= arguments.world_size
    if values["lr_scheduler_type"] not in BY_METRIC:
        values["lr_scheduler_type"] = "one of steps"
    return {name: _digest(getattr(values[name], "value", values[name])) for name in (*KEPT, *ORDER)}


def check_settings_kept(checkpoint: Path, settings: dict[str, str]) -> None:
    """Refuse settings that a checkpoint's state does not fit, and warn of those that change the order of the data.

    Args:
        settings: of the run that goes on, as `settings_of` gives them.

    Raises:
        InputError: with the setting and what to do.
    """
    before = recorded_settings(checkpoint)
    changed = [name for name, value in settings.items() if name in before and before[name] != value]
    for name in changed:
        if name in KEPT:
            was = "" if before[name].startswith("#") else f", which was {before[name]},"
            raise InputError(
                f"{name}{was} is another than {checkpoint} was trained with: put it back, or train anew with "
                "--overwrite or in another --output_dir"
            )
    if changed:
        logger.warning(
            "%s was trained with another %s: the run does not see every example as often as one without a break",
            checkpoint, ", ".join(changed),
        )  # fmt: skip


def check_state_saved(checkpoint: Path) -> None:
    """Refuse a checkpoint that has weights alone: the optimizer would begin anew, and the schedule at its first step.

    Raises:
        InputError: with what to do.
    """
    # Transformers and accelerate name them optimizer.pt, optimizer.bin or optimizer_0, DeepSpeed global_stepN.
    if not any(path.name.startswith(("optimizer", "global_step")) for path in checkpoint.iterdir()):
        raise InputError(
            f"{checkpoint} must have the optimizer's state, got weights alone (save_only_model): begin another run "
            f"with them, with --model_name_or_path {checkpoint} and another --output_dir"
        )


def check_steps_left(checkpoint: Path, max_steps: int) -> None:
    """Refuse fewer steps than a checkpoint has behind it already.

    Args:
        max_steps: of the run that goes on, or -1.

    Raises:
        InputError: with both numbers.
    """
    done = (state_of_trainer(checkpoint) or {}).get("global_step", 0)
    if 0 < max_steps < done:
        raise InputError(
            f"max_steps must be at least {done}, the steps of {checkpoint}, got {max_steps}; raise it, or train anew "
            "with --overwrite or in another --output_dir"
        )


def recorded_settings(checkpoint: Path) -> dict[str, str]:
    """The settings that a checkpoint was trained with; none of one that does not say."""
    settings = recorded(checkpoint, SettingsRecord, "settings")
    return settings if isinstance(settings, dict) else {}


def check_weights_fit(model: PreTrainedModel, checkpoint: Path) -> None:
    """Refuse a model that the weights of a checkpoint do not fit.

    Raises:
        InputError: with the fields of its config that differ.
    """
    before = model.config_class.from_pretrained(checkpoint)
    with torch.device("meta"):
        other = type(model)(before)
    if _shapes(model) == _shapes(other):
        return
    pairs = ((name, getattr(model.config, name, None), getattr(before, name, None)) for name in SIZES)
    differing = [f"{name} is {now!r} and was {was!r}" for name, now, was in pairs if now != was]
    raise InputError(
        f"the weights of {checkpoint} do not fit the model ({', '.join(differing) or 'its parts differ'}): put that "
        "back, or train anew with --overwrite or in another --output_dir"
    )


def _shapes(model: PreTrainedModel) -> dict[str, tuple[int, ...]]:
    return {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}


def _digest(value: Any) -> str:
    """A word as it is; of anything else a digest, which starts with #, and in which secrets do not count."""
    if isinstance(value, str | int | float | None):
        return str(Secrets.of(value).hide(value))
    text = json.dumps(Secrets.of(value).hide(value), sort_keys=True, default=str)
    return f"#{hashlib.blake2b(text.encode(), digest_size=8).hexdigest()}"
