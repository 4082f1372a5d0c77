"""A mask in blocks: for each block of queries the keys that it may see, and the rule asked about those pairs only.

What attention costs then grows with what the mask allows: linear in the length for `window(64)`, forward and backward,
and no (T, S) mask is ever made. FlexAttention does this in one kernel, but has no backward on CPU; here any inner
attention is called once a block.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from ..masks.expressions import Mask
from ..masks.key_ranges import blocks_in_reach
from ..masks.layout import Layout
from ..masks.materialize import check, materialize_unchecked, positions_of
from .base import AttentionBackend, AttentionResult, MaskRequest
from .dense import additive_attention, eager_attention
from .packed import ExamplesMask, attention_by_example, compile_by_example

ROWS, COLUMNS = 128, 64
"""Queries in a block, and keys: wide enough for the matrix products, narrow enough for windows of 64."""


@dataclass(frozen=True)
class Block:
    """Some queries, in a row, and the keys that they may see.

    Attributes:
        queries: first query, and one past the last.
        keys: first and one past the last of each run of keys.
        allowed: (1 or B, 1 or H, queries or 1, keys) bool, the runs side by side, or None where all is allowed.
    """

    queries: tuple[int, int]
    keys: tuple[tuple[int, int], ...]
    allowed: torch.Tensor | None


@dataclass(frozen=True)
class BlockwiseMask:
    """The blocks of a mask, which cover all T queries in order."""

    blocks: tuple[Block, ...]


class BlockwiseBackend(AttentionBackend):
    """Blocks, or packed rows by examples, whichever looks at fewer pairs.

    Additive scores are computed inside a block as well as dot products are. None and tensors have no blocks.
    """

    name = "blockwise"
    mask_types = (BlockwiseMask, ExamplesMask)
    additive_scores = True

    def compile(self, request: MaskRequest) -> BlockwiseMask | ExamplesMask:
        sides = (request.rule, request.query, request.key, request.tensor_mask, request.heads)
        if request.query.packed and request.query.segments is not None and request.key.segments is not None:
            limit = pairs_in_blocks(request.rule, request.query, request.key, request.heads) * request.batch - 1
            by_example = compile_by_example(*sides, request.batch, limit)
            if by_example is not None:
                return by_example
        return compile_blockwise(*sides)

    def takes(self, query: torch.Tensor, compiled_mask: object, additive: bool) -> bool:
        return isinstance(compiled_mask, self.mask_types)

    def attend(
        self,
        module: nn.Module,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        compiled_mask: BlockwiseMask | ExamplesMask,
        *,
        additive: bool = False,
        **kwargs: Any,
    ) -> AttentionResult:
        inner = additive_attention if additive else None
        return blockwise_attention(module, query, key, value, compiled_mask, inner, **kwargs)


def compile_blockwise(
    mask: Mask,
    query: Layout,
    key: Layout,
    tensor_mask: torch.Tensor | None = None,
    heads: int = 1,
) -> BlockwiseMask:
    """Compile to blocks. Where they lie is decided on the host, so a GPU is waited for once.

    Args:
        mask, query, key, tensor_mask, heads: as in `compile_mask`.

    Raises:
        MaskError: as in `compile_mask`.
    """
    check(mask, query, key, heads)
    touched = _touched(mask, query, key, heads).tolist()
    device = query.positions.device
    blocks = []
    for index, numbers in enumerate(touched):
        queries = (index * ROWS, min((index + 1) * ROWS, query.length))
        keys = _runs(numbers, COLUMNS, key.length)
        i, j = torch.arange(*queries, device=device), torch.cat([torch.arange(*run, device=device) for run in keys])
        part = None if tensor_mask is None else tensor_mask.index_select(-1, j)
        if part is not None and part.shape[-2] > 1:
            part = part.index_select(-2, i)
        blocks.append(Block(queries, keys, materialize_unchecked(mask, query.pick(i), key.pick(j), part, heads)))
    return BlockwiseMask(tuple(blocks))


def pairs_in_blocks(mask: Mask, query: Layout, key: Layout, heads: int = 1) -> int:
    """How many pairs of a query and a key are looked at in each row of the batch."""
    return int(_touched(mask, query, key, heads).sum()) * ROWS * COLUMNS


def _touched(mask: Mask, query: Layout, key: Layout, heads: int) -> torch.Tensor:
    """(blocks of queries, blocks of keys) bool, whether any row of the batch has something to see there."""
    return blocks_in_reach(mask, key, positions_of(query, -1, heads), ROWS, COLUMNS).flatten(0, 1).any(0)


def _runs(numbers: list[bool], size: int, length: int) -> tuple[tuple[int, int], ...]:
    """Runs of neighbouring blocks as index ranges; at least one block, so that every query has keys to ignore."""
    runs: list[tuple[int, int]] = []
    for index in [index for index, wanted in enumerate(numbers) if wanted] or [0]:
        first, last = index * size, min((index + 1) * size, length)
        if runs and runs[-1][1] == first:
            first = runs.pop()[0]
        runs.append((first, last))
    return tuple(runs)


def blockwise_attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: BlockwiseMask | ExamplesMask,
    inner: Callable[..., AttentionResult] | None = None,
    **kwargs: Any,
) -> AttentionResult:
    """Scaled dot-product attention, or another, block by block.

    Args:
        query: (B, H, T, D). key, value: (B, H / groups, S, D).
        attention_mask: what `compile_blockwise` or `compile_by_example` returns.
        inner: attention inside a block, or among examples; the fastest by default.

    Returns:
        (B, T, H, D), and None instead of the weights.
    """
    if inner is None:
        # Measured: in half precision SDPA's kernel for CPU takes twice as long, forward and backward.
        half = query.device.type == "cpu" and query.dtype != torch.float32
        inner = eager_attention if half else sdpa_attention_forward
    if isinstance(attention_mask, ExamplesMask):
        return attention_by_example(module, query, key, value, attention_mask, inner, **kwargs)
    keys, values = (_Pieces(states, COLUMNS) for states in (key, value))
    outputs = [
        inner(module, queries, keys.of(block.keys), values.of(block.keys), block.allowed, **kwargs)[0]
        for queries, block in zip(query.split(ROWS, dim=2), attention_mask.blocks, strict=True)
    ]
    return torch.cat(outputs, dim=1), None


class _Pieces:
    """Keys or values (B, H, S, D), of which runs are taken.

    Slices would do, but the gradient of a slice is as long as the whole, and every block of queries has one:
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
