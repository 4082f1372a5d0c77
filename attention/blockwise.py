"""Attention in blocks: for each block of queries, only over the blocks of keys that it may see.

Time and memory then grow with what the mask allows, linearly in the length for `window(64)`, forward and backward, and
no (T, S) mask is made. FlexAttention does this in one kernel, but has no backward on CPU. Here another attention
function is called for each block.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from ..masks.expressions import Mask
from ..masks.key_ranges import blocks_in_reach
from ..masks.layout import Layout
from ..masks.materialize import check, materialize_unchecked, positions_of
from .base import AttentionBackend, AttentionResult, MaskRequest
from .dense import additive_attention, attend_opened, eager_attention
from .packed import ExamplesMask, attention_by_example, compile_by_example

ROWS, COLUMNS = 128, 64
"""The queries and the keys of a block: enough for fast matrix products, and few enough for windows of 64."""


@dataclass(frozen=True)
class Block:
    """Contiguous queries, and runs of contiguous keys that they may see.

    Attributes:
        queries: the first query, and one past the last.
        keys: for each run the first key, and one past the last.
        allowed: (1 or B, 1 or H, queries or 1, keys) bool, the runs side by side, or None if all pairs are allowed.
    """

    queries: tuple[int, int]
    keys: tuple[tuple[int, int], ...]
    allowed: torch.Tensor | None


@dataclass(frozen=True)
class BlockwiseMask:
    """A mask in blocks, which have all T queries in order."""

    blocks: tuple[Block, ...]


class BlockwiseBackend(AttentionBackend):
    """Blocks of 128 queries, each over the blocks of 64 keys that it may see; packed rows example by example.

    When to use: for packed rows, and for long sequences under local masks, on CPU and wherever FlexAttention does not
    run; in training and inference. It computes additive scores too.
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
    """Compile to blocks. The host decides which blocks there are, so it waits for a GPU once.

    Args:
        mask, query, key, tensor_mask, heads: as in `compile_mask`.

    Raises:
        MaskError: as in `compile_mask`.
    """
    check(mask, query, key, heads)
    needed_blocks = _needed_blocks(mask, query, key, heads).tolist()
    device = query.positions.device
    blocks = []
    for index, is_needed in enumerate(needed_blocks):
        queries = (index * ROWS, min((index + 1) * ROWS, query.length))
        keys = _runs(is_needed, COLUMNS, key.length)
        i, j = torch.arange(*queries, device=device), torch.cat([torch.arange(*run, device=device) for run in keys])
        part = None if tensor_mask is None else tensor_mask.index_select(-1, j)
        if part is not None and part.shape[-2] > 1:
            part = part.index_select(-2, i)
        blocks.append(Block(queries, keys, materialize_unchecked(mask, query.pick(i), key.pick(j), part, heads)))
    return BlockwiseMask(tuple(blocks))


def pairs_in_blocks(mask: Mask, query: Layout, key: Layout, heads: int = 1) -> int:
    """The number of pairs of a query and a key that are computed in each row of the batch."""
    return int(_needed_blocks(mask, query, key, heads).sum()) * ROWS * COLUMNS


def _needed_blocks(mask: Mask, query: Layout, key: Layout, heads: int) -> torch.Tensor:
    """(blocks of queries, blocks of keys) bool: whether a query may see a key there, in any row of the batch."""
    return blocks_in_reach(mask, key, positions_of(query, -1, heads), ROWS, COLUMNS).flatten(0, 1).any(0)


def _runs(is_needed: list[bool], size: int, length: int) -> tuple[tuple[int, int], ...]:
    """Runs of neighbouring blocks as ranges of keys; at least one block, since attention needs a key."""
    runs: list[tuple[int, int]] = []
    for index in [index for index, needed in enumerate(is_needed) if needed] or [0]:
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
    """Attention block by block, or example by example.

    Args:
        query: (B, H, T, D). key, value: (B, H / groups, S, D).
        attention_mask: from `compile_blockwise` or `compile_by_example`.
        inner: the attention function for a block; by default the faster one for scaled dot products.

    Returns:
        (B, T, H, D), and None instead of the weights.
    """
    if inner is None:
        # Measured: in half precision on CPU, SDPA takes twice as long as matrix products, forward and backward.
        half = query.device.type == "cpu" and query.dtype != torch.float32
        inner = eager_attention if half else partial(attend_opened, sdpa_attention_forward)
    if isinstance(attention_mask, ExamplesMask):
        return attention_by_example(module, query, key, value, attention_mask, inner, **kwargs)
    keys, values = (_Pieces(states, COLUMNS) for states in (key, value))
    outputs = [
        inner(module, queries, keys.of(block.keys), values.of(block.keys), block.allowed, **kwargs)[0]
        for queries, block in zip(query.split(ROWS, dim=2), attention_mask.blocks, strict=True)
    ]
    return torch.cat(outputs, dim=1), None


class _Pieces:
    """Keys or values (B, H, S, D), split into pieces, for gradients in linear time.

    The gradient of a slice has the size of the whole tensor, and each block of queries would take slices. The gradient
    of a piece has the size of the piece.
    """

    def __init__(self, states: torch.Tensor, size: int):
        self.states = states
        self.size = size
        differentiable = torch.is_grad_enabled() and states.requires_grad
        self.pieces = states.split(size, dim=2) if differentiable else None

    def of(self, runs: tuple[tuple[int, int], ...]) -> torch.Tensor:
        """The keys or values of some runs, side by side."""
        parts = []
        for first, last in runs:
            if self.pieces is None:
                parts.append(self.states[:, :, first:last])
            else:
                parts.extend(self.pieces[first // self.size : -(-last // self.size)])
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=2)
