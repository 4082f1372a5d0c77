"""What may be read in a batch: as the config and the batch have it, and as it should be."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import nn

from ..configuration.layer_masks import masks_of_layers
from ..masks import Layout, Mask, MaskError, MaskLike, TensorMask
from ..masks.blind_check import check_blind_spans
from ..masks.rules import blind, full, layers
from ..masks.scope import SCOPES, Scope
from ..masks.tensor_mask import as_mask, check_fit
from ..seq2seq.decoder_inputs import attention_mask_from_labels

# What holds in a model whose config speaks of no masks.
_USUAL = {"encoder": "full()", "decoder": "causal()", "cross": "full()"}
_IDS = ("segment_ids", "decoder_segment_ids", "position_ids", "decoder_position_ids", "passage_ids")


@dataclass(frozen=True, eq=False)
class ScopeMask:
    """A scope's mask: a rule for each layer, and a tensor (B, 1 or H, T, S) that is and-ed with all of them."""

    rules: tuple[Mask, ...]
    given: torch.Tensor | None = None

    def __str__(self) -> str:
        alike = len(set(self.rules)) == 1
        text = str(self.rules[0] if alike else layers(dict(enumerate(self.rules))))
        return text if self.given is None else "a tensor" if text == "full()" else f"{text} & a tensor"

    def same(self, other: "ScopeMask") -> bool:
        tensors = (self.given, other.given)
        same_given = tensors[0] is tensors[1] or (None not in tensors and torch.equal(*tensors))
        return self.rules == other.rules and same_given


@dataclass(frozen=True, eq=False)
class Declaration:
    """Who may read what. Positions are counted in plain Python unless they are given.

    Attributes:
        encoder_mask, decoder_mask, cross_mask: one rule a layer each.
        attention_mask, decoder_attention_mask: (B, S) and (B, T) bool, True for tokens.
        segment_ids, decoder_segment_ids, position_ids, decoder_position_ids, passage_ids: (B, S) or (B, T) int64.
        heads: H. memory: the number of vectors in the memory between encoder and decoder, if there is one.
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
    def source(self) -> Layout:
        return _places(self.attention_mask, self.segment_ids, self.position_ids, self.passage_ids)

    @cached_property
    def target(self) -> Layout:
        return _places(self.decoder_attention_mask, self.decoder_segment_ids, self.decoder_position_ids)


def _places(
    tokens: torch.Tensor,
    segments: torch.Tensor | None,
    positions: torch.Tensor | None,
    passages: torch.Tensor | None = None,
) -> Layout:
    numbers = (tokens.long() if segments is None else segments * tokens).tolist()
    # One token after the other, not as the model counts them: its count is under audit.
    counted = [[row[:i].count(number) if number else 0 for i, number in enumerate(row)] for row in numbers]
    return Layout(
        torch.tensor(counted) if positions is None else positions,
        torch.tensor(numbers),
        passages,
        rows=len(numbers),
        packed=segments is not None,
    )


def actual_masks(model: nn.Module, batch: Mapping, ids: Mapping[str, torch.Tensor]) -> Declaration:
    """What the config and the batch say.

    Args:
        ids: `"source"` (B, S) and `"target"` (B, T) int64, as the model embedded them.

    Raises:
        MaskError: a mask that cannot be read.
    """
    config = model.config
    heads = getattr(config, "num_attention_heads", None) or 1
    scopes = {}
    for scope in SCOPES:
        name = f"{scope}_mask"
        count = _layers(model.get_encoder() if scope == "encoder" else model.get_decoder())
        rules = masks_of_layers(getattr(config, name, _USUAL[scope]), count, name)
        call = None if batch.get(name) is None else _read(batch[name], scope, count, ids, heads)
        if call is not None:
            rules = tuple(a & b for a, b in zip(rules, call.rules, strict=True))
        scopes[name] = ScopeMask(_evaluating(rules), call and call.given)
    labels, made = batch.get("labels"), None
    if _only_labels(batch) and labels.shape == ids["target"].shape:
        made = attention_mask_from_labels(labels)
    return Declaration(
        **scopes,
        attention_mask=_attention(batch.get("attention_mask"), "attention_mask", ids["source"]),
        decoder_attention_mask=_attention(
            made if made is not None else batch.get("decoder_attention_mask"), "decoder_attention_mask", ids["target"]
        ),
        **{name: _ids(batch.get(name), name, ids) for name in _IDS},
        heads=heads,
        memory=getattr(config, "memory_length", None),
    )


def expected_masks(
    run: Declaration,
    given: Mapping[str, MaskLike | Mapping | torch.Tensor | None],
    ids: Mapping[str, torch.Tensor],
    batch: Mapping,
    config: object,
) -> Declaration:
    """What should hold: what was given, else what the batch says, except for positions, which are counted.

    Where neither says what is padding, padding tokens at the ends of a row are.

    Raises:
        MaskError: a mask or ids that cannot be read or do not fit.
    """
    said = dict.fromkeys(("position_ids", "decoder_position_ids"))
    said |= {name: _ids(given[name], name, ids) for name in _IDS if given[name] is not None}
    for name, side in (("attention_mask", "source"), ("decoder_attention_mask", "target")):
        if given[name] is not None:
            said[name] = _attention(given[name], name, ids[side])
        elif batch.get(name) is None and not (side == "target" and _only_labels(batch)):
            said[name] = not_padded(ids[side], config, side)
    for scope in SCOPES:
        name = f"{scope}_mask"
        if given[name] is not None:
            said[name] = _read(given[name], scope, len(getattr(run, name).rules), ids, run.heads)
    declared = replace(run, **said)
    if (declared.segment_ids is None) != (declared.decoder_segment_ids is None):
        raise MaskError("audit: packed rows need both segment_ids and decoder_segment_ids; only one of them was given")
    rules = {scope: getattr(declared, f"{scope}_mask").rules for scope in SCOPES}
    check_blind_spans(**rules, memory=declared.memory is not None)
    if declared.memory is not None:
        parts = [part for rule in rules["cross"] for part in rule.rules()]
        if declared.cross_mask.given is not None or not all(isinstance(part, blind | full) for part in parts):
            raise MaskError(
                f"cross_mask: {declared.cross_mask} has no meaning over a memory; put the rule into encoder_mask"
            )
    return declared


def _read(given: MaskLike | dict, scope: Scope, count: int, ids: Mapping[str, torch.Tensor], heads: int) -> ScopeMask:
    """A scope's mask in `count` layers, from what a caller passed."""
    name = f"{scope}_mask"
    if isinstance(given, dict):
        return ScopeMask(_evaluating(masks_of_layers(given, count, name)))
    mask = as_mask(given, name)
    if isinstance(mask, Mask):
        try:
            return ScopeMask(_evaluating((mask,) * count))
        except MaskError as error:
            raise MaskError(f"{name}: {error}") from error
    rows, columns = (
        ids["source" if scope == "encoder" else "target"],
        ids["target" if scope == "decoder" else "source"],
    )
    sizes = {"batch": len(rows), "heads": heads, "queries": rows.shape[1], "keys": columns.shape[1]}
    check_fit(mask, name, **sizes, may_grow=scope == "decoder", whole=scope == "encoder")
    return ScopeMask((full(),) * count, _written_out(mask, rows.shape[1], columns.shape[1]))


