"""Attention in packed rows, example by example, without the pairs of a query and a key of different examples.

In a row with 16 examples only about a sixteenth of all pairs are of one example. Here the tokens are laid out again,
one example in each row, examples of similar length together in a group, and attention is computed in each group.

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
"""Examples of up to these lengths, on their longer side, form groups. More groups pad less, but each takes time."""

_ROW = 2**40  # a code is `row * _ROW + segment`


@dataclass(frozen=True)
class PackedIndex:
    """The slots of the tokens of one side, in groups of N examples with L slots each, group after group.

    Attributes:
        tokens: for each group (N, L) int64, the token in each slot, an index into the flattened (B * L). Slots that an
            example does not need repeat its first token.
        first: (B * L,) int64, the first slot of the token's example; the number of all slots for padding.
        offset: (B * L,) int64, the token's slot, counted from the first one of its example.
        width: (B * L,) int64, the number of slots of its example.
        total: the number of all slots.
    """

    tokens: tuple[torch.Tensor, ...]
    first: torch.Tensor
    offset: torch.Tensor
    width: torch.Tensor
    total: int


@dataclass(frozen=True)
class ExamplesMask:
    """A mask example by example: the slots of queries and keys, and for each group what is allowed.

    `allowed` has (N, 1 or H, T, S) bool for each group.
    """

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
    """Compile for a layout by examples. The host needs their lengths, so it waits for a GPU.

    Args:
        mask, query, key, tensor_mask, heads: as in `compile_mask`; both sides have segments.
        batch: B.
        limit: return None if more pairs of a query and a key than this would be computed.

    Raises:
        MaskError: as in `compile_mask`.
    """
    check(mask, query, key, heads)
    sides = [_Side(side, batch) for side in (query, key)]
    codes, numbers = torch.cat([side.codes for side in sides]).unique(return_inverse=True)
    for side, of_side in zip(sides, numbers.split([len(side.codes) for side in sides]), strict=True):
        side.sort(of_side, codes)
    lengths = torch.stack([side.counts for side in sides]).tolist()
    members: dict[int, list[int]] = {}
    for example, pair in enumerate(zip(*lengths, strict=True)):
        if pair[0]:  # an example without a query needs nothing computed
            members.setdefault(bisect_left(WIDTHS, max(pair)), []).append(example)
    groups = [members[width] for width in sorted(members)] or [[0]]
    sizes = [[max(1, *(of_side[example] for example in group)) for of_side in lengths] for group in groups]
    if limit is not None and sum(len(g) * q * k for g, (q, k) in zip(groups, sizes, strict=True)) > limit:
        return None
    for group, size in zip(groups, sizes, strict=True):
        examples = torch.tensor(group, device=codes.device)
        for side, slots in zip(sides, size, strict=True):
            side.add_group(examples, slots)
    queries, keys = sides
    allowed = []
    for q, k in zip(queries.groups, keys.groups, strict=True):
        part = None if tensor_mask is None else _pick(tensor_mask.expand(batch, -1, -1, -1), q, k)
        of_group = materialize_unchecked(mask, q, k, part, heads)
        assert of_group is not None, "groups have segments, so something is forbidden"
        allowed.append(of_group)
    return ExamplesMask(queries.index(), keys.index(), tuple(allowed))


@dataclass(frozen=True)
class _Group(Layout):
    """Tokens of a layout, laid out again as (N, L)."""

    original: Layout = field(kw_only=True)
    tokens: torch.Tensor = field(kw_only=True)
    batch: int = 1

    @property
    def examples(self) -> torch.Tensor:
        return self.original.examples.expand(self.batch, self.original.length).flatten()[self.tokens]


class _Side:
    """Finds the slots of the tokens of one side."""

    def __init__(self, side: Layout, batch: int):
        assert side.segments is not None, "only packed rows are compiled by example"
        self.side = side
        self.batch = batch
        self.segments = self.spread(side.segments)
        rows = torch.arange(batch, device=self.segments.device).repeat_interleave(side.length)
        self.codes = torch.where(self.segments > 0, rows * _ROW + self.segments, -1)
        self.groups: list[_Group] = []
        self.first, self.offset, self.width = (torch.zeros_like(self.codes) for _ in range(3))
        self.total = 0

    def spread(self, numbers: torch.Tensor) -> torch.Tensor:
        """(B or 1, L) to (B * L,)."""
        return numbers.expand(self.batch, -1).flatten()

    def sort(self, numbers: torch.Tensor, codes: torch.Tensor) -> None:
        """Sort the tokens by example.

        Args:
            numbers: (B * L,) int64, the index of each token's code in `codes`.
            codes: all codes, in ascending order; below 0 for padding.
        """
        self.order = numbers.argsort(stable=True)
        counts = numbers.bincount(minlength=len(codes))
        self.starts = counts.cumsum(0) - counts
        self.counts = counts * (codes >= 0)

    def add_group(self, examples: torch.Tensor, width: int) -> None:
        """Add a group of N examples, each with `width` slots."""
        offsets = torch.arange(width, device=examples.device).expand(len(examples), -1)
        filled = offsets < self.counts[examples][:, None]
        index = self.starts[examples][:, None] + offsets * filled
        tokens = self.order[index.clamp(max=len(self.order) - 1)]
        real = tokens[filled]
        first = self.total + torch.arange(len(examples), device=examples.device)[:, None] * width
        self.first[real] = first.expand_as(offsets)[filled]
        self.offset[real], self.width[real] = offsets[filled], width
        self.total += tokens.numel()
        positions = self.spread(self.side.positions)[tokens]
        passages = None if self.side.passages is None else self.spread(self.side.passages)[tokens]
        segments = self.segments[tokens] * filled
        self.groups.append(
            _Group(positions, segments, passages, packed=True, original=self.side, batch=self.batch, tokens=tokens)
        )

    def index(self) -> PackedIndex:
        first = self.first.masked_fill(self.width == 0, self.total)
        return PackedIndex(tuple(group.tokens for group in self.groups), first, self.offset, self.width, self.total)


def _pick(tensor_mask: torch.Tensor, query: _Group, key: _Group) -> torch.Tensor:
    """A mask (B, 1 or H, T or 1, S) for the pairs of a group: (N, 1 or H, T, S)."""
    batch_rows, columns = query.tokens // query.original.length, key.tokens % key.original.length
    rows = query.tokens % query.original.length if tensor_mask.shape[-2] > 1 else torch.zeros_like(query.tokens)
    return tensor_mask[batch_rows[:, :1, None], :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def attention_by_example(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: ExamplesMask,
    inner: Callable[..., AttentionResult],
    **kwargs: Any,
) -> AttentionResult:
    """Attention inside of each example; padding gets zero.

    Args:
        query: (B, H, T, D). key, value: (B, H / groups, S, D).
        inner: the attention function for the N examples of a group.

    Returns:
        (B, T, H, D), and None instead of the weights.
    """
    sides = [(query, attention_mask.queries), (key, attention_mask.keys), (value, attention_mask.keys)]
    to_groups: Any = _ToGroups.apply
    from_groups: Any = _FromGroups.apply
    groups = zip(*(to_groups(states, index) for states, index in sides), attention_mask.allowed, strict=True)
    outputs = [inner(module, *states, allowed, **kwargs)[0] for *states, allowed in groups]
    return from_groups(attention_mask.queries, query.shape[0], *outputs), None


class _ToGroups(torch.autograd.Function):
    """(B, H, L, D) to (N, H, slots, D) for each group.

    A token has at most one slot of its own, so its gradient is gathered from there, while torch would sum over slots.
    Slots that repeat a token add nothing to it: no query may see them as keys, and as queries they see nothing.
    """

    @staticmethod
    def forward(ctx: Any, states: torch.Tensor, index: PackedIndex) -> tuple[torch.Tensor, ...]:
        ctx.index, ctx.shape = index, states.shape
        heads, width = states.shape[1], states.shape[3]
        rows = states.transpose(1, 2).reshape(-1, width)
        head = torch.arange(heads, device=states.device)[:, None]
        return tuple(
            rows.index_select(0, (tokens[:, None] * heads + head).flatten()).view(len(tokens), heads, -1, width)
            for tokens in index.tokens
        )

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, None]:
        index, (batch, heads, length, width) = ctx.index, ctx.shape
        head = torch.arange(heads, device=grads[0].device)
        rows = (index.first * heads + index.offset)[:, None] + index.width[:, None] * head
        grad = _with_zeros(grads, width).index_select(0, rows.flatten())
        return grad.view(batch, length, heads, width).transpose(1, 2), None


class _FromGroups(torch.autograd.Function):
    """(N, slots, H, D) of each group to (B, L, H, D), zero for a token without a slot."""

    @staticmethod
    def forward(ctx: Any, index: PackedIndex, batch: int, *groups: torch.Tensor) -> torch.Tensor:
        ctx.index = index
        heads, width = groups[0].shape[2:]
        rows = _with_zeros(groups, heads * width).index_select(0, index.first + index.offset)
        return rows.view(batch, -1, heads, width)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        rows = grad.flatten(0, 1).flatten(1)
        grads = [
            rows.index_select(0, tokens.flatten()).view(*tokens.shape, *grad.shape[2:]) for tokens in ctx.index.tokens
        ]
        return None, None, *grads


def _with_zeros(groups: tuple[torch.Tensor, ...], width: int) -> torch.Tensor:
    """The numbers of all groups in rows of `width`, and a last row of zeros, for tokens without a slot."""
    rows = [group.reshape(-1, width) for group in groups]
    return torch.cat([*rows, rows[0].new_zeros(1, width)])
