"""Attention in packed rows, example by example: what lies in different examples of a row is never looked at.

Of all pairs of a query and a key in a row of 256 tokens with 16 examples, about a sixteenth counts. Here the tokens
are laid out again, an example a row, examples of like length together, and attention is computed there.

Letters: B batch, T target length, S source length, H query heads, D head width; N examples with L slots in a group.
"""

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from ..masks.expressions import Mask
from ..masks.layout import Layout
from ..masks.materialize import check, materialize_unchecked
from .base import AttentionResult

WIDTHS = (8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024)
"""Examples up to such a length, on their longer side, are a group. Closer steps pad less, but a group costs time."""

_ROW = 2**40  # a row's segments get a range of codes of their own


@dataclass(frozen=True)
class PackedIndex:
    """Where the tokens of one side go: into groups of N examples with L slots each, group after group.

    Attributes:
        tokens: for each group (N, L) int64, the token in each slot, an index into the flattened (B * L). Slots to
            spare repeat the first token of their example.
        first: (B * L,) int64, how many slots come before those of the token's example; all slots where it has none.
        place: (B * L,) int64, the token's slot among those of its example.
        width: (B * L,) int64, how many slots its example has.
        total: the number of slots.
    """

    tokens: tuple[torch.Tensor, ...]
    first: torch.Tensor
    place: torch.Tensor
    width: torch.Tensor
    total: int


@dataclass(frozen=True)
class ExamplesMask:
    """Where queries and keys go, and what is allowed there: for each group (N, 1 or H, T, S) bool."""

    queries: PackedIndex
    keys: PackedIndex
    allowed: tuple[torch.Tensor, ...]


def compile_by_example(
    mask: Mask,
    query: Layout,
    key: Layout,
    tensor_mask: torch.Tensor | None = None,
    heads: int = 1,
    batch: int = 1,
    limit: int | None = None,
) -> ExamplesMask | None:
    """Compile for a layout by examples. Lengths are needed on the host, so a GPU is waited for.

    Args:
        mask, query, key, tensor_mask, heads: as in `compile_mask`; both sides have segments.
        batch: B.
        limit: return None where more pairs of a query and a key would be looked at.

    Raises:
        MaskError: as in `compile_mask`.
    """
    check(mask, query, key, heads)
    sides = [_Side(side, batch) for side in (query, key)]
    codes, numbers = torch.cat([side.codes for side in sides]).unique(return_inverse=True)
    for side, own in zip(sides, numbers.split([len(side.codes) for side in sides]), strict=True):
        side.sort(own, codes)
    lengths = torch.stack([side.counts for side in sides]).tolist()
    members: dict[int, list[int]] = {}
    for example, pair in enumerate(zip(*lengths, strict=True)):
        if pair[0]:  # without a query there is nothing to compute
            members.setdefault(bisect_left(WIDTHS, max(pair)), []).append(example)
    groups = [members[width] for width in sorted(members)] or [[0]]
    sizes = [[max(1, *(own[example] for example in group)) for own in lengths] for group in groups]
    if limit is not None and sum(len(g) * q * k for g, (q, k) in zip(groups, sizes, strict=True)) > limit:
        return None
    for group, size in zip(groups, sizes, strict=True):
        examples = torch.tensor(group, device=codes.device)
        for side, slots in zip(sides, size, strict=True):
            side.place(examples, slots)
    queries, keys = sides
    allowed = []
    for q, k in zip(queries.groups, keys.groups, strict=True):
        part = None if tensor_mask is None else _pick(tensor_mask.expand(batch, -1, -1, -1), q, k)
        cells = materialize_unchecked(mask, q, k, part, heads)
        assert cells is not None, "groups have segments, so something is forbidden"
        allowed.append(cells)
    return ExamplesMask(queries.places(), keys.places(), tuple(allowed))


@dataclass(frozen=True)
class _Group(Layout):
    """Tokens of a layout, laid out anew as (N, L)."""

    whole: Layout = field(kw_only=True)
    tokens: torch.Tensor = field(kw_only=True)
    batch: int = 1

    @property
    def examples(self) -> torch.Tensor:
        return self.whole.examples.expand(self.batch, self.whole.length).flatten()[self.tokens]


