"""Attention in packed rows, example by example: what lies in different examples is never computed.

Letters: B batch, T target length, S source length, H query heads, D head width; N examples with L slots in a group.
"""

from collections.abc import Callable

import torch
from torch import nn

from ..masks.by_example import ExamplesMask, Places
from .dense import AttentionResult


def attention_by_example(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: ExamplesMask,
    inner: Callable[..., AttentionResult],
    **kwargs,
) -> AttentionResult:
    """Any attention inside each example; padding gets zero.

    Args:
        query: (B, H, T, D). key, value: (B, H / groups, S, D).
        inner: attention among the tokens of N examples.

    Returns:
        (B, T, H, D), and None instead of the weights.
    """
    sides = [(query, attention_mask.queries), (key, attention_mask.keys), (value, attention_mask.keys)]
    groups = zip(*(_Part.apply(states, places) for states, places in sides), attention_mask.allowed, strict=True)
    outputs = [inner(module, *states, allowed, **kwargs)[0] for *states, allowed in groups]
    return _Join.apply(attention_mask.queries, query.shape[0], *outputs), None


class _Part(torch.autograd.Function):
    """(B, H, L, D) to (N, H, slots, D) for each group.

    A token is in one slot at most, so the gradient is gathered too, where torch would add up. Slots to spare repeat a
    token, but are forbidden to every query, and queries there see nothing: they have no gradient to add.
    """

    @staticmethod
    def forward(ctx, states: torch.Tensor, places: Places) -> tuple[torch.Tensor, ...]:
        ctx.places, ctx.shape = places, states.shape
        heads, width = states.shape[1], states.shape[3]
        rows = states.transpose(1, 2).reshape(-1, width)
        head = torch.arange(heads, device=states.device)[:, None]
        return tuple(
            rows.index_select(0, (tokens[:, None] * heads + head).flatten()).view(len(tokens), heads, -1, width)
            for tokens in places.tokens
        )

    @staticmethod
    def backward(ctx, *grads: torch.Tensor):
        places, (batch, heads, length, width) = ctx.places, ctx.shape
        head = torch.arange(heads, device=grads[0].device)
        rows = (places.first * heads + places.place)[:, None] + places.width[:, None] * head
        grad = _with_zeros(grads, width).index_select(0, rows.flatten())
        return grad.view(batch, length, heads, width).transpose(1, 2), None


class _Join(torch.autograd.Function):
    """(N, slots, H, D) of each group to (B, L, H, D), zero where a token has no slot."""

    @staticmethod
    def forward(ctx, places: Places, batch: int, *groups: torch.Tensor) -> torch.Tensor:
        ctx.places = places
        heads, width = groups[0].shape[2:]
        rows = _with_zeros(groups, heads * width).index_select(0, places.first + places.place)
        return rows.view(batch, -1, heads, width)

    @staticmethod
    def backward(ctx, grad: torch.Tensor):
        rows = grad.flatten(0, 1).flatten(1)
        grads = [
            rows.index_select(0, tokens.flatten()).view(*tokens.shape, *grad.shape[2:]) for tokens in ctx.places.tokens
        ]
        return None, None, *grads


def _with_zeros(groups: tuple[torch.Tensor, ...], width: int) -> torch.Tensor:
    """The numbers of all groups in rows of `width`, and a row of zeros for what has no slot."""
    rows = [group.reshape(-1, width) for group in groups]
    return torch.cat([*rows, rows[0].new_zeros(1, width)])
