"""Attention under a boolean tensor: eager, SDPA, and other functions that Transformers knows.

Letters: B batch, S source length, T target length, H query heads, D head width.
Masks are boolean, True = allowed. A query that may see no key gets zero, and so do its gradients.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn
from transformers.integrations.sdpa_attention import repeat_kv
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from ..masks.materialize import compile_mask
from .base import AttentionBackend, AttentionResult, MaskRequest


class DenseBackend(AttentionBackend):
    """An attention function that is registered with Transformers, under a boolean tensor (1 or B, 1 or H, T, S)."""

    fallback: str | None = "eager"
    shared_beams = True
    traceable = True

    def __init__(self, name: str):
        self.name = name

    def compile(self, request: MaskRequest) -> torch.Tensor | None:
        mask = compile_mask(request.rule, request.query, request.key, request.tensor_mask, request.heads)
        if mask is None or request.beams_per_source == 1:
            return mask
        return fold_mask(mask, request.beams_per_source)

    def attend(
        self,
        module: nn.Module,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        compiled_mask: torch.Tensor | None,
        *,
        additive: bool = False,
        **kwargs: Any,
    ) -> AttentionResult:
        return self.function()(module, query, key, value, compiled_mask, **kwargs)

    def function(self) -> Callable[..., AttentionResult]:
        """Looked up at each call, since another function may be registered under the name at any time."""
        function: Callable[..., AttentionResult] = ALL_ATTENTION_FUNCTIONS.get_interface(self.name, eager_attention)
        return function


class SdpaBackend(DenseBackend):
    """PyTorch's fused attention under a boolean mask; the default.

    When to use: for short sequences, and for masks that allow most pairs.
    """

    def __init__(self) -> None:
        super().__init__("sdpa")

    def function(self) -> Callable[..., AttentionResult]:
        return partial(attend_opened, super().function())


class EagerBackend(DenseBackend):
    """Plain matrix products; returns the attention weights, and computes additive scores.

    When to use: to look at attention weights. In bfloat16 on CPU, short rows train faster than under `sdpa`.
    """

    fallback = None
    additive_scores = True

    def __init__(self) -> None:
        super().__init__("eager")

    def attend(
        self,
        module: nn.Module,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        compiled_mask: torch.Tensor | None,
        *,
        additive: bool = False,
        **kwargs: Any,
    ) -> AttentionResult:
        if additive:
            return additive_attention(module, query, key, value, compiled_mask, **kwargs)
        return super().attend(module, query, key, value, compiled_mask, **kwargs)


def fold_mask(mask: torch.Tensor, beams_per_source: int) -> torch.Tensor:
    """A boolean mask (1 or B * G, 1 or H, T, S) to (1 or B, 1 or H, G * T, S), for the queries of G beams in a row."""
    rows, heads, length, keys = mask.shape
    if rows == 1:
        return mask.repeat(1, 1, beams_per_source, 1)
    sources = rows // beams_per_source
    by_source = mask.unflatten(0, (sources, beams_per_source)).transpose(1, 2)
    folded: torch.Tensor = by_source.reshape(sources, heads, beams_per_source * length, keys)
    return folded


def open_empty_rows(
    allowed: torch.Tensor | None, device: torch.device
) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    """A mask for a fused kernel of an accelerator, under which a query that may see no key sees all of them.

    cuDNN's kernels, which PyTorch prefers on Hopper GPUs, give such a query a mean of values that it may not see. Its
    gradients are NaN where the number of keys is 64 more than a multiple of 128
    (https://github.com/pytorch/pytorch/issues/196678). Both were seen with PyTorch 2.11 on an H100.

    Args:
        allowed: (1 or B, 1 or H, T, S) bool, or None where everything is allowed.

    Returns:
        The mask, and which queries may see any key (1 or B, 1 or H, T, 1) bool, by which the output is to be
        multiplied. None on CPU, where no kernel needs it, and where everything is allowed.
    """
    if allowed is None or device.type == "cpu":
        return allowed, None
    seeing = allowed.any(dim=-1, keepdim=True)
    return allowed | ~seeing, seeing


def attend_opened(
    function: Callable[..., AttentionResult],
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    **kwargs: Any,
) -> AttentionResult:
    """What a fused attention function computes, and zero for a query that may see no key, on every device.

    Args:
        function: as `sdpa_attention_forward` of Transformers, which gets the rest.
        query: (B, H, T, D). key, value: (B, H / groups, S, D). attention_mask: bool, broadcast to (B, H, T, S).

    Returns:
        (B, T, H, D), and the function's weights, if it has any.
    """
    opened, seeing = open_empty_rows(attention_mask, query.device)
    output, weights = function(module, query, key, value, opened, **kwargs)
    return output if seeing is None else output * seeing.transpose(1, 2), weights


def masked_softmax(scores: torch.Tensor, allowed: torch.Tensor | None) -> torch.Tensor:
    """Softmax over the allowed keys, (B, H, T, S) to the same; all zero for a query without an allowed key."""
    if allowed is None:
        return scores.softmax(dim=-1)
    # Half of the lowest number gives weights of exactly zero, and the sum with a score cannot overflow.
    lowest = torch.full((), torch.finfo(scores.dtype).min / 2, dtype=scores.dtype, device=scores.device)
    weights = (scores + torch.where(allowed, torch.zeros_like(lowest), lowest)).softmax(dim=-1)
    # A row without an allowed key is now the average of all keys. With scores of -inf it would be NaN.
    return weights * allowed.any(dim=-1, keepdim=True)


def _weigh(weights: torch.Tensor, value: torch.Tensor, dropout: float, training: bool) -> AttentionResult:
    output = nn.functional.dropout(weights, p=dropout, training=training).to(value.dtype) @ value
    return output.transpose(1, 2).contiguous(), weights


def _key_value_groups(module: nn.Module) -> int:
    """The number of query heads that share a key/value head."""
    groups: Any = module.num_key_value_groups
    return int(groups)


def eager_attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    **kwargs: Any,
) -> AttentionResult:
    """Scaled dot-product attention (Vaswani et al. 2017, https://arxiv.org/abs/1706.03762), and its weights.

    Args:
        query: (B, H, T, D). key, value: (B, H / groups, S, D). attention_mask: bool, broadcast to (B, H, T, S).
        scaling: of the dot product.
        dropout: of the weights, in training.

    Returns:
        (B, T, H, D) and (B, H, T, S).
    """
    key, value = (repeat_kv(states, _key_value_groups(module)) for states in (key, value))
    weights = masked_softmax(query * scaling @ key.transpose(2, 3), attention_mask)
    return _weigh(weights, value, dropout, module.training)


def additive_attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    **kwargs: Any,
) -> AttentionResult:
    """Additive attention (Bahdanau et al. 2015, https://arxiv.org/abs/1409.0473), and its weights.

    The score of a head is `v . tanh(q + k)`, with its row of the module's `score_vector` (H, D) as `v`. Shapes are as
    in `eager_attention`. It needs T x S x D of memory for each head.
    """
    key, value = (repeat_kv(states, _key_value_groups(module)) for states in (key, value))
    summed = torch.tanh(query[:, :, :, None] + key[:, :, None])
    scores = torch.einsum("bhtsd,hd->bhts", summed, module.score_vector.to(summed.dtype))
    weights = masked_softmax(scores, attention_mask)
    return _weigh(weights, value, dropout, module.training)
