"""From a mask to what the attention backend wants, once per forward pass.

Eager and SDPA take the same form: None where everything is allowed, else a boolean tensor that broadcasts to
(B, H, T, S). Both give zero to a query with nothing to see.
"""

import torch

from .base import Mask, Place
from .layout import Layout
from .rules import full


def compile_mask(mask: Mask, query: Layout, key: Layout, given: torch.Tensor | None = None) -> torch.Tensor | None:
    """Compile to a boolean tensor, or to None if nothing is forbidden.

    Padding and segments are applied after the rule, so `~` never opens them.

    Args:
        mask: the rule, asked about positions inside segments.
        query: T places.
        key: S places.
        given: (B, 1 or H, T or 1, S) bool, and-ed with the rule.

    Returns:
        (1 or B, 1 or H, T, S) bool, True = allowed, or None.
    """
    parts = []
    if mask != full():
        parts.append(mask.allows(_places(query, -1), _places(key, -2)))
    if query.segments is not None or key.segments is not None:
        q, k = _places(query, -1).segment, _places(key, -2).segment
        parts.append((q == k) & (k > 0))
    if given is not None:
        parts.append(given)
    if not parts:
        return None
    allowed = parts[0]
    for part in parts[1:]:
        allowed = allowed & part
    return allowed.expand(-1, -1, query.length, key.length)


def _places(side: Layout, dim: int) -> Place:
    """Broadcast a side over (B, H, T, S): queries along T (`dim=-1` is added), keys along S (`dim=-2` is added)."""
    segments = torch.ones_like(side.positions) if side.segments is None else side.segments
    return Place(side.positions[:, None].unsqueeze(dim), segments[:, None].unsqueeze(dim))
