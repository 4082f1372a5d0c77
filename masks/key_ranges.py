"""Where the keys lie that a block of queries may see, without asking about every pair.

A rule may bound the positions that a query sees (`Mask.key_ranges`). In the order of segments and positions those are
ranges of keys, found by bisection, so the work grows with the length of the two sides and not with their product.
"""

from collections.abc import Iterable

import torch

from .expressions import EVERYWHERE, FAR, And, Mask, Not, Or, TokenPosition
from .layout import Layout

# A segment's positions get a range of codes of their own; positions and widths are below 2**31.
_SEGMENT = 2**40
_PADDING_CODE = 2**62
# And a segment's passages, whose numbers are below 2**31.
_PASSAGES = 2**31

_MOST_RANGES = 8
Range = tuple[int | torch.Tensor, int | torch.Tensor]


def ranges(mask: Mask, q: TokenPosition, keys: Layout) -> list[Range]:
    """Ranges of positions, first and last, outside of which `q` sees no key. Not every mask has such a bound."""
    if isinstance(mask, Or):
        return ranges_of_any(mask.parts, q, keys)
    if isinstance(mask, And):
        result: list[Range] = [EVERYWHERE]
        for part in mask.parts:
            found = ranges(part, q, keys)
            found = found if len(result) * len(found) <= _MOST_RANGES else [_hull(found)]
            result = [_overlap(a, b) for a in result for b in found]
        return result
    if isinstance(mask, Not):
        return _few(gaps(mask.part.key_ranges(q, keys))) if mask.part.reach_is_exact else [EVERYWHERE]
    return _few(mask.key_ranges(q, keys))


def ranges_of_any(parts: Iterable[Mask], q: TokenPosition, keys: Layout) -> list[Range]:
    """Ranges outside of which no part lets `q` see a key."""
    return _few([one for part in dict.fromkeys(parts) for one in ranges(part, q, keys)])


def gaps(found: list[Range]) -> list[Range]:
    """What lies before, between and after ranges that ascend."""
    firsts: list[int | torch.Tensor] = [-FAR, *(last + 1 for _, last in found)]
    lasts: list[int | torch.Tensor] = [*(first - 1 for first, _ in found), FAR]
    return list(zip(firsts, lasts, strict=True))


def _few(found: list[Range]) -> list[Range]:
    """At most `_MOST_RANGES` ranges: neighbours are joined, with what lies between them."""
    if any(one is EVERYWHERE for one in found):
        return [EVERYWHERE]
    size = -(-len(found) // _MOST_RANGES)
    return found if size <= 1 else [_hull(found[i : i + size]) for i in range(0, len(found), size)]


def _hull(found: list[Range]) -> Range:
    """From the first to the last position of all ranges; those that end before they begin are empty."""
    if any(one is EVERYWHERE for one in found):
        return EVERYWHERE
    first, last = torch.tensor(FAR), torch.tensor(-FAR)
    for low, high in found:
        low, high = torch.as_tensor(low), torch.as_tensor(high)
        empty = low > high
        first = torch.minimum(first, torch.where(empty, FAR, low))
        last = torch.maximum(last, torch.where(empty, -FAR, high))
    return first, last


def _overlap(a: Range, b: Range) -> Range:
    if a is EVERYWHERE or b is EVERYWHERE:
        return b if a is EVERYWHERE else a
    first, last = (tuple(map(torch.as_tensor, pair)) for pair in zip(a, b, strict=True))
    return torch.maximum(*first), torch.minimum(*last)


def example_among(keys: Layout, q: TokenPosition) -> torch.Tensor:
    """The number that the keys' side gives to the example of `q`, broadcasting to (B, H, T, 1)."""
    examples = keys.examples[:, :1]
    if keys.packed and keys.segments is not None:  # the first key need not be of the row's first example
        examples = examples - (keys.segments[:, :1] - 1).clamp(min=0)
    return examples[:, :, None, None] + (torch.as_tensor(q.segment) - 1).clamp(min=0)


def passage_ends(keys: Layout, segment: int | torch.Tensor, passage: int | torch.Tensor) -> Range:
    """First and last position of a passage of an example among the keys, both broadcasting to (B, H, T, 1)."""
    segments = torch.ones_like(keys.positions) if keys.segments is None else keys.segments
    positions, segments, passages = torch.broadcast_tensors(keys.positions, segments, keys.passages)
    codes = segments * _PASSAGES + passages
    order = positions.argsort(dim=-1, stable=True)
    order = order.gather(-1, codes.gather(-1, order).argsort(dim=-1, stable=True))
    codes, positions = codes.gather(-1, order), positions.gather(-1, order)
    wanted = torch.as_tensor(segment * _PASSAGES + passage)
    first, last = _bisect(codes, wanted, right=False), _bisect(codes, wanted, right=True) - 1
    positions = positions.expand(len(first), -1)
    ends = (positions.gather(-1, index.clamp(0, keys.length - 1).flatten(1)).view_as(index) for index in (first, last))
    # Where there is no such passage, the last index comes before the first.
    low, high = (torch.where(first <= last, end, none) for end, none in zip(ends, (FAR, -FAR), strict=True))
    return low[..., None], high[..., None]


def blocks_in_reach(mask: Mask, key: Layout, queries: TokenPosition, rows: int, columns: int) -> torch.Tensor:
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
    own = torch.as_tensor(queries.segment)
    segment = own * _SEGMENT
    query_blocks = -(-segment.shape[-2] // rows)
    result = torch.zeros(1, 1, query_blocks, len(key_blocks), dtype=torch.bool, device=key_blocks.device)
    for low, high in ranges(mask, queries, key):
        first = _bisect(highest, segment + _clamp(low, own), right=False)
        last = _bisect(lowest, segment + _clamp(high, own), right=True) - 1
        seen = (first <= last) & (own > 0).squeeze(-1)
        first = _reduce(torch.where(seen, first, key.length), rows, key.length).amin(-1, keepdim=True)
        last = _reduce(torch.where(seen, last, -1), rows, -1).amax(-1, keepdim=True)
        result = result | (first // columns <= key_blocks) & (key_blocks * columns <= last)
    return result


def _codes(key: Layout) -> tuple[torch.Tensor, torch.Tensor]:
    """The highest code up to each key and the lowest from it on, (B, S): both ascend, so they can be bisected."""
    segments = torch.ones_like(key.positions) if key.segments is None else key.segments
    codes = segments * _SEGMENT + key.positions
    highest = codes.masked_fill(segments == 0, -_PADDING_CODE).cummax(-1).values
    lowest = codes.masked_fill(segments == 0, _PADDING_CODE).flip(-1).cummin(-1).values.flip(-1)
    return highest, lowest


def _clamp(bound: int | torch.Tensor, segments: torch.Tensor) -> torch.Tensor:
    return torch.as_tensor(bound, device=segments.device).clamp(*EVERYWHERE)


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
    cut: torch.Tensor = padded.unflatten(-1, (blocks, rows))
    return cut
