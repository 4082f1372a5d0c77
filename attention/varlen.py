"""A mask as sequence lengths, a band around the query's position, and chosen keys, if it has that form.

This is what FlashAttention's functions for sequences of various lengths take: each example of each row is a sequence
of its own, and padding is in none.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch

from ..masks.expressions import FAR, And, Mask, MaskError
from ..masks.layout import Layout
from ..masks.materialize import check, positions_of
from ..masks.rules.positional import causal, full, prefix, wait_k, window
from ..masks.rules.segments import passages, segments
from ..masks.rules.spans import blind, keep

Band = tuple[int | None, int | None]
"""How far a query sees to the left and to the right of its own position; None is without a limit."""


@dataclass(frozen=True)
class Varlen:
    """The arguments of FlashAttention's functions for sequences of various lengths, and where the tokens come from.

    Attributes:
        queries, keys: (N,) and (M,) int64, indices of the tokens in the flattened (B * T) and (B * S), sequence after
            sequence, in the order of positions. A sequence is an example, or a passage of an example.
        cu_queries, cu_keys: (sequences + 1,) int32, where each sequence starts.
        longest_query, longest_key: the largest number of tokens in a sequence.
        window: how far a query sees to both sides, -1 without a limit, counted as FlashAttention does: the last query
            is at the position of the last key.
    """

    queries: torch.Tensor
    keys: torch.Tensor
    cu_queries: torch.Tensor
    cu_keys: torch.Tensor
    longest_query: int
    longest_key: int
    window: tuple[int, int]


@dataclass(frozen=True)
class _Form:
    """A band around the query's position, over keys that are chosen for all queries alike."""

    band: Band
    chosen: tuple[Mask, ...] = ()
    by_passage: bool = False  # whether each passage is a sequence of its own


def _form_of(mask: Mask) -> _Form | None:
    """The form of the mask, None if it has another one."""
    bands: list[Band] = [(None, None)]
    chosen: list[Mask] = []
    by_passage = False
    for part in mask.parts if isinstance(mask, And) else (mask,):
        match part:
            case full() | segments():
                pass
            case causal():
                bands.append((None, 0))
            case wait_k(k=k):
                bands.append((None, k - 1))
            case window(left=left, right=right):
                bands.append((left, right))
            case passages():
                by_passage = True
            case _ if all(isinstance(rule, (keep, blind, prefix)) for rule in part.rules()):
                chosen.append(part)
            case _:
                return None
    narrowest = (_narrowest(left for left, _ in bands), _narrowest(right for _, right in bands))
    return _Form(narrowest, tuple(chosen), by_passage)


def _narrowest(widths: Iterable[int | None]) -> int | None:
    return min((width for width in widths if width is not None), default=None)


def compile_varlen(
    mask: Mask,
    query: Layout,
    key: Layout,
    tensor_mask: torch.Tensor | None = None,
    heads: int = 1,
    batch: int = 1,
) -> Varlen:
    """Compile to sequence lengths. The host needs the lengths, so it waits for a GPU.

    Args:
        mask, query, key, tensor_mask, heads: as in `compile_mask`.
        batch: B, which cannot be told from layouts that are the same in every row.

    Raises:
        MaskError: the mask is neither a band around the query's position nor a choice of keys, or the band is not the
            same in all examples.
    """
    check(mask, query, key, heads)
    form = _form_of(mask)
    if tensor_mask is not None:
        raise _refusal("a tensor mask", "a tensor can allow any pairs")
    if form is None:
        raise _refusal(str(mask), "it is neither a band around the query's position nor a choice of keys")
    has_band = form.band != (None, None)
    if has_band and form.chosen:
        raise _refusal(str(mask), f"the band counts the tokens that {form.chosen[0]} leaves out")
    (query_sequence, count), (key_sequence, _) = _sequences(query, key, batch, form.by_passage)
    is_chosen = [key.positions.new_ones(batch, key.length).bool()]
    positions = positions_of(key, -1)
    is_chosen += [
        torch.as_tensor(rule.allows(positions, positions))[:, 0, :, 0].expand(batch, -1) for rule in form.chosen
    ]
    queries, query_counts, query_first = _in_order(query, query_sequence, count, has_band, mask)
    keys, key_counts, key_first = _in_order(key, key_sequence, count, has_band, mask, torch.stack(is_chosen).all(0))
    shifts = query_first - key_first - key_counts + query_counts
    distinct_shifts = shifts[(query_counts > 0) & (key_counts > 0)].unique().tolist() or [0]
    if has_band and len(distinct_shifts) > 1:
        raise _refusal(str(mask), "queries and keys differ by more in one example than in another")
    return Varlen(
        queries,
        keys,
        _starts(query_counts),
        _starts(key_counts),
        int(query_counts.max()),
        int(key_counts.max()),
        _shifted(mask, form.band, distinct_shifts[0]),
    )


