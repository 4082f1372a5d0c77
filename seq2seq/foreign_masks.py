"""Masks in the form in which encoders and decoders of Transformers take them.

They take padding (B, L), or a finished mask (B, 1 or H, L, keys) for all layers, or a dictionary of those by the type
of a layer. A finished one must be additive: booleans are added as 0 and 1 under eager attention. What a model forbids
by itself (later tokens, tokens outside a window) is part of a finished mask, so ours is and-ed with it.

A query with nothing to see would average over all keys there, what is hidden and what comes later included. It sees
itself instead, which its residual connection reads anyway; only our own attention gives zero.
"""

from collections.abc import Sequence
from typing import Any, cast

import torch
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.cache_utils import Cache
from transformers.masking_utils import (
    create_bidirectional_mask,
    create_bidirectional_sliding_window_mask,
    create_masks_for_generate,
)

from ..attention.backends import CompiledMask
from ..masks.expressions import MaskError
from .cache import columns_of_layer

ForeignMask = torch.Tensor | dict[str, torch.Tensor]
DENSE = ("eager", "sdpa")
"""The attention implementations that take finished masks as tensors."""


def additive(allowed: torch.Tensor, batch: int, dtype: torch.dtype) -> torch.Tensor:
    """(1 or B, 1 or H, T, S) bool to (B, 1 or H, T, S) of 0 and the lowest number of `dtype`."""
    allowed = allowed.expand(batch, -1, -1, -1)
    return torch.zeros(allowed.shape, dtype=dtype, device=allowed.device).masked_fill(~allowed, torch.finfo(dtype).min)


def encoder_mask_for(
    encoder: PreTrainedModel, compiled_masks: Sequence[CompiledMask], inputs_embeds: torch.Tensor
) -> ForeignMask | None:
    """The finished mask of an encoder, None where everything is allowed.

    Args:
        compiled_masks: of each layer, (1 or B, 1 or H, S, S) bool or None.
        inputs_embeds: (B, S, any), of whose shape, dtype and device the mask is for.

    Raises:
        MaskError: masks that differ between layers which the encoder cannot tell apart, or an attention implementation
            that takes no finished mask.
    """
    if all(mask is None for mask in compiled_masks):
        return None
    config = encoder.config.get_text_config(encoder=True)
    _check_dense(config, "encoder_mask")
    functions = {"full_attention": create_bidirectional_mask}
    if (types := getattr(config, "layer_types", None)) is not None:
        functions["sliding_attention"] = create_bidirectional_sliding_window_mask
    kinds = [None] * len(compiled_masks) if types is None else list(types)
    arguments: dict[str, Any] = {
        "inputs_embeds": inputs_embeds,
        "attention_mask": None,
        "and_mask_function": _allow_all,
    }
    if unknown := sorted({kind for kind in kinds if kind is not None} - set(functions)):
        raise MaskError(
            f"encoder_mask must be full(), and rows must not be packed, where {type(encoder).__name__} encodes: it "
            f"has layers of {unknown[0]}; take an encoder of another family"
        )
    arguments["config"] = _AskingForBooleans(config)
    own: dict[str | None, Any] = {
        kind: functions[kind or "full_attention"](**arguments) for kind in dict.fromkeys(kinds)
    }
    itself = torch.eye(inputs_embeds.shape[1], dtype=torch.bool, device=inputs_embeds.device)
    return _joined(own, kinds, compiled_masks, inputs_embeds, None, "encoder_mask", itself)


