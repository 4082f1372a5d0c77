"""Low-rank adapters (LoRA, Hu et al. 2022) in a run: put in before training, and merged into the weights after it.

A run keeps the class and the files of its model: checkpoints have the weights and the adapters, and the finished model
has neither adapters nor need of PEFT.
"""

from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

from torch import nn
from transformers import PreTrainedModel, TrainingArguments

from ..utils.errors import InputError
from .requirements import spread_by
from .validation import check_names, one_line

PEFT = "peft"
ADAPTER = "lora_"
"""How the names of an adapter's own modules begin."""
# What speaks of saved adapters, of other kinds, or of modules that would not be merged.
_OTHERS = {
    "task_type", "peft_type", "auto_mapping", "peft_version", "base_model_name_or_path", "revision", "inference_mode",
    "modules_to_save", "runtime_config", "trainable_token_indices", "layer_replication",
}  # fmt: skip


def check_adapters(settings: Mapping[str, Any] | None, arguments: TrainingArguments) -> None:
    """Refuse settings that no adapter has, a machine without PEFT, and spread weights. Raises InputError."""
    if settings is None:
        return
    if find_spec(PEFT) is None:
        raise InputError(f"lora needs a package that is not installed: pip install {PEFT}, or leave it out")
    if (name := spread_by(arguments)) is not None:
        raise InputError(f"lora must be left out under {name}, where no process has whole weights to merge them into")
    from peft import LoraConfig

    check_names("lora", settings, sorted(LoraConfig.__dataclass_fields__.keys() - _OTHERS))
    if not settings.get("target_modules"):
        raise InputError(
            "lora.target_modules must name what gets adapters, a list of ends of modules' names or a regular "
            f"expression of whole names, got {settings.get('target_modules')!r}; give for instance "
            r"decoder\..*\.(q_proj|v_proj)"
        )


def add_adapters(model: PreTrainedModel, settings: Mapping[str, Any] | None) -> None:
    """Put adapters into the modules that the settings name, and freeze the weights of these. All else stays as it is.

    Args:
        settings: fields of `peft.LoraConfig`; None: no adapters.

    Raises:
        InputError: modules that are not there or cannot have adapters.
    """
    if settings is None:
        return
    from peft import LoraConfig
    from peft.tuners.lora import LoraModel

    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    try:
        LoraModel(model, LoraConfig(**settings), "default")
    except (ValueError, TypeError, KeyError) as error:
        raise InputError(f"lora: {one_line(error)}") from error
    for name, parameter in model.named_parameters():
        if name in trained:  # those of modules with an adapter have other names now
            parameter.requires_grad_(True)


def is_of_adapter(name: str) -> bool:
    """Whether a parameter of this name is an adapter's own."""
    return any(part.startswith(ADAPTER) for part in name.split("."))


def merge_adapters(model: nn.Module) -> None:
    """Add the adapters to the weights that they are for, and put the modules back that were there before."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    for name, module in list(model.named_modules()):
        if isinstance(module, BaseTunerLayer):
            module.merge()
            parent, _, own = name.rpartition(".")
            setattr(model.get_submodule(parent), own, module.get_base_layer())
