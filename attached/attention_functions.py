"""The attention functions of attached models, registered with Transformers beside those that they are made of.

`crossmask_sdpa` and `crossmask_eager` are `sdpa` and `eager` where nothing is masked. Elsewhere our mask joins the
model's own, and a query with nothing to see gets exactly zero, with which the output projection then begins.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedConfig
from transformers.masking_utils import AttentionMaskInterface, eager_mask, sdpa_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS, AttentionInterface

from ..attention.base import AttentionResult
from ..masks.expressions import MaskError
from ..seq2seq.attention_weights import ATTACHED_PREFIX, plain_name
from .attention_sites import SITE, Site, eager_of
from .side_masks import KEYWORD, SideMasks

IMPLEMENTATIONS: dict[str, Callable[..., Any]] = {"sdpa": sdpa_mask, "eager": eager_mask}
"""The attention implementations that attached models can have, and how Transformers makes masks for them."""


def attend(
    implementation: str,
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    **kwargs: Any,
) -> AttentionResult:
    """Attention as the model computes it, under the masks of this layer.

    Args:
        implementation: a key of `IMPLEMENTATIONS`.
        query: (B, H, T, D). key, value: (B, H / groups, S, D).
        attention_mask: the model's own. kwargs: as the model passes them, with the side's masks where they arrive.

    Returns:
        (B, T, H, D), and the weights (B, H, T, S), or None under `sdpa`.

    Raises:
        RuntimeError: a layer runs outside of its model, where nothing says what is masked; or it is a new one, of
            which nothing says whose masks are its own.
    """
    site: Site | None = getattr(module, SITE, None)
    masks: SideMasks | None = kwargs.pop(KEYWORD, None)
    function = base_function(implementation, eager_of(module) if site is None else site.eager)
    if site is None:  # of a model that was made by an attached one's config
        if masks is not None:
            raise RuntimeError(
                "attention under masks must be in the model when masks are attached, got a new "
                f"{type(module).__name__}; call crossmask.detach(model) and attach again"
            )
        return function(module, query, key, value, attention_mask, **kwargs)
    if masks is None:
        masks = _masks_of_call(site)
    allowed = None if masks is None else _allowed(masks, site, query, key)
    if masks is None or allowed is None:
        return function(module, query, key, value, attention_mask, **kwargs)
    additive = implementation == "eager"
    if attention_mask is None and not additive and site.scope == "encoder":
        attention_mask = _causal_by_itself(module, query, key, kwargs.get("is_causal"))
    joined = masks.join(attention_mask, allowed, query, additive)
    output, weights = function(module, query, key, value, joined.mask, **kwargs)
    if joined.mask is not joined.allowed or kwargs.get("position_bias") is not None:
        seeing = joined.seeing()
        output = output * seeing.transpose(1, 2)
        weights = None if weights is None else weights * seeing
    return output, weights


def base_function(implementation: str, eager: Callable[..., Any] | None) -> Callable[..., AttentionResult]:
    """What the model would attend by. Looked up at each call, since Transformers lets users register others."""
    interface: Any = ALL_ATTENTION_FUNCTIONS
    function: Callable[..., AttentionResult] = interface.get_interface(implementation, eager)
    return function


def _causal_by_itself(
    module: nn.Module, query: torch.Tensor, key: torch.Tensor, is_causal: bool | None
) -> torch.Tensor | None:
    """The mask (1, 1, T, S) under which `sdpa` attends where it is given none, as in an encoder that is a causal LM.

    (A decoder's masks of ours are causal already.)

    Args:
        query: (B, H, T, D). key: (B, H, S, D). is_causal: what the model passes; None where its module says it.
    """
    if is_causal is None:
        is_causal = getattr(module, "is_causal", True)  # as Transformers does
    queries, keys = query.shape[2], key.shape[2]
    if not is_causal or queries == 1:
        return None
    return torch.ones(1, 1, queries, keys, dtype=torch.bool, device=query.device).tril()


def _masks_of_call(site: Site) -> SideMasks | None:
    """The masks of the call that runs in this thread, for attention that no keyword reaches."""
    call = site.current_call.now
    if call is None:
        if site.needs_call:
            raise RuntimeError(
                "attention under masks must run inside of its model's forward pass, got a layer outside of it; enable "
                "checkpointing by model.gradient_checkpointing_enable(), and call the model instead of its parts"
            )
        return None
    masks = call.sides.get("encoder" if site.scope == "encoder" else "decoder")
    if masks is not None and not torch.compiler.is_compiling():
        site.needs_call = True
    return masks


def _allowed(masks: SideMasks, site: Site, query: torch.Tensor, key: torch.Tensor) -> torch.Tensor | None:
    if site.is_merged:
        return masks.of_merged_layer(site.layer, query.shape[2], key.shape[2])
    return masks.of_layer(site.scope, site.layer)


def use_masks(configs: list[PreTrainedConfig]) -> None:
    """Give configs the implementations under masks.

    Raises:
        MaskError: one has an implementation that there is none for; nothing is then changed.
    """
    names = [plain_name(config._attn_implementation) for config in configs]
    for name in names:
        if name not in IMPLEMENTATIONS:
            raise MaskError(
                f"attn_implementation must be one of {tuple(IMPLEMENTATIONS)} where masks are attached, got {name!r}; "
                'call model.set_attn_implementation("sdpa")'
            )
    for config, name in zip(configs, names, strict=True):
        config._attn_implementation_internal = ATTACHED_PREFIX + name


def use_plain(configs: list[PreTrainedConfig]) -> None:
    """Give configs back the implementations without masks."""
    for config in configs:
        config._attn_implementation_internal = plain_name(config._attn_implementation)


for _name, _mask_function in IMPLEMENTATIONS.items():
    AttentionInterface.register(ATTACHED_PREFIX + _name, partial(attend, _name))
    AttentionMaskInterface.register(ATTACHED_PREFIX + _name, _mask_function)
