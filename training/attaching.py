"""Masks on an encoder-decoder of Transformers, as a recipe's `model` has them, by `crossmask.attach`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from transformers import PreTrainedConfig, PreTrainedModel

from ..attached import attach
from ..configuration.base import MASK_FIELDS, MaskedConfig
from ..configuration.layer_masks import as_text
from ..masks.expressions import MaskError
from ..seq2seq.attention_weights import plain_name
from ..tasks.base import Task
from ..utils.errors import InputError
from .validation import one_line


def masks_to_attach(
    task: Task, config_class: type[PreTrainedConfig], given: Mapping[str, Any] | None
) -> dict[str, Any]:
    """The masks among the fields of a recipe's `model`, as texts, where the class has no such fields.

    Raises:
        InputError: one that cannot be read.
    """
    if not task.attaches_masks or any(name in config_class.__dataclass_fields__ for name in MASK_FIELDS):
        return {}
    masks = {}
    for name in MASK_FIELDS:
        if (mask := (given or {}).get(name)) is not None:
            try:
                masks[name] = as_text(mask, name)
            except MaskError as error:
                raise InputError(f"model.{name}: {one_line(error)}") from error
    return masks


def attach_masks(
    model: PreTrainedModel, masks: Mapping[str, Any], call_masks: bool = False, packed: bool = False
) -> PreTrainedModel:
    """A model of Transformers with masks: those given, and those that its config has. Others are returned as they are.

    Args:
        masks: of `masks_to_attach`.
        call_masks: whether training will give masks to the model's calls. packed: whether rows will be packed, which
            is by masks too.

    Raises:
        InputError: a model that cannot have them, or whose code says that it cannot keep packed examples apart.
    """
    if isinstance(model.config, MaskedConfig):
        return model
    if not (
        masks or call_masks or packed or any(getattr(model.config, name, None) is not None for name in MASK_FIELDS)
    ):
        return model
    try:
        attached: Any = attach(model, **masks)
    except (ValueError, TypeError) as error:
        needs = ", which packed rows need" if packed else ""
        raise InputError(f"a {model.config.model_type} model cannot have masks{needs}: {one_line(error)}") from error
    if packed and (reason := attached.attachment.packing_refusal) is not None:
        raise InputError(
            f"batching must be examples or buckets for a {model.config.model_type} model, got packed rows: {reason}"
        )
    return cast(PreTrainedModel, attached)


def load_finished(folder: Path, model: PreTrainedModel, task: Task) -> Any:
    """The model that was saved in a folder, as its users load it, with the attention of the trained one."""
    attention = plain_name(model.config._attn_implementation)
    loaded = task.auto_class.from_pretrained(folder, attn_implementation=attention)
    return attach_masks(loaded, {}) if task.attaches_masks else loaded
