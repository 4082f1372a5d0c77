"""Where the keys lie that a block of queries may see, without asking about every pair.

A rule may bound the positions that a query sees (`Mask.reach`). In the order of segments and positions those are
ranges of keys, found by bisection, so the work grows with the length of the two sides and not with their product.
"""

import torch

from .base import EVERYWHERE, And, Mask, Not, Or, Place
from .layout import Layout
from .selections import heads

# A segment's positions get a range of codes of their own; positions and widths are below 2**31 (see `Rule.at_least`).
_SEGMENT = 2**40
_NEVER = 2**62

_MOST_RANGES = 8
Range = tuple[int | torch.Tensor, int | torch.Tensor]


def ranges(mask: Mask, q: Place) -> list[Range]:
    """Ranges of positions, first and last, outside of which `q` sees no key. Not every mask has such a bound."""
    if isinstance(mask, Or | heads):
        parts = mask.parts if isinstance(mask, Or) else tuple(dict.fromkeys(mask.values()))
        found = [one for part in parts for one in ranges(part, q)]
        return found if len(found) <= _MOST_RANGES else [EVERYWHERE]
    if isinstance(mask, And):
        result = [EVERYWHERE]
        for part in mask.parts:
            both = [_overlap(a, b) for a in result for b in ranges(part, q)]
            result = both if len(both) <= _MOST_RANGES else result
        return result
    return [EVERYWHERE] if isinstance(mask, Not) else mask.reach(q)


def _overlap(a: Range, b: Range) -> Range:
    if a is EVERYWHERE or b is EVERYWHERE:
        return b if a is EVERYWHERE else a
    first, last = (tuple(map(torch.as_tensor, pair)) for pair in zip(a, b, strict=True))
    return torch.maximum(*first), torch.minimum(*last)


def blocks_in_reach(mask: Mask, key: Layout, queries: Place, rows: int, columns: int) -> torch.Tensor:
    """Which blocks of keys hold what a block of queries may see; it may name too many, never too few.

    Args:
        key: S places. Segments and positions in any order are right; ascending ones are bounded tightly.
        queries: T places as the mask is asked about them, broadcasting to (B, H, T, 1).
        rows, columns: numbers of queries and of keys in a block.

    Returns:
        (B or 1, H or 1, ceil(T / rows), ceil(S / columns)) bool.
    """
    highest, lowest = _codes(key)
    key_blocks = torch.arange(-(-key.length // columns), device=key.positions.device)
    segment = queries.segment * _SEGMENT
    found = []
    for low, high in ranges(mask, queries):
        first = _bisect(highest, segment + _clamp(low, queries), right=False)
        last = _bisect(lowest, segment + _clamp(high, queries), right=True) - 1
        seen = (first <= last) & (queries.segment > 0).squeeze(-1)
        first = _reduce(torch.where(seen, first, key.length), rows, key.length).amin(-1, keepdim=True)
        last = _reduce(torch.where(seen, last, -1), rows, -1).amax(-1, keepdim=True)
        found.append((first // columns <= key_blocks) & (key_blocks * columns <= last))
    result = found[0]
    for part in found[1:]:
        result = result | part
    return result


def _codes(key: Layout) -> tuple[torch.Tensor, torch.Tensor]:
    """The highest code up to each key and the lowest from it on, (B, S): both ascend, so they can be bisected."""
    segments = torch.ones_like(key.positions) if key.segments is None else key.segments
    codes = segments * _SEGMENT + key.positions
    highest = codes.masked_fill(segments == 0, -_NEVER).cummax(-1).values
    lowest = codes.masked_fill(segments == 0, _NEVER).flip(-1).cummin(-1).values.flip(-1)
    return highest, lowest


def _clamp(bound: int | torch.Tensor, queries: Place) -> torch.Tensor:
    return torch.as_tensor(bound, device=queries.segment.device).clamp(*EVERYWHERE)


def _bisect(codes: torch.Tensor, wanted: torch.Tensor, right: bool) -> torch.Tensor:
    """Where `wanted` (B, H, T, 1) stands in `codes` (B, S), each of which may have one row for all: (B, H, T)."""
    wanted = wanted.squeeze(-1)
    batch = max(len(codes), len(wanted))
    flat = wanted.expand(batch, -1, -1).flatten(1).contiguous()
    return torch.searchsorted(codes.expand(batch, -1).contiguous(), flat, right=right).view(batch, *wanted.shape[1:])


def _reduce(indices: torch.Tensor, rows: int, fill: int) -> torch.Tensor:
    """(B, H, T) to (B, H, blocks, rows)."""
    blocks = -(-indices.shape[-1] // rows)
    padded = torch.nn.functional.pad(indices, (0, blocks * rows - indices.shape[-1]), value=fill)
    return padded.unflatten(-1, (blocks, rows))
