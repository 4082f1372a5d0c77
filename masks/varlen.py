"""A mask for FlashAttention: sequence lengths and a band, where the mask has that form."""

from dataclasses import dataclass

import torch

from .base import FAR, And, Mask, MaskError
from .compile import check
from .layout import Layout
from .parts import segments
from .rules import causal, full, wait_k, window

Band = tuple[int | None, int | None]
"""How far a query sees to the left and to the right of its own position; None is without end."""


@dataclass(frozen=True)
class Varlen:
    """What FlashAttention's functions for sequences of various lengths want, and where the tokens come from.

    Attributes:
        queries, keys: (N,) and (M,) int64, indices of the tokens in the flattened (B * T) and (B * S), example after
            example, in order of position.
        cu_queries, cu_keys: (examples + 1,) int32, where each example starts.
        longest_query, longest_key: the most tokens in one example.
        window: how far a query sees to both sides, -1 without end, counted as FlashAttention does: the last query
            stands beside the last key.
    """

    queries: torch.Tensor
    keys: torch.Tensor
    cu_queries: torch.Tensor
    cu_keys: torch.Tensor
    longest_query: int
    longest_key: int
    window: tuple[int, int]


def band_of(mask: Mask) -> Band | None:
    """The band that the mask is, or None if it is something else."""
    match mask:
        case full() | segments():
            return None, None
        case causal():
            return None, 0
        case wait_k(k=k):
            return None, k - 1
        case window(left=left, right=right):
            return left, right
        case And(parts=parts):
            bands = [band_of(part) for part in parts]
            if None in bands:
                return None
            left, right = zip(*bands, strict=True)
            return _narrowest(left), _narrowest(right)
    return None


def _narrowest(widths: tuple[int | None, ...]) -> int | None:
    return min((width for width in widths if width is not None), default=None)


def compile_varlen(
    mask: Mask,
    query: Layout,
    key: Layout,
    given: torch.Tensor | None = None,
    heads: int = 1,
    batch: int = 1,
) -> Varlen:
    """Compile to sequence lengths: every example of every row is a sequence of its own.

    The lengths are needed on the host, so a GPU is waited for.

    Args:
        mask, query, key, given, heads: as in `compile_mask`.
        batch: B, which layouts that are the same in every row do not tell.

    Raises:
        MaskError: the mask is not a band around the query's position, or the band lies differently in the examples.
    """
    check(mask, query, key, heads)
    band = band_of(mask)
    if given is not None:
        raise _no_form("a tensor mask", "a tensor can be any shape")
    if band is None:
        raise _no_form(str(mask), "it is not a band around the query's position")
    most = max([1, *(int(side.segments.max()) for side in (query, key) if side.segments is not None)])
    queries, q_counts, q_first = _sequences(query, batch, most, band != (None, None), mask)
    keys, k_counts, k_first = _sequences(key, batch, most, band != (None, None), mask)
    shifts = (q_first - k_first - k_counts + q_counts)[(q_counts > 0) & (k_counts > 0)].unique().tolist() or [0]
    if band != (None, None) and len(shifts) > 1:
        raise _no_form(str(mask), "queries and keys differ by more in one example than in another")
    window = _shifted(mask, band, shifts[0])
    return Varlen(
        queries, keys, _starts(q_counts), _starts(k_counts), int(q_counts.max()), int(k_counts.max()), window
    )


def _sequences(
    side: Layout, batch: int, most: int, in_order: bool, mask: Mask
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Indices of a side's tokens by example and position, and each example's number of tokens and first position."""
    positions = side.positions.expand(batch, -1)
    segments = torch.ones_like(positions) if side.segments is None else side.segments.expand(batch, -1)
    sequence = torch.arange(batch, device=positions.device)[:, None] * most + segments - 1
    tokens = (segments > 0).flatten().nonzero().squeeze(-1)
    sequence, positions = sequence.flatten()[tokens], positions.flatten()[tokens]
    order = positions.argsort(stable=True)
    order = order[sequence[order].argsort(stable=True)]
    tokens, sequence, positions = tokens[order], sequence[order], positions[order]
    counts = sequence.bincount(minlength=batch * most)
    first = torch.zeros_like(counts)
    starts = (counts.cumsum(0) - counts)[counts > 0]
    first[counts > 0] = positions[starts]
    if in_order and not (positions - first[sequence]).equal(_counted(counts)):
        raise _no_form(str(mask), "positions of neighbouring tokens must differ by one")
    return tokens, counts, first


def _counted(counts: torch.Tensor) -> torch.Tensor:
    """0, 1, ... anew for each of the counts."""
    starts = (counts.cumsum(0) - counts).repeat_interleave(counts)
    return torch.arange(len(starts), device=counts.device) - starts


def _starts(counts: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.pad(counts.cumsum(0), (1, 0)).int()


def _shifted(mask: Mask, band: Band, shift: int) -> tuple[int, int]:
    left, right = band
    window = (FAR if left is None else left - shift, FAR if right is None else right + shift)
    if min(window) < 0:
        raise _no_form(str(mask), "for the last query it ends short of the last key, from which FlashAttention counts")
    return (-1 if left is None else window[0], -1 if right is None else window[1])


def _no_form(mask: str, reason: str) -> MaskError:
    return MaskError(
        f"flash_attention cannot run {mask}: {reason}; it runs full(), causal() and windows, with padding and packed "
        'rows. Use attn_implementation="blockwise", "flex_attention" or "sdpa"'
    )