def _written_out(mask: TensorMask, rows: int, columns: int) -> torch.Tensor:
    """(B or 1, H or 1, T, S) bool: rows and columns past the end repeat the last one, those to spare are left out."""
    allowed = mask.allowed.cpu()
    allowed = allowed[:, None, None] if allowed.ndim == 2 else allowed[:, None] if allowed.ndim == 3 else allowed
    rows = [min(row, allowed.shape[2] - 1) for row in range(rows)]
    columns = [min(column, allowed.shape[3] - 1) for column in range(columns)]
    return allowed[:, :, rows][:, :, :, columns]


def _evaluating(rules: tuple[Mask, ...]) -> tuple[Mask, ...]:
    return tuple(rule.for_layer(layer, len(rules), training=False) for layer, rule in enumerate(rules))


def _layers(stack: nn.Module) -> int:
    """The number of layers, read off the network, since configs name it differently."""
    return next((len(part) for part in stack.modules() if isinstance(part, nn.ModuleList)), 1)


def _ids(given: torch.Tensor | None, name: str, ids: Mapping[str, torch.Tensor]) -> torch.Tensor | None:
    if given is None:
        return None
    numbers = _fitting(given, name, ids["target" if "decoder" in name else "source"])
    if numbers.is_complex() or bool((numbers != numbers.long()).any()):
        raise MaskError(f"audit: {name} must be whole numbers, got others in its {numbers.dtype}")
    if "position" not in name and bool((numbers < 0).any()):
        raise MaskError(f"audit: {name} must be numbers from 0 on, got {int(numbers.min())}")
    return numbers.long()


def _attention(given: torch.Tensor | None, name: str, like: torch.Tensor) -> torch.Tensor:
    if given is None:
        return torch.ones_like(like) != 0
    mask = _fitting(given, name, like)
    if not bool(((mask == 0) | (mask == 1)).all()):
        raise MaskError(f"audit: {name} must hold 0 and 1 only, or booleans")
    return mask != 0


def _fitting(given: torch.Tensor, name: str, like: torch.Tensor) -> torch.Tensor:
    if not isinstance(given, torch.Tensor):
        raise MaskError(f"audit: {name} must be a tensor, got {type(given).__name__}; write torch.as_tensor(...)")
    if given.ndim != 2 or given.shape[1] != like.shape[1] or given.shape[0] not in (1, len(like)):
        raise MaskError(f"audit: {name} must be {tuple(like.shape)}, as the batch's tokens, got {tuple(given.shape)}")
    return given.detach().cpu().expand_as(like)


def _only_labels(batch: Mapping) -> bool:
    made = ("decoder_input_ids", "decoder_attention_mask", "decoder_segment_ids")
    return batch.get("labels") is not None and all(batch.get(name) is None for name in made)


def not_padded(ids: torch.Tensor, config: object, side: str) -> torch.Tensor:
    """All but the padding tokens at both ends of each row: (B, L) bool."""
    pad = getattr(config, "pad_token_id", None)
    if pad is None or pad == getattr(config, "eos_token_id", None):
        return torch.ones_like(ids) != 0
    other = ids != pad
    before, after = other.cumsum(-1) > 0, other.flip(-1).cumsum(-1).flip(-1) > 0
    if side == "target" and getattr(config, "decoder_start_token_id", None) == pad:
        # The last of the padding tokens in front is the start token, also where nothing follows.
        before[:, :-1] |= before[:, 1:].clone()
        before[:, 0] |= ~other.any(-1)
        after[:, 0] |= ~other.any(-1)
    return before & after
