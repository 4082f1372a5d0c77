"""FlexAttention (https://pytorch.org/blog/flexattention/): a mask as needed blocks and a function of pairs."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn.attention.flex_attention import BlockMask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from ..masks.expressions import Mask, TokenPosition
from ..masks.fast_paths import is_observed
from ..masks.key_ranges import blocks_in_reach
from ..masks.layout import Layout
from ..masks.materialize import check, positions_of
from .base import AttentionBackend, AttentionResult, MaskRequest
from .dense import eager_attention

SIZE = 128
"""The queries and the keys of a block: FlexAttention's default."""
NARROWEST = 16
"""The width of a head that its kernels need on an accelerator."""


class FlexBackend(AttentionBackend):
    """PyTorch's FlexAttention, compiled: one kernel over blocks of 128 queries and 128 keys that the mask needs.

    When to use: for long sequences under local masks, on a GPU. What its kernel cannot do in blocks goes to
    `blockwise`, and a single query goes to `sdpa`.
    """

    name = "flex_attention"
    fallback = "blockwise"
    mask_types = (BlockMask,)
    traceable = True

    def supports(self, request: MaskRequest) -> str | None:
        if _is_recorded():
            return "its kernel runs under torch.compile, but not under other tracers"
        if _needs_missing_gradient(request.device):
            return "FlexAttention has no gradient on CPU"
        if _is_too_narrow(request.head_dim, request.device):
            return f"its kernels need heads of at least {NARROWEST} numbers, and these have {request.head_dim}"
        reason = super().supports(request)
        if reason is None and request.query.length == 1:
            reason = "blocks save nothing for a single query"
        if reason is None and _uses_lookup_table(request.rule):
            reason = "it has a lookup table, which FlexAttention's kernels cannot read"
        return reason

    def fallback_for(self, request: MaskRequest) -> str:
        in_blocks = _needs_missing_gradient(request.device) or (
            super().supports(request) is None and request.query.length > 1
        )
        return "blockwise" if in_blocks else "sdpa"

    def compile(self, request: MaskRequest) -> BlockMask:
        return compile_flex(request.rule, request.query, request.key, request.tensor_mask, request.heads)

    def takes(self, query: torch.Tensor, compiled_mask: object, additive: bool) -> bool:
        if compiled_mask is None:
            # The queries of a step of beam search are fewer than a block has.
            short_query = query.shape[2] < SIZE
            is_narrow = _is_too_narrow(query.shape[-1], query.device)
            if short_query or is_narrow or _needs_missing_gradient(query.device) or _is_recorded():
                return False
        return super().takes(query, compiled_mask, additive)

    def attend(
        self,
        module: nn.Module,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        compiled_mask: BlockMask | None,
        *,
        additive: bool = False,
        **kwargs: Any,
    ) -> AttentionResult:
        function = ALL_ATTENTION_FUNCTIONS.get_interface(self.name, eager_attention)
        result: AttentionResult = function(module, query, key, value, compiled_mask, **kwargs)
        return result


def _is_recorded() -> bool:
    """Whether a tracer other than torch.compile records what is computed."""
    return is_observed() and not torch.compiler.is_compiling()


def _needs_missing_gradient(device: torch.device) -> bool:
    """Whether gradients are enabled on CPU, where FlexAttention has none."""
    return device.type == "cpu" and torch.is_grad_enabled()


def _is_too_narrow(head_dim: int | None, device: torch.device) -> bool:
    return device.type != "cpu" and head_dim is not None and head_dim < NARROWEST


def _uses_lookup_table(rule: Mask) -> bool:
    return any(part.uses_lookup_table for part in rule.rules())


def compile_flex(
    mask: Mask, query: Layout, key: Layout, tensor_mask: torch.Tensor | None = None, heads: int = 1
) -> BlockMask:
    """Compile to a `BlockMask` without asking about every pair, as `create_block_mask` does, or waiting for a GPU.

    Args:
        mask, query, key, tensor_mask, heads: as in `compile_mask`.

    Raises:
        MaskError: as in `compile_mask`.
    """
    check(mask, query, key, heads)
    is_needed = blocks_in_reach(mask, key, positions_of(query, -1, heads), SIZE, SIZE)
    return BlockMask.from_kv_blocks(
        is_needed.sum(-1, dtype=torch.int32),
        is_needed.int().argsort(dim=-1, descending=True, stable=True).int(),
        BLOCK_SIZE=SIZE,
        mask_mod=mask_mod(mask, query, key, tensor_mask),
        seq_lengths=(query.length, key.length),
    )


def mask_mod(mask: Mask, query: Layout, key: Layout, tensor_mask: torch.Tensor | None) -> Callable[..., torch.Tensor]:
    """The mask as a function of a row of the batch, a head, and the indices of a query and a key."""
    examples = query.examples, key.examples
    in_segments = query.segments is not None or key.segments is not None

    def allowed(b: torch.Tensor, h: torch.Tensor, i: torch.Tensor, j: torch.Tensor) -> torch.Tensor:
        q, k = _position_at(query, examples[0], b, h, i), _position_at(key, examples[1], b, h, j)
        result = (j >= 0) & mask.allows(q, k)
        if in_segments:
            result = result & (q.segment == k.segment) & (k.segment > 0)
        return result if tensor_mask is None else result & _at(tensor_mask, b, h, i, j)

    return allowed


def _position_at(
    side: Layout, examples: torch.Tensor, b: torch.Tensor, h: torch.Tensor, i: torch.Tensor
) -> TokenPosition:
    segment = 1 if side.segments is None else _at(side.segments, b, i)
    passage = 0 if side.passages is None else _at(side.passages, b, i)
    return TokenPosition(_at(side.positions, b, i), segment, passage, _at(examples, b, i), h)


def _at(tensor: torch.Tensor, *indices: torch.Tensor) -> torch.Tensor:
    """The number at these indices; along a dimension of size 1 it is the same for all."""
    # All of them tensors: beside a number, PyTorch 2.9 would ask for the values of the others.
    sides = zip(indices, tensor.shape, strict=True)
    return tensor[tuple(index if size > 1 else torch.zeros_like(index) for index, size in sides)]
