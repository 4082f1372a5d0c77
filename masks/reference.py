"""The specification: masks and attention, one query and one key at a time, in plain Python. Slow and simple."""

import math

import torch

from .expressions import Mask, TokenPosition
from .layout import Layout


def naive_mask(
    mask: Mask, query: Layout, key: Layout, tensor_mask: torch.Tensor | None = None, heads: int = 1
) -> torch.Tensor:
    """Ask the mask about every pair of a query and a key.

    Args:
        mask: the rule.
        query, key: the layouts of T queries and S keys.
        tensor_mask: (B, S), (B, T, S) or (B, H, T, S) bool, and-ed with the rule.
        heads: H.

    Returns:
        (B, H, T, S) bool, True = allowed.
    """
    sides = (query.positions, key.positions, query.segments, key.segments, tensor_mask)
    rows = [len(rows) if isinstance(rows, torch.Tensor) else rows or 1 for rows in (query.rows, key.rows)]
    batch = max(*rows, *(side.shape[0] for side in sides if side is not None))
    result = torch.zeros(batch, heads, query.length, key.length, dtype=torch.bool)
    for b in range(batch):
        for h in range(heads):
            for i in range(query.length):
                for j in range(key.length):
                    q, k = _position(query, b, i, h), _position(key, b, j)
                    allowed = q.segment == k.segment and q.segment > 0 and bool(mask.allows(q, k))
                    result[b, h, i, j] = allowed and (tensor_mask is None or _look_up(tensor_mask, b, h, i, j))
    return result


def depends_on_head(mask: Mask) -> bool:
    """Whether what the mask allows may differ between heads: whether it reads the head of a query."""
    query = _RecordingHead()
    mask.allows(query, TokenPosition(0))
    return query.head_was_read


class _RecordingHead(TokenPosition):
    """A position that records whether a mask reads its head."""

    position = 0
    head_was_read = False

    def __init__(self) -> None:
        # Not by the base's constructor: that class is frozen, and would set `head`.
        pass

    @property
    def head(self) -> int:
        object.__setattr__(self, "head_was_read", True)
        return 0


def _position(side: Layout, row: int, index: int, head: int = 0) -> TokenPosition:
    def number_in(tensor: torch.Tensor) -> int:
        return int(tensor[row if tensor.shape[0] > 1 else 0, index])

    segment = 1 if side.segments is None else number_in(side.segments)
    passage = 0 if side.passages is None else number_in(side.passages)
    return TokenPosition(number_in(side.positions), segment, passage, _example(side, row, segment), head)


def _example(side: Layout, row: int, segment: int) -> int:
    """The number of the example in the batch, after all examples of earlier rows and earlier ones of its row."""
    rows: list[int] = side.rows.tolist() if isinstance(side.rows, torch.Tensor) else list(range(row + 1))
    if not side.packed or side.segments is None:
        return rows[row]
    segments = side.segments.tolist() if len(side.segments) > 1 else side.segments.tolist() * (row + 1)
    earlier: dict[int, int] = {rows[r]: max(max(segments[r]), 1) for r in range(row) if rows[r] != rows[row]}
    return sum(earlier.values()) + max(segment - 1, 0)


def _look_up(tensor_mask: torch.Tensor, b: int, h: int, i: int, j: int) -> bool:
    b = b if tensor_mask.shape[0] > 1 else 0
    h = h if tensor_mask.ndim == 4 and tensor_mask.shape[1] > 1 else 0
    return bool(tensor_mask[{2: (b, j), 3: (b, i, j), 4: (b, h, i, j)}[tensor_mask.ndim]])


def naive_attention(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor, scaling: float
) -> torch.Tensor:
    """Scaled dot-product attention of each query over the keys that it may see; zero if it may see none.

    Args:
        q: (B, H, T, D). k, v: (B, H, S, D). mask: (B, H, T, S) bool.
        scaling: of the dot product.

    Returns:
        (B, H, T, D)
    """
    output = torch.zeros(*q.shape[:-1], v.shape[-1], dtype=v.dtype)
    for b, h, i in torch.cartesian_prod(*(torch.arange(n) for n in q.shape[:3])).tolist():
        keys = [j for j in range(k.shape[2]) if mask[b, h, i, j]]
        if not keys:
            continue
        scores = [float(q[b, h, i] @ k[b, h, j]) * scaling for j in keys]
        highest = max(scores)
        weights = [math.exp(score - highest) for score in scores]
        output[b, h, i] = sum(w / sum(weights) * v[b, h, j] for w, j in zip(weights, keys, strict=True))
    return output