class _Side:
    """Finds the places of one side's tokens."""

    def __init__(self, side: Layout, batch: int):
        assert side.segments is not None, "only rows of examples come here"
        self.side = side
        self.batch = batch
        self.segments = self.spread(side.segments)
        rows = torch.arange(batch, device=self.segments.device).repeat_interleave(side.length)
        self.codes = torch.where(self.segments > 0, rows * _ROW + self.segments, -1)
        self.groups: list[_Group] = []
        self.first, self.slot, self.width = (torch.zeros_like(self.codes) for _ in range(3))
        self.total = 0

    def spread(self, numbers: torch.Tensor) -> torch.Tensor:
        """(B or 1, L) to (B * L,)."""
        return numbers.expand(self.batch, -1).flatten()

    def sort(self, numbers: torch.Tensor, codes: torch.Tensor) -> None:
        """Sort tokens by the numbers of their examples, of which `codes` says what they are."""
        self.order = numbers.argsort(stable=True)
        counts = numbers.bincount(minlength=len(codes))
        self.starts = counts.cumsum(0) - counts
        self.counts = counts * (codes >= 0)

    def place(self, examples: torch.Tensor, width: int) -> None:
        """Give each of N examples `width` slots."""
        slots = torch.arange(width, device=examples.device).expand(len(examples), -1)
        filled = slots < self.counts[examples][:, None]
        index = self.starts[examples][:, None] + slots * filled
        tokens = self.order[index.clamp(max=len(self.order) - 1)]
        real = tokens[filled]
        firsts = self.total + torch.arange(len(examples), device=examples.device)[:, None] * width
        self.first[real], self.slot[real], self.width[real] = firsts.expand_as(slots)[filled], slots[filled], width
        self.total += tokens.numel()
        positions = self.spread(self.side.positions)[tokens]
        passages = None if self.side.passages is None else self.spread(self.side.passages)[tokens]
        segments = self.segments[tokens] * filled
        self.groups.append(
            _Group(positions, segments, passages, packed=True, whole=self.side, batch=self.batch, tokens=tokens)
        )

    def places(self) -> PackedIndex:
        first = self.first.masked_fill(self.width == 0, self.total)
        return PackedIndex(tuple(group.tokens for group in self.groups), first, self.slot, self.width, self.total)


def _pick(tensor_mask: torch.Tensor, query: _Group, key: _Group) -> torch.Tensor:
    """Of (B, 1 or H, T or 1, S) what belongs to the pairs of a group: (N, 1 or H, T, S)."""
    rows, columns = query.tokens // query.whole.length, key.tokens % key.whole.length
    lines = query.tokens % query.whole.length if tensor_mask.shape[-2] > 1 else torch.zeros_like(query.tokens)
    return tensor_mask[rows[:, :1, None], :, lines[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def attention_by_example(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: ExamplesMask,
    inner: Callable[..., AttentionResult],
    **kwargs: Any,
) -> AttentionResult:
    """Any attention inside each example; padding gets zero.

    Args:
        query: (B, H, T, D). key, value: (B, H / groups, S, D).
        inner: attention among the tokens of N examples.

    Returns:
        (B, T, H, D), and None instead of the weights.
    """
    sides = [(query, attention_mask.queries), (key, attention_mask.keys), (value, attention_mask.keys)]
    part: Any = _Part.apply
    join: Any = _Join.apply
    groups = zip(*(part(states, places) for states, places in sides), attention_mask.allowed, strict=True)
    outputs = [inner(module, *states, allowed, **kwargs)[0] for *states, allowed in groups]
    return join(attention_mask.queries, query.shape[0], *outputs), None


class _Part(torch.autograd.Function):
    """(B, H, L, D) to (N, H, slots, D) for each group.

    A token is in one slot at most, so the gradient is gathered too, where torch would add up. Slots to spare repeat a
    token, but are forbidden to every query, and queries there see nothing: they have no gradient to add.
    """

    @staticmethod
    def forward(ctx: Any, states: torch.Tensor, places: PackedIndex) -> tuple[torch.Tensor, ...]:
        ctx.places, ctx.shape = places, states.shape
        heads, width = states.shape[1], states.shape[3]
        rows = states.transpose(1, 2).reshape(-1, width)
        head = torch.arange(heads, device=states.device)[:, None]
        return tuple(
            rows.index_select(0, (tokens[:, None] * heads + head).flatten()).view(len(tokens), heads, -1, width)
            for tokens in places.tokens
        )

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, None]:
        places, (batch, heads, length, width) = ctx.places, ctx.shape
        head = torch.arange(heads, device=grads[0].device)
        rows = (places.first * heads + places.place)[:, None] + places.width[:, None] * head
        grad = _with_zeros(grads, width).index_select(0, rows.flatten())
        return grad.view(batch, length, heads, width).transpose(1, 2), None


class _Join(torch.autograd.Function):
    """(N, slots, H, D) of each group to (B, L, H, D), zero where a token has no slot."""

    @staticmethod
    def forward(ctx: Any, places: PackedIndex, batch: int, *groups: torch.Tensor) -> torch.Tensor:
        ctx.places = places
        heads, width = groups[0].shape[2:]
        rows = _with_zeros(groups, heads * width).index_select(0, places.first + places.place)
        return rows.view(batch, -1, heads, width)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        rows = grad.flatten(0, 1).flatten(1)
        grads = [
            rows.index_select(0, tokens.flatten()).view(*tokens.shape, *grad.shape[2:]) for tokens in ctx.places.tokens
        ]
        return None, None, *grads


def _with_zeros(groups: tuple[torch.Tensor, ...], width: int) -> torch.Tensor:
    """The numbers of all groups in rows of `width`, and a row of zeros for what has no slot."""
    rows = [group.reshape(-1, width) for group in groups]
    return torch.cat([*rows, rows[0].new_zeros(1, width)])
