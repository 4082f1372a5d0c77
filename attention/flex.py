"""A mask for FlexAttention: the blocks that need looking at, and the rule to ask inside them."""

from collections.abc import Callable

import torch
from torch.nn.attention.flex_attention import BlockMask

from ..masks.expressions import Mask, TokenPosition
from ..masks.key_ranges import blocks_in_reach
from ..masks.layout import Layout
from ..masks.materialize import check, positions_of

SIZE = 128
"""Queries, and keys, in a block: FlexAttention's default."""


def compile_flex(
    mask: Mask, query: Layout, key: Layout, given: torch.Tensor | None = None, heads: int = 1
) -> BlockMask:
    """Compile to a `BlockMask`, not asking about every pair as `create_block_mask` does. Nothing leaves the device.

    Args:
        mask, query, key, given, heads: as in `compile_mask`.

    Raises:
        MaskError: as in `compile_mask`.
    """
    check(mask, query, key, heads)
    touched = blocks_in_reach(mask, key, positions_of(query, -1, heads), SIZE, SIZE)
    return BlockMask.from_kv_blocks(
        touched.sum(-1, dtype=torch.int32),
        touched.int().argsort(dim=-1, descending=True, stable=True).int(),
        BLOCK_SIZE=SIZE,
        mask_mod=mask_mod(mask, query, key, given),
        seq_lengths=(query.length, key.length),
    )


def mask_mod(mask: Mask, query: Layout, key: Layout, given: torch.Tensor | None) -> Callable[..., torch.Tensor]:
    """The mask as FlexAttention asks it: by row of the batch, head, query and key."""
    examples = query.examples, key.examples
    in_segments = query.segments is not None or key.segments is not None

    def allowed(b: torch.Tensor, h: torch.Tensor, i: torch.Tensor, j: torch.Tensor) -> torch.Tensor:
        q, k = _place(query, examples[0], b, h, i), _place(key, examples[1], b, h, j)
        result = (j >= 0) & mask.allows(q, k)
        if in_segments:
            result = result & (q.segment == k.segment) & (k.segment > 0)
        return result if given is None else result & _at(given, b, h, i, j)

    return allowed


def _place(side: Layout, examples: torch.Tensor, b: torch.Tensor, h: torch.Tensor, i: torch.Tensor) -> TokenPosition:
    segment = 1 if side.segments is None else _at(side.segments, b, i)
    passage = 0 if side.passages is None else _at(side.passages, b, i)
    return TokenPosition(_at(side.positions, b, i), segment, passage, _at(examples, b, i), h)


def _at(tensor: torch.Tensor, *indices: torch.Tensor) -> torch.Tensor:
    """The entry at these indices; a dimension of 1 holds for all."""
    return tensor[tuple(index if size > 1 else 0 for index, size in zip(indices, tensor.shape, strict=True))]
