"""Which keys a block of queries may see, found without asking about every pair.

A rule may give ranges of the positions that a query sees (`Mask.key_ranges`). If keys are sorted by segment and
position, these are ranges of keys, which bisection finds. So the work grows with the lengths of the two sides, and not
with their product.
"""

from collections.abc import Iterable

import torch

from .expressions import EVERYWHERE, FAR, And, Mask, Not, Or, TokenPosition
from .layout import Layout

# A code is `segment * _SEGMENT + position`: positions and widths are below 2**31, so that segments do not overlap.
_SEGMENT = 2**40
_PADDING_CODE = 2**62
# Likewise `segment * _PASSAGES + passage`: numbers of passages are below 2**31.
_PASSAGES = 2**31

_MOST_RANGES = 8

Range = tuple[int | torch.Tensor, int | torch.Tensor]
"""The first and the last position, integers or tensors that broadcast to (B, H, T, 1); empty if first > last."""


def ranges(mask: Mask, q: TokenPosition, keys: Layout) -> list[Range]:
    """Ranges of positions outside of which `q` sees no key; everything where a rule gives none."""
    if isinstance(mask, Or):
        return ranges_of_any(mask.parts, q, keys)
    if isinstance(mask, And):
        result: list[Range] = [EVERYWHERE]
        for part in mask.parts:
            of_part = ranges(part, q, keys)
            of_part = of_part if len(result) * len(of_part) <= _MOST_RANGES else [_hull(of_part)]
            result = [_intersection(a, b) for a in result for b in of_part]
        return result
    if isinstance(mask, Not):
        return _limited(gaps(mask.part.key_ranges(q, keys))) if mask.part.reach_is_exact else [EVERYWHERE]
    return _limited(mask.key_ranges(q, keys))


def ranges_of_any(parts: Iterable[Mask], q: TokenPosition, keys: Layout) -> list[Range]:
    """Ranges outside of which no part lets `q` see a key."""
    return _limited([each for part in dict.fromkeys(parts) for each in ranges(part, q, keys)])


def gaps(ascending: list[Range]) -> list[Range]:
    """The ranges before, between and after ascending ranges."""
    firsts: list[int | torch.Tensor] = [-FAR, *(last + 1 for _, last in ascending)]
    lasts: list[int | torch.Tensor] = [*(first - 1 for first, _ in ascending), FAR]
    return list(zip(firsts, lasts, strict=True))