def _sequences(query: Layout, key: Layout, batch: int, by_passage: bool) -> list[tuple[torch.Tensor, int]]:
    """For either side: the sequence of each token, (B, L), below 0 for padding; and the number of sequences."""
    sides = (query, key)
    examples = max([1, *(int(side.segments.max()) for side in sides if side.segments is not None)])
    numbers = [side.passages for side in sides if by_passage and side.passages is not None]
    lowest = min([0, *(int(passages.min()) for passages in numbers)])
    count = max([0, *(int(passages.max()) for passages in numbers)]) - lowest + 1
    result = []
    for side in sides:
        positions = side.positions.expand(batch, -1)
        segments = torch.ones_like(positions) if side.segments is None else side.segments.expand(batch, -1)
        sequence = torch.arange(batch, device=positions.device)[:, None] * examples + segments - 1
        if numbers:
            sequence = sequence * count + (0 if side.passages is None else side.passages) - lowest
        result.append((sequence.masked_fill(segments == 0, -1), batch * examples * count))
    return result


def _in_order(
    side: Layout,
    sequence: torch.Tensor,
    count: int,
    has_band: bool,
    mask: Mask,
    is_chosen: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Indices of the tokens by sequence and position; each sequence's number of tokens, and its first position.

    Args:
        sequence: (B, L) int64, of each token; below 0 for tokens in none.
        count: the number of sequences.
        has_band: whether the positions of a sequence must be neighbours.
        is_chosen: (B, L) bool, the tokens to take; all if None.
    """
    is_taken = sequence >= 0 if is_chosen is None else (sequence >= 0) & is_chosen
    tokens = is_taken.flatten().nonzero().squeeze(-1)
    sequence, positions = sequence.flatten()[tokens], side.positions.expand_as(sequence).flatten()[tokens]
    order = positions.argsort(stable=True)
    order = order[sequence[order].argsort(stable=True)]
    tokens, sequence, positions = tokens[order], sequence[order], positions[order]
    counts = sequence.bincount(minlength=count)
    first = torch.zeros_like(counts)
    starts = (counts.cumsum(0) - counts)[counts > 0]
    first[counts > 0] = positions[starts]
    if has_band and not (positions - first[sequence]).equal(_count_up(counts)):
        raise _refusal(str(mask), "positions of neighbouring tokens must differ by one")
    return tokens, counts, first


def _count_up(counts: torch.Tensor) -> torch.Tensor:
    """0, 1, ... up to each of the counts, one after the other."""
    starts = (counts.cumsum(0) - counts).repeat_interleave(counts)
    return torch.arange(len(starts), device=counts.device) - starts


def _starts(counts: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.pad(counts.cumsum(0), (1, 0)).int()


def _shifted(mask: Mask, band: Band, shift: int) -> tuple[int, int]:
    """The band as FlashAttention counts it, from the last query and the last key."""
    left, right = band
    window = (FAR if left is None else left - shift, FAR if right is None else right + shift)
    if min(window) < 0:
        raise _refusal(
            str(mask), "for the last query the band ends before the last key, from which FlashAttention counts"
        )
    return (-1 if left is None else window[0], -1 if right is None else window[1])


def _refusal(mask: str, reason: str) -> MaskError:
    return MaskError(
        "a mask under flash_attention must be full(), causal(), windows, passages() or a choice of keys, with padding "
        f'and packed rows, got {mask}: {reason}; use attn_implementation="blockwise", "flex_attention" or "sdpa"'
    )
