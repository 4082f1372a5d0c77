"""A mask in blocks: for each block of queries the keys that it may see, and the rule asked about those pairs only.

What attention costs then grows with what the mask allows: linear in the length for `window(64)`, forward and backward,
and no (T, S) mask is ever made. `modeling/blockwise.py` computes attention with it.
"""

from dataclasses import dataclass

import torch

from .base import Mask
from .compile import allowed_pairs, check, places
from .layout import Layout
from .reach import blocks_in_reach

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
    """The blocks of a mask, which cover all T queries in order, and the number of queries and keys in a block."""

    blocks: tuple[Block, ...]
    rows: int = ROWS
    columns: int = COLUMNS


def compile_blockwise(
    mask: Mask,
    query: Layout,
    key: Layout,
    given: torch.Tensor | None = None,
    heads: int = 1,
    *,
    rows: int = ROWS,
    columns: int = COLUMNS,
) -> BlockwiseMask:
    """Compile to blocks. Where they lie is decided on the host, so a GPU is waited for once.

    Args:
        mask, query, key, given, heads: as in `compile_mask`.
        rows, columns: numbers of queries and of keys in a block.

    Raises:
        MaskError: as in `compile_mask`.
    """
    check(mask, query, key, heads)
    touched = _touched(mask, query, key, heads, rows, columns).tolist()
    device = query.positions.device
    blocks = []
    for index, numbers in enumerate(touched):
        queries = (index * rows, min((index + 1) * rows, query.length))
        keys = _runs(numbers, columns, key.length)
        i, j = torch.arange(*queries, device=device), torch.cat([torch.arange(*run, device=device) for run in keys])
        part = None if given is None else given.index_select(-1, j)
        if part is not None and part.shape[-2] > 1:
            part = part.index_select(-2, i)
        blocks.append(Block(queries, keys, allowed_pairs(mask, query.pick(i), key.pick(j), part, heads)))
    return BlockwiseMask(tuple(blocks), rows, columns)


def pairs_in_blocks(mask: Mask, query: Layout, key: Layout, heads: int = 1) -> int:
    """How many pairs of a query and a key are looked at in each row of the batch, with blocks of the usual size."""
    return int(_touched(mask, query, key, heads, ROWS, COLUMNS).sum()) * ROWS * COLUMNS


def _touched(mask: Mask, query: Layout, key: Layout, heads: int, rows: int, columns: int) -> torch.Tensor:
    """(blocks of queries, blocks of keys) bool, whether any row of the batch has something to see there."""
    return blocks_in_reach(mask, key, places(query, -1, heads), rows, columns).flatten(0, 1).any(0)


def _runs(numbers: list[bool], size: int, length: int) -> tuple[tuple[int, int], ...]:
    """Runs of neighbouring blocks as index ranges; at least one block, so that every query has keys to ignore."""
    runs: list[tuple[int, int]] = []
    for index in [index for index, wanted in enumerate(numbers) if wanted] or [0]:
        first, last = index * size, min((index + 1) * size, length)
        if runs and runs[-1][1] == first:
            first = runs.pop()[0]
        runs.append((first, last))
    return tuple(runs)