def _limited(many: list[Range]) -> list[Range]:
    """At most `_MOST_RANGES` ranges: neighbouring ranges are joined, together with what is between them."""
    if any(each is EVERYWHERE for each in many):
        return [EVERYWHERE]
    size = -(-len(many) // _MOST_RANGES)
    return many if size <= 1 else [_hull(many[i : i + size]) for i in range(0, len(many), size)]


def _hull(parts: list[Range]) -> Range:
    """From the first to the last position of all ranges that are not empty."""
    if any(part is EVERYWHERE for part in parts):
        return EVERYWHERE
    first, last = torch.tensor(FAR), torch.tensor(-FAR)
    for low, high in parts:
        low, high = torch.as_tensor(low), torch.as_tensor(high)
        empty = low > high
        first = torch.minimum(first, torch.where(empty, FAR, low))
        last = torch.maximum(last, torch.where(empty, -FAR, high))
    return first, last


def _intersection(a: Range, b: Range) -> Range:
    if a is EVERYWHERE or b is EVERYWHERE:
        return b if a is EVERYWHERE else a
    first, last = (tuple(map(torch.as_tensor, pair)) for pair in zip(a, b, strict=True))
    return torch.maximum(*first), torch.minimum(*last)


def example_among(keys: Layout, q: TokenPosition) -> torch.Tensor:
    """The number of the example of `q` in the batch, as the keys' layout counts it, broadcasting to (B, H, T, 1)."""
    examples = keys.examples[:, :1]
    if keys.packed and keys.segments is not None:  # the first key may be of a later example of its row
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
    code = torch.as_tensor(segment * _PASSAGES + passage)
    first, last = _bisect(codes, code, right=False), _bisect(codes, code, right=True) - 1
    positions = positions.expand(len(first), -1)
    ends = (positions.gather(-1, index.clamp(0, keys.length - 1).flatten(1)).view_as(index) for index in (first, last))
    # If there is no such passage, the last index is below the first; then the range is empty.
    low, high = (torch.where(first <= last, end, empty) for end, empty in zip(ends, (FAR, -FAR), strict=True))
    return low[..., None], high[..., None]


def blocks_in_reach(mask: Mask, key: Layout, queries: TokenPosition, rows: int, columns: int) -> torch.Tensor:
    """Which blocks of keys have keys that a block of queries may see: these blocks, and perhaps others.

    Args:
        key: the layout of S keys. Segments and positions may have any order; only if they ascend, the result is close.
        queries: T positions as the mask is asked about them, broadcasting to (B, H, T, 1).
        rows, columns: the number of queries and of keys in a block.

    Returns:
        (B or 1, H or 1, ceil(T / rows), ceil(S / columns)) bool.
    """
    highest, lowest = _codes(key)
    key_blocks = torch.arange(-(-key.length // columns), device=key.positions.device)
    segments = torch.as_tensor(queries.segment)
    segment_codes = segments * _SEGMENT
    query_blocks = -(-segments.shape[-2] // rows)
    result = torch.zeros(1, 1, query_blocks, len(key_blocks), dtype=torch.bool, device=key_blocks.device)
    for low, high in ranges(mask, queries, key):
        first = _bisect(highest, segment_codes + _clamp(low, segments), right=False)
        last = _bisect(lowest, segment_codes + _clamp(high, segments), right=True) - 1
        has_keys = (first <= last) & (segments > 0).squeeze(-1)
        first = _by_block(torch.where(has_keys, first, key.length), rows, key.length).amin(-1, keepdim=True)
        last = _by_block(torch.where(has_keys, last, -1), rows, -1).amax(-1, keepdim=True)
        result = result | (first // columns <= key_blocks) & (key_blocks * columns <= last)
    return result


def _codes(key: Layout) -> tuple[torch.Tensor, torch.Tensor]:
    """The highest code up to each key, and the lowest code from each key on, both (B, S) and ascending."""
    segments = torch.ones_like(key.positions) if key.segments is None else key.segments
    codes = segments * _SEGMENT + key.positions
    highest = codes.masked_fill(segments == 0, -_PADDING_CODE).cummax(-1).values
    lowest = codes.masked_fill(segments == 0, _PADDING_CODE).flip(-1).cummin(-1).values.flip(-1)
    return highest, lowest


def _clamp(bound: int | torch.Tensor, segments: torch.Tensor) -> torch.Tensor:
    return torch.as_tensor(bound, device=segments.device).clamp(*EVERYWHERE)


def _bisect(codes: torch.Tensor, bounds: torch.Tensor, right: bool) -> torch.Tensor:
    """The index of `bounds` (B, H, T, 1) in `codes` (B, S), as `torch.searchsorted` counts it: (B, H, T).

    Either may have a B of 1.
    """
    bounds = bounds.squeeze(-1)
    batch = max(len(codes), len(bounds))
    flat = bounds.expand(batch, -1, -1).flatten(1).contiguous()
    return torch.searchsorted(codes.expand(batch, -1).contiguous(), flat, right=right).view(batch, *bounds.shape[1:])


def _by_block(indices: torch.Tensor, rows: int, fill: int) -> torch.Tensor:
    """(B, H, T) to (B, H, blocks, rows), the last block filled up."""
    blocks = -(-indices.shape[-1] // rows)
    padded = torch.nn.functional.pad(indices, (0, blocks * rows - indices.shape[-1]), value=fill)
    by_block: torch.Tensor = padded.unflatten(-1, (blocks, rows))
    return by_block