def decoder_mask_for(
    decoder: PreTrainedModel,
    compiled_masks: Sequence[CompiledMask],
    inputs_embeds: torch.Tensor,
    attention_mask: torch.Tensor | None,
    past_key_values: Cache | None,
) -> ForeignMask:
    """The finished mask of a causal language model.

    Args:
        compiled_masks: of each layer, (1 or B, 1 or H, T, capacity) bool, or None.
        inputs_embeds: (B, T, any), of whose shape, dtype and device the mask is for.
        attention_mask: (B, P + T), 1 for tokens and 0 for padding.
        past_key_values: the decoder's own cache.

    Raises:
        MaskError: as in `encoder_mask_for`; or layers that no mask can act on.
    """
    config = decoder.config.get_text_config(decoder=True)
    _check_dense(config, "decoder_mask")
    # Some families have one of their own.
    own = getattr(decoder, "create_masks_for_generate", create_masks_for_generate)(
        config=cast(PreTrainedConfig, _AskingForBooleans(config)),
        inputs_embeds=inputs_embeds,
        attention_mask=attention_mask,
        past_key_values=past_key_values,
        position_ids=None,
        and_mask_function=_allow_all,
    )
    types = getattr(config, "layer_types", None)
    kinds: list[str | None] = [None] * len(compiled_masks) if types is None else list(types)
    if not isinstance(own, dict):
        own, kinds = {None: own}, [None] * len(compiled_masks)
    if any(mask is None or mask.ndim != 4 for mask in own.values()):
        raise MaskError(
            f"decoder_mask must be causal(), and rows must not be packed, where {type(decoder).__name__} decodes: it "
            "has layers that take no finished mask; take a decoder of another family"
        )
    return _joined(own, kinds, compiled_masks, inputs_embeds, past_key_values, "decoder_mask")


def _joined(
    own: dict[str | None, torch.Tensor],
    kinds: Sequence[str | None],
    compiled_masks: Sequence[CompiledMask],
    inputs_embeds: torch.Tensor,
    cache: Cache | None,
    name: str,
    itself: torch.Tensor | None = None,
) -> ForeignMask:
    """A model's own masks by type of layer, and-ed with ours, in additive form.

    Args:
        itself: (T, S) bool, the key of each query itself; by default the last that the model's own mask allows.
    """
    batch, length = inputs_embeds.shape[:2]
    masks = {}
    for kind, mask in own.items():
        layers = [layer for layer, other in enumerate(kinds) if other == kind]
        first = compiled_masks[layers[0]] if layers else None
        if any(compiled_masks[layer] is not first for layer in layers):
            kind_of_layer = "" if kind is None else f"{kind} "
            raise MaskError(
                f"{name} must be the same in every {kind_of_layer}layer of this model, which takes one mask for all "
                "of them; give one without layers(...)"
            )
        if isinstance(first, torch.Tensor):
            joined = mask & columns_of_layer(first, cache, layers[0], length)
            nothing = ~joined.any(dim=-1, keepdim=True)
            mask = joined | (nothing & (_last_allowed(mask) if itself is None else itself))
        masks[kind] = additive(mask, batch, inputs_embeds.dtype)
    return masks[None] if None in masks else {str(kind): mask for kind, mask in masks.items()}


def _last_allowed(mask: torch.Tensor) -> torch.Tensor:
    """Of each row of a mask (B, 1, T, S) bool the last column that is True, and no other."""
    from_the_end = mask.flip(-1).cumsum(dim=-1).flip(-1)  # how many are True from here on
    return mask & (from_the_end == 1)


def _allow_all(batch: torch.Tensor, head: torch.Tensor, query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
    """A condition that is always true; with one, Transformers leaves no mask out."""
    return key == key


class _AskingForBooleans:
    """A config whose attention implementation is `sdpa`, for which Transformers makes boolean masks.

    Not a copy: `torch.compile` before PyTorch 2.12 cannot follow `copy.copy`.
    """

    _attn_implementation = _attn_implementation_internal = "sdpa"

    def __init__(self, config: PreTrainedConfig):
        self._config = config

    def __getattr__(self, name: str) -> Any:
        return getattr(self._config, name)

    def get_text_config(self, **sides: bool) -> "_AskingForBooleans":
        return _AskingForBooleans(self._config.get_text_config(**sides))


def _check_dense(config: PreTrainedConfig, name: str) -> None:
    if (config._attn_implementation or "eager") not in DENSE:
        raise MaskError(
            f"{name} needs attn_implementation to be one of {DENSE} in this part of the model, got "
            f"{config._attn_implementation!r}; call model.set_attn_implementation({{...}}) for it"
        )
