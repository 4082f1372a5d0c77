"""FlashAttention (Dao 2023, https://arxiv.org/abs/2307.08691) over examples of various lengths, without padding.

A mask becomes sequence lengths, a band, and the keys that count, where it has that form.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from inspect import signature
from typing import Any

import torch
from torch import nn
from transformers.modeling_flash_attention_utils import lazy_import_flash_attention
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.utils.generic import is_flash_attention_requested

from ..masks.expressions import FAR, And, Mask, MaskError
from ..masks.layout import Layout
from ..masks.materialize import check, positions_of
from ..masks.rules.positional import causal, full, prefix, wait_k, window
from ..masks.rules.segments import passages, segments
from ..masks.rules.spans import blind, keep
from .base import AttentionBackend, AttentionResult, MaskRequest
from .dense import eager_attention

Band = tuple[int | None, int | None]
"""How far a query sees to the left and to the right of its own position; None is without end."""


@dataclass(frozen=True)
class Varlen:
    """What FlashAttention's functions for sequences of various lengths want, and where the tokens come from.

    Attributes:
        queries, keys: (N,) and (M,) int64, indices of the tokens in the flattened (B * T) and (B * S), sequence after
            sequence, in order of position. A sequence is an example, or a passage of one.
        cu_queries, cu_keys: (sequences + 1,) int32, where each sequence starts.
        longest_query, longest_key: the most tokens in one sequence.
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


class FlashBackend(AttentionBackend):
    """FlashAttention, whichever version `attn_implementation` names.

    A mask that has no form for it is an error, and not left to another backend: whoever asks for FlashAttention on
    long rows cannot afford a mask of all pairs.
    """

    mask_types = (Varlen,)

    def __init__(self, name: str):
        self.name = name

    def variant(self, name: str) -> "FlashBackend | None":
        return FlashBackend(name) if is_flash_attention_requested(requested_attention_implementation=name) else None

    def compile(self, request: MaskRequest) -> Varlen:
        sides = (request.rule, request.query, request.key, request.tensor_mask)
        return compile_varlen(*sides, request.heads, request.batch)

    def attend(
        self,
        module: nn.Module,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        compiled_mask: Varlen | None,
        *,
        additive: bool = False,
        **kwargs: Any,
    ) -> AttentionResult:
        if compiled_mask is not None:
            return varlen_attention(module, query, key, value, compiled_mask, implementation=self.name, **kwargs)
        function = ALL_ATTENTION_FUNCTIONS.get_interface(self.name, eager_attention)
        result: AttentionResult = function(module, query, key, value, None, **kwargs)
        return result


@dataclass(frozen=True)
class _Form:
    """A mask as FlashAttention can run it: a band around the query's position, over keys chosen whoever asks."""

    band: Band
    chosen: tuple[Mask, ...] = ()
    apart: bool = False  # whether passages are sequences of their own


def _form_of(mask: Mask) -> _Form | None:
    """The form that the mask has, or None if it is something else."""
    bands: list[Band] = [(None, None)]
    chosen: list[Mask] = []
    apart = False
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
                apart = True
            case _ if all(isinstance(rule, keep | blind | prefix) for rule in part.rules()):
                chosen.append(part)
            case _:
                return None
    narrowest = (_narrowest(left for left, _ in bands), _narrowest(right for _, right in bands))
    return _Form(narrowest, tuple(chosen), apart)


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
    """Compile to sequence lengths: every example of every row is a sequence of its own.

    The lengths are needed on the host, so a GPU is waited for.

    Args:
        mask, query, key, tensor_mask, heads: as in `compile_mask`.
        batch: B, which layouts that are the same in every row do not tell.

    Raises:
        MaskError: the mask is neither a band around the query's position nor a choice of keys, or the band lies
            differently in the examples.
    """
    check(mask, query, key, heads)
    form = _form_of(mask)
    if tensor_mask is not None:
        raise _no_form("a tensor mask", "a tensor can be any shape")
    if form is None:
        raise _no_form(str(mask), "it is not a band around the query's position, nor a choice of keys")
    banded = form.band != (None, None)
    if banded and form.chosen:
        raise _no_form(str(mask), f"the band counts the tokens that {form.chosen[0]} leaves out")
    groups = _groups(query, key, batch, form.apart)
    kept = [key.positions.new_ones(batch, key.length).bool()]
    place = positions_of(key, -1)
    kept += [torch.as_tensor(rule.allows(place, place))[:, 0, :, 0].expand(batch, -1) for rule in form.chosen]
    queries, q_counts, q_first = _sequences(query, *groups[0], banded, mask)
    keys, k_counts, k_first = _sequences(key, *groups[1], banded, mask, torch.stack(kept).all(0))
    shifts = (q_first - k_first - k_counts + q_counts)[(q_counts > 0) & (k_counts > 0)].unique().tolist() or [0]
    if banded and len(shifts) > 1:
        raise _no_form(str(mask), "queries and keys differ by more in one example than in another")
    window = _shifted(mask, form.band, shifts[0])
    return Varlen(
        queries, keys, _starts(q_counts), _starts(k_counts), int(q_counts.max()), int(k_counts.max()), window
    )


