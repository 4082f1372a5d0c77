"""Attention over blocks of queries, each with the keys that it may see: linear in the length where the mask is local.

FlexAttention does this in one kernel, but has no backward on CPU; here any inner attention is called once a block.
"""

from collections.abc import Callable

import torch
from torch import nn
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from ..masks.blockwise import BlockwiseMask
from ..masks.by_example import ExamplesMask
from .by_example import attention_by_example
from .dense import AttentionResult, eager_attention


def blockwise_attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: BlockwiseMask | ExamplesMask | torch.Tensor | None,
    inner: Callable[..., AttentionResult] | None = None,
    **kwargs,
) -> AttentionResult:
    """Scaled dot-product attention, or another, block by block.

    Args:
        query: (B, H, T, D). key, value: (B, H / groups, S, D).
        attention_mask: what `compile_blockwise` or `compile_by_example` returns; with a tensor or None the whole is
            one block.
        inner: attention inside a block, or among examples; the fastest by default.

    Returns:
        (B, T, H, D), and None instead of the weights.
    """
    if inner is None:
        # Measured: in half precision SDPA's kernel for CPU takes twice as long, forward and backward.
        half = query.device.type == "cpu" and query.dtype != torch.float32
        parted = isinstance(attention_mask, BlockwiseMask | ExamplesMask)
        inner = eager_attention if half and parted else sdpa_attention_forward
    if isinstance(attention_mask, ExamplesMask):
        return attention_by_example(module, query, key, value, attention_mask, inner, **kwargs)
    if not isinstance(attention_mask, BlockwiseMask):
        return inner(module, query, key, value, attention_mask, **kwargs)[0], None
    keys, values = (_Pieces(states, attention_mask.columns) for states in (key, value))
    outputs = [
        inner(module, queries, keys.of(block.keys), values.of(block.keys), block.allowed, **kwargs)[0]
        for queries, block in zip(query.split(attention_mask.rows, dim=2), attention_mask.blocks, strict=True)
    ]
    return torch.cat(outputs, dim=1), None


class _Pieces:
    """Keys or values (B, H, S, D), of which runs are taken.

    Slices would do, but the gradient of a slice is as long as the whole, and there are as many as blocks of queries:
    the cost would be quadratic. The gradient of a piece is as long as the piece.
    """

    def __init__(self, states: torch.Tensor, size: int):
        self.states = states
        self.size = size
        differentiable = torch.is_grad_enabled() and states.requires_grad
        self.pieces = states.split(size, dim=2) if differentiable else None

    def of(self, runs: tuple[tuple[int, int], ...]) -> torch.Tensor:
        parts = []
        for first, last in runs:
            if self.pieces is None:
                parts.append(self.states[:, :, first:last])
            else:
                parts.extend(self.pieces[first // self.size : -(-last // self.size)])
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=2)
