"""Packed rows on an attached model: whether it can keep examples apart, and the decoder's inputs by their labels."""

from collections.abc import Mapping
from typing import Any

import torch
from transformers import PreTrainedModel

from ..masks.layout import count_in_segments
from ..seq2seq.decoder_inputs import IGNORED
from ..seq2seq.mask_probe import numbers_positions_by_itself
from ..seq2seq.pretrained_parts import arguments_of
from .attention_sites import Attentions
from .positions import position_table

SEGMENTS = ("segment_ids", "decoder_segment_ids")
"""The arguments of a call that say which example of a packed row each source and target token belongs to."""
# Two examples of these lengths are packed to see whether they are what they are alone.
_SOURCES, _TARGETS = (2, 3), (3, 2)


def packing_refusal(model: PreTrainedModel, attentions: Attentions) -> str | None:
    """Why packed examples could not be kept apart, as the model's code says; None where nothing speaks against it."""
    encoder, decoder = model.get_encoder(), model.get_decoder()
    if model.main_input_name != "input_ids":
        return f"{type(encoder).__name__} reads {model.main_input_name}, of which no column is a token"
    if not attentions.encoder:
        return f"{type(encoder).__name__} has attention that masks cannot reach, such as a sparse one"
    for side in (encoder, decoder):
        if has_capacity(side):
            return f"{type(side).__name__} has experts of limited capacity, which one example takes from another"
        if position_table(side) is None and numbers_positions_by_itself(side, arguments_of(side)):
            return f"{type(side).__name__} numbers positions by itself"
    return None


def has_capacity(side: Any) -> bool:
    """Whether a side has experts that take a limited number of tokens."""
    return any(isinstance(getattr(module, "expert_capacity", None), int) for module in side.modules())


def check_segments(given: Mapping[str, Any]) -> bool:
    """Whether a call is packed.

    Raises:
        ValueError: one side is, and the other is not.
    """
    packed = [given.get(name) is not None for name in SEGMENTS]
    if any(packed) and not all(packed):
        raise ValueError(
            f"packed rows must have segment_ids and decoder_segment_ids, got {SEGMENTS[packed.index(True)]} alone; "
            "give both"
        )
    return all(packed)


@torch.no_grad()
def measured_refusal(model: Any) -> str | None:
    """Why packed examples are not what they are alone, if two of them are not; measured on the model's own weights."""
    sides = (model.get_encoder(), model.get_decoder())
    sizes = [side.get_input_embeddings().num_embeddings for side in sides]
    # The last ids of a vocabulary are seldom special.
    ids = [
        torch.arange(size - sum(lengths), size, device=model.device)[None].clamp(min=0)
        for size, lengths in zip(sizes, (_SOURCES, _TARGETS), strict=True)
    ]
    segments = [
        torch.tensor([[1] * lengths[0] + [2] * lengths[1]], device=model.device) for lengths in (_SOURCES, _TARGETS)
    ]
    training = [module for module in model.modules() if module.training]
    for module in training:
        module.training = False
    try:
        common = {"use_cache": False}
        packed = model(
            input_ids=ids[0],
            decoder_input_ids=ids[1],
            segment_ids=segments[0],
            decoder_segment_ids=segments[1],
            **common,
        ).logits
        # Padding is told, since one of these ids may be that of padding.
        alone = [
            model(
                input_ids=source,
                decoder_input_ids=target,
                attention_mask=torch.ones_like(source),
                decoder_attention_mask=torch.ones_like(target),
                **common,
            ).logits
            for source, target in zip(ids[0].split(_SOURCES, 1), ids[1].split(_TARGETS, 1), strict=True)
        ]
    finally:
        for module in training:
            module.training = True
    expected = torch.cat(alone, dim=1)
    difference = float((packed - expected).abs().max())
    if difference <= torch.finfo(expected.dtype).eps ** 0.5 * float(expected.abs().max()):
        return None
    return f"{type(model).__name__} computes something else of packed examples than of each alone"


def inputs_from_packed_labels(model: Any, labels: torch.Tensor, segments: torch.Tensor) -> torch.Tensor:
    """The decoder's inputs (B, T) of packed labels (B, T), each example's made as the model makes them of a row.

    Args:
        segments: (B, T) integers, 0 for padding.

    Raises:
        ValueError: labels of another shape; a model that does not say how it makes them.
    """
    if labels.shape != segments.shape:
        raise ValueError(
            f"decoder_segment_ids must be {tuple(labels.shape)}, the shape of the labels, got {tuple(segments.shape)}"
        )
    shift = getattr(model, "prepare_decoder_input_ids_from_labels", None)
    if shift is None:
        raise ValueError(
            f"decoder_input_ids must be given beside packed labels for {type(model).__name__}, which has no "
            "prepare_decoder_input_ids_from_labels; give them with a start token before every example"
        )
    # One row for each example, and one for padding, which is dropped.
    count = int(segments.max()) + 1
    rows = torch.arange(len(labels), device=labels.device)[:, None] * count + segments
    positions = count_in_segments(segments.long())
    apart = labels.new_full((len(labels) * count, labels.shape[1]), IGNORED)
    apart[rows, positions] = labels
    inputs = torch.full_like(labels, model.config.get_text_config(decoder=True).pad_token_id or 0)
    used = segments > 0
    filled = rows[used].unique()
    shifted = torch.zeros_like(apart)
    if len(filled):
        shifted[filled] = shift(labels=apart[filled])
    inputs[used] = shifted[rows, positions][used]
    return inputs


def with_decoder_inputs(model: Any, given: dict[str, Any], call: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a packed call, with the decoder's inputs where it gave labels without any."""
    labels, segments = call.get("labels"), given.get("decoder_segment_ids")
    has_inputs = any(call.get(name) is not None for name in ("decoder_input_ids", "decoder_inputs_embeds"))
    if labels is None or segments is None or has_inputs:
        return call
    return {**call, "decoder_input_ids": inputs_from_packed_labels(model, labels, segments)}
