"""The masks of a batch: those that the model runs under, and those that should hold."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from ..configuration.layer_masks import masks_of_layers
from ..masks import Layout, Mask, MaskError, MaskLike, TensorMask
from ..masks.blind_check import check_blind_spans
from ..masks.rules import blind, full, layers
from ..masks.scope import SCOPES, Scope
from ..masks.tensor_mask import as_mask, check_fit
from ..seq2seq.decoder_inputs import attention_mask_from_labels

# The masks of a model whose config has none.
_DEFAULTS = {"encoder": "full()", "decoder": "causal()", "cross": "full()"}
_IDS = ("segment_ids", "decoder_segment_ids", "position_ids", "decoder_position_ids", "passage_ids")


@dataclass(frozen=True, eq=False)
class ScopeMask:
    """The mask of a scope: a rule for each layer, and a tensor (B, 1 or H, T, S) that is and-ed with all of them."""

    rules: tuple[Mask, ...]
    tensor_mask: torch.Tensor | None = None

    def __str__(self) -> str:
        is_one_rule = len(set(self.rules)) == 1
        text = str(self.rules[0] if is_one_rule else layers(dict(enumerate(self.rules))))
        return text if self.tensor_mask is None else "a tensor" if text == "full()" else f"{text} & a tensor"

    def same(self, other: "ScopeMask") -> bool:
        one, two = self.tensor_mask, other.tensor_mask
        same_tensors = one is two or (one is not None and two is not None and torch.equal(one, two))
        return self.rules == other.rules and same_tensors


@dataclass(frozen=True, eq=False)
class BatchMasks:
    """All masks of a batch. Positions are counted in plain Python if they are not given.

    Attributes:
        encoder_mask, decoder_mask, cross_mask: with a rule for each layer.
        attention_mask, decoder_attention_mask: (B, S) and (B, T) bool, True for tokens.
        segment_ids, decoder_segment_ids, position_ids, decoder_position_ids, passage_ids: (B, S) or (B, T) int64.
        heads: H. memory: the number of vectors in the memory between encoder and decoder, None without a memory.
    """

    encoder_mask: ScopeMask
    decoder_mask: ScopeMask
    cross_mask: ScopeMask
    attention_mask: torch.Tensor
    decoder_attention_mask: torch.Tensor
    segment_ids: torch.Tensor | None = None
    decoder_segment_ids: torch.Tensor | None = None
    position_ids: torch.Tensor | None = None
    decoder_position_ids: torch.Tensor | None = None
    passage_ids: torch.Tensor | None = None
    heads: int = 1
    memory: int | None = None

    @cached_property
    def source_segments(self) -> torch.Tensor:
        """(B, S) int64, 0 for padding."""
        return _segments(self.attention_mask, self.segment_ids)

    @cached_property
    def target_segments(self) -> torch.Tensor:
        """(B, T) int64, 0 for padding."""
        return _segments(self.decoder_attention_mask, self.decoder_segment_ids)

    @cached_property
    def source(self) -> Layout:
        packed = self.segment_ids is not None
        return _layout(self.source_segments, packed, self.position_ids, self.passage_ids)

    @cached_property
    def target(self) -> Layout:
        return _layout(self.target_segments, self.decoder_segment_ids is not None, self.decoder_position_ids)


def _segments(tokens: torch.Tensor, segment_ids: torch.Tensor | None) -> torch.Tensor:
    return tokens.long() if segment_ids is None else segment_ids * tokens


def _layout(
    segments: torch.Tensor, packed: bool, positions: torch.Tensor | None, passages: torch.Tensor | None = None
) -> Layout:
    numbers = segments.tolist()
    # One token after the other, and not by the model's code, which is under audit.
    counted = [[row[:i].count(number) if number else 0 for i, number in enumerate(row)] for row in numbers]
    return Layout(
        torch.tensor(counted) if positions is None else positions,
        segments,
        passages,
        rows=len(numbers),
        packed=packed,
    )


def actual_masks(model: PreTrainedModel, batch: Mapping, ids: Mapping[str, torch.Tensor]) -> BatchMasks:
    """The masks of the config and the batch, which the model runs under.

    Args:
        ids: `"source"` (B, S) and `"target"` (B, T) int64, as the model embedded them.

    Raises:
        MaskError: a mask cannot be read.
    """
    config = model.config
    heads = getattr(config, "num_attention_heads", None) or 1
    # What a model forbids by itself whatever its config says, as a causal language model does.
    own = {masks.scope: masks.own for masks in getattr(model, "mask_compilers", ()) if masks.own is not None}
    of_scopes: dict[Scope, ScopeMask] = {}
    for scope in SCOPES:
        name = f"{scope}_mask"
        count = _layers(model.get_encoder() if scope == "encoder" else model.get_decoder())
        rules = masks_of_layers(getattr(config, name, _DEFAULTS[scope]), count, name)
        call = None if batch.get(name) is None else _read(batch[name], scope, count, ids, heads)
        if call is not None:
            rules = tuple(a & b for a, b in zip(rules, call.rules, strict=True))
        if scope in own:
            rules = tuple(own[scope] & rule for rule in rules)
        of_scopes[scope] = ScopeMask(_in_evaluation(rules), None if call is None else call.tensor_mask)
    labels, decoder_attention_mask = batch.get("labels"), batch.get("decoder_attention_mask")
    if _only_labels(batch) and labels.shape == ids["target"].shape:
        decoder_attention_mask = attention_mask_from_labels(labels)
    return BatchMasks(
        encoder_mask=of_scopes["encoder"],
        decoder_mask=of_scopes["decoder"],
        cross_mask=of_scopes["cross"],
        attention_mask=_attention(batch.get("attention_mask"), "attention_mask", ids["source"]),
        decoder_attention_mask=_attention(decoder_attention_mask, "decoder_attention_mask", ids["target"]),
        **{name: _ids(batch.get(name), name, ids) for name in _IDS},
        heads=heads,
        memory=getattr(config, "memory_length", None),
    )


def expected_masks(
    actual: BatchMasks,
    arguments: Mapping[str, MaskLike | Mapping | torch.Tensor | None],
    ids: Mapping[str, torch.Tensor],
    batch: Mapping,
    config: object,
) -> BatchMasks:
    """The masks that should hold: the arguments of `audit`, or else the actual masks. Positions are counted.

    Without an attention mask, padding tokens at the ends of a row are padding.

    Raises:
        MaskError: a mask or ids cannot be read or do not fit.
    """
    changes: dict[str, Any] = dict.fromkeys(("position_ids", "decoder_position_ids"))
    changes |= {name: _ids(arguments[name], name, ids) for name in _IDS if arguments[name] is not None}
    for name, side in (("attention_mask", "source"), ("decoder_attention_mask", "target")):
        if arguments[name] is not None:
            changes[name] = _attention(arguments[name], name, ids[side])
        elif batch.get(name) is None and not (side == "target" and _only_labels(batch)):
            changes[name] = not_padded(ids[side], config, side)
    for scope in SCOPES:
        name = f"{scope}_mask"
        if arguments[name] is not None:
            changes[name] = _read(arguments[name], scope, len(getattr(actual, name).rules), ids, actual.heads)
    expected = replace(actual, **changes)
    if (expected.segment_ids is None) != (expected.decoder_segment_ids is None):
        raise MaskError("audit: packed rows must have segment_ids and decoder_segment_ids, got one of them; pass both")
    rules = {scope: getattr(expected, f"{scope}_mask").rules for scope in SCOPES}
    check_blind_spans(**rules, memory=expected.memory is not None)
    if expected.memory is not None:
        parts = [part for rule in rules["cross"] for part in rule.rules()]
        if expected.cross_mask.tensor_mask is not None or not all(isinstance(part, blind | full) for part in parts):
            raise MaskError(
                f"cross_mask must be full() over a memory, got {expected.cross_mask}; put the rule into encoder_mask"
            )
    return expected


def _read(
    mask_like: MaskLike | dict, scope: Scope, count: int, ids: Mapping[str, torch.Tensor], heads: int
) -> ScopeMask:
    """The mask of a scope with `count` layers, from what a caller passed."""
    name = f"{scope}_mask"
    if isinstance(mask_like, dict):
        return ScopeMask(_in_evaluation(masks_of_layers(mask_like, count, name)))
    mask = as_mask(mask_like, name)
    if isinstance(mask, Mask):
        try:
            return ScopeMask(_in_evaluation((mask,) * count))
        except MaskError as error:
            raise MaskError(f"{name}: {error}") from error
    rows, columns = (
        ids["source" if scope == "encoder" else "target"],
        ids["target" if scope == "decoder" else "source"],
    )
    sizes = {"batch": len(rows), "heads": heads, "queries": rows.shape[1], "keys": columns.shape[1]}
    check_fit(mask, name, **sizes, may_grow=scope == "decoder", has_all_rows=scope == "encoder")
    return ScopeMask((full(),) * count, _written_out(mask, rows.shape[1], columns.shape[1]))


def _written_out(mask: TensorMask, rows: int, columns: int) -> torch.Tensor:
    """(B or 1, H or 1, T, S) bool: the last row and column are repeated if needed, and further ones are left out."""
    allowed = mask.as_4d.cpu()
    which_rows = [min(row, allowed.shape[2] - 1) for row in range(rows)]
    which_columns = [min(column, allowed.shape[3] - 1) for column in range(columns)]
    return allowed[:, :, which_rows][:, :, :, which_columns]


def _in_evaluation(rules: tuple[Mask, ...]) -> tuple[Mask, ...]:
    return tuple(rule.for_layer(layer, len(rules), training=False) for layer, rule in enumerate(rules))


def _layers(stack: nn.Module) -> int:
    """The number of layers of a stack, from its modules, since configs have different names for it."""
    return next((len(part) for part in stack.modules() if isinstance(part, nn.ModuleList)), 1)


def _ids(value: object, name: str, ids: Mapping[str, torch.Tensor]) -> torch.Tensor | None:
    if value is None:
        return None
    numbers = _fitting(value, name, ids["target" if "decoder" in name else "source"])
    if numbers.is_complex() or bool((numbers != numbers.long()).any()):
        raise MaskError(f"audit: {name} must be integers, got fractions of {numbers.dtype}")
    if "position" not in name and bool((numbers < 0).any()):
        raise MaskError(f"audit: {name} must be integers from 0, got {int(numbers.min())}; count them from 0")
    return numbers.long()


def _attention(value: object, name: str, ids: torch.Tensor) -> torch.Tensor:
    if value is None:
        return torch.ones_like(ids) != 0
    mask = _fitting(value, name, ids)
    if not bool(((mask == 0) | (mask == 1)).all()):
        wrong = mask[(mask != 0) & (mask != 1)][0].item()
        raise MaskError(f"audit: {name} must hold 0 and 1 only, got {wrong}; compare it to get booleans")
    return mask != 0


def _fitting(value: object, name: str, ids: torch.Tensor) -> torch.Tensor:
    if not isinstance(value, torch.Tensor):
        raise MaskError(f"audit: {name} must be a tensor, got {type(value).__name__}; write torch.as_tensor(...)")
    if value.ndim != 2 or value.shape[1] != ids.shape[1] or value.shape[0] not in (1, len(ids)):
        raise MaskError(f"audit: {name} must be {tuple(ids.shape)}, as the batch's tokens, got {tuple(value.shape)}")
    return value.detach().cpu().expand_as(ids)


def _only_labels(batch: Mapping) -> bool:
    """Whether the model makes the decoder's input, and with it its attention mask, from labels."""
    from_labels = ("decoder_input_ids", "decoder_attention_mask", "decoder_segment_ids")
    return batch.get("labels") is not None and all(batch.get(name) is None for name in from_labels)


def not_padded(ids: torch.Tensor, config: object, side: str) -> torch.Tensor:
    """All but the padding tokens at both ends of each row: (B, L) bool."""
    pad = getattr(config, "pad_token_id", None)
    if pad is None or pad == getattr(config, "eos_token_id", None):
        return torch.ones_like(ids) != 0
    other = ids != pad
    before, after = other.cumsum(-1) > 0, other.flip(-1).cumsum(-1).flip(-1) > 0
    if side == "target" and getattr(config, "decoder_start_token_id", None) == pad:
        # The last of the padding tokens at the beginning is the start token, even if no other token follows.
        before[:, :-1] |= before[:, 1:].clone()
        before[:, 0] |= ~other.any(-1)
        after[:, 0] |= ~other.any(-1)
    return before & after