def _groups(query: Layout, key: Layout, batch: int, apart: bool) -> list[tuple[torch.Tensor, int]]:
    """For either side: the sequence that each token (B, L) is of, below 0 for padding, and how many there are."""
    sides = (query, key)
    most = max([1, *(int(side.segments.max()) for side in sides if side.segments is not None)])
    parted = [side.passages for side in sides if apart and side.passages is not None]
    lowest = min([0, *(int(numbers.min()) for numbers in parted)])
    passages = max([0, *(int(numbers.max()) for numbers in parted)]) - lowest + 1
    found = []
    for side in sides:
        positions = side.positions.expand(batch, -1)
        segments = torch.ones_like(positions) if side.segments is None else side.segments.expand(batch, -1)
        sequence = torch.arange(batch, device=positions.device)[:, None] * most + segments - 1
        if parted:
            sequence = sequence * passages + (0 if side.passages is None else side.passages) - lowest
        found.append((sequence.masked_fill(segments == 0, -1), batch * most * passages))
    return found


def _sequences(
    side: Layout, sequence: torch.Tensor, many: int, in_order: bool, mask: Mask, kept: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Indices of a side's tokens by sequence and position, and each sequence's number of tokens and first position."""
    taken = sequence >= 0 if kept is None else (sequence >= 0) & kept
    tokens = taken.flatten().nonzero().squeeze(-1)
    sequence, positions = sequence.flatten()[tokens], side.positions.expand_as(sequence).flatten()[tokens]
    order = positions.argsort(stable=True)
    order = order[sequence[order].argsort(stable=True)]
    tokens, sequence, positions = tokens[order], sequence[order], positions[order]
    counts = sequence.bincount(minlength=many)
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
        f"flash_attention cannot run {mask}: {reason}; it runs full(), causal(), windows, passages() and choices of "
        'keys, with padding and packed rows. Use attn_implementation="blockwise", "flex_attention" or "sdpa"'
    )


def varlen_attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: Varlen,
    scaling: float,
    dropout: float = 0.0,
    implementation: str = "flash_attention_2",
    **kwargs: Any,
) -> AttentionResult:
    """Scaled dot-product attention inside each sequence of `attention_mask`; padding gets zero.

    Args:
        query: (B, H, T, D). key, value: (B, H / groups, S, D). All in half precision.
        implementation: which version computes it, by the name that Transformers has for it.

    Returns:
        (B, T, H, D), and None instead of the weights.
    """
    (_, run, *_), _ = lazy_import_flash_attention(implementation)
    options = {
        "cu_seqlens_q": attention_mask.cu_queries,
        "cu_seqlens_k": attention_mask.cu_keys,
        "max_seqlen_q": attention_mask.longest_query,
        "max_seqlen_k": attention_mask.longest_key,
        "softmax_scale": scaling,
        "window_size": attention_mask.window,
        "causal": False,
    }
    if "dropout_p" in signature(run).parameters:  # versions 3 and 4 have none
        options["dropout_p"] = dropout
    tokens = [
        states.transpose(1, 2).flatten(0, 1).index_select(0, indices)
        for states, indices in (
            (query, attention_mask.queries),
            (key, attention_mask.keys),
            (value, attention_mask.keys),
        )
    ]
    found = run(*tokens, **options)
    found = found[0] if isinstance(found, tuple) else found
    batch, heads, length, width = query.shape
    output = found.new_zeros(batch * length, heads, width).index_copy(0, attention_mask.queries, found)
    return output.view(batch, length, heads, width), None
