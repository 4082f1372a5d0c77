"""Masks of a pipeline's inputs: each may have its own, or a call has one for all."""

import inspect
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from transformers import PreTrainedModel

from .inputs import PipelineInputError, check_keys

MASKS = ("encoder_mask", "decoder_mask", "cross_mask")


def masks_of(item: Mapping[str, Any]) -> dict[str, Any]:
    """The masks that an input has of its own."""
    return {key: item[key] for key in MASKS if item.get(key) is not None}


def masks_taken(model: PreTrainedModel) -> tuple[str, ...]:
    """The masks that a model's `forward` takes.

    Where it has no argument by name, as on CTranslate2, they are all: its `generate` refuses what it does not take.
    """
    parameters = inspect.signature(model.forward).parameters.values()
    named = {one.name for one in parameters if one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD)}
    return tuple(name for name in MASKS if name in named or not named)


def check_keys_and_masks(
    model: PreTrainedModel, item: Mapping[str, Any], name: str, needed: Sequence[str], optional: Sequence[str] = ()
) -> None:
    """Refuse an input that lacks a key, or has one that would do nothing, such as a mask that the model does not take.

    Raises:
        PipelineInputError: the message says which.
    """
    check_taken(model, masks_of(item), f"{name}: ")
    check_keys(item, name, needed, (*optional, *masks_taken(model)))


def call_masks(model: PreTrainedModel, **given: Any) -> dict[str, Any]:
    """The masks that a call has for all of its inputs.

    Raises:
        PipelineInputError: a tensor, which is for one input, or a mask that the model does not take.
    """
    masks = {name: mask for name, mask in given.items() if mask is not None}
    check_taken(model, masks)
    for name, mask in masks.items():
        if isinstance(mask, torch.Tensor):
            raise PipelineInputError(f"{name} must be a rule or its text for a whole call; give an input its tensor")
    return masks


def check_taken(model: PreTrainedModel, masks: Iterable[str], where: str = "") -> None:
    """Refuse masks, by name, that a model does not take. Raises PipelineInputError, which begins with `where`."""
    taken = masks_taken(model)
    for name in masks:
        if name not in taken:
            known = f"takes {', '.join(taken)}" if taken else "takes no masks"
            fix = "; attach(model) makes it take them" if model.config.is_encoder_decoder and not taken else ""
            raise PipelineInputError(f"{where}{name} must be left out with {type(model).__name__}, which {known}{fix}")


def group_by_masks(
    rows: Sequence[Mapping[str, Any]], call_masks: Mapping[str, Any]
) -> list[tuple[list[int], dict[str, Any]]]:
    """Which rows of a batch a model takes together, and their masks.

    Args:
        rows: each with the `name` of its input and its `masks`. A tensor is without the batch axis.
        call_masks: those of the call, for all rows.

    Raises:
        PipelineInputError: a mask of a row that the call has too.
    """
    alone: list[tuple[list[int], dict[str, Any]]] = []
    groups: list[tuple[list[int], dict[str, Any]]] = []
    for index, row in enumerate(rows):
        own: dict[str, Any] = row["masks"]
        if both := own.keys() & call_masks.keys():
            mask = sorted(both)[0]
            raise PipelineInputError(f"{row['name']} must have no {mask} beside that of the call; leave one out")
        if any(isinstance(mask, torch.Tensor) for mask in own.values()):
            alone.append(([index], {k: m[None] if isinstance(m, torch.Tensor) else m for k, m in own.items()}))
        elif members := next((members for members, masks in groups if masks == own), None):
            members.append(index)
        else:
            groups.append(([index], own))
    return [(members, {**call_masks, **masks}) for members, masks in (*alone, *groups)]


def rows_of_batch(inputs: Mapping[str, torch.Tensor], members: Sequence[int]) -> dict[str, torch.Tensor]:
    """Some rows of a batch, (B, S) to (members, shorter S): without the columns in which they all have padding."""
    rows = {name: tensor[list(members)] for name, tensor in inputs.items()}
    used = rows["attention_mask"].any(0)
    return {name: tensor[:, used] for name, tensor in rows.items()}
