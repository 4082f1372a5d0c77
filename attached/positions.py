"""Positions of an encoder's or a decoder's tokens, where they are not those of the columns.

In packed rows they are counted inside each example. An encoder that counts them by ids (RoBERTa, M2M100) counts tokens
instead, or a hidden one would show in those behind it, if it were padding.

A side is told by its argument `position_ids` if it has one (BERT, GPT-2, T5Gemma); else by that of its table of
positions (BART and its kin); and else each position is looked up in what the table says of a row (M2M100).
"""

import inspect
from typing import Any

import torch
from torch import nn

from ..seq2seq.pretrained_parts import first_position_of
from .current_call import AttachedCall

Arguments = tuple[tuple[Any, ...], dict[str, Any]]


class GivesPositions:
    """A hook before a table of positions: it is told which ones, or makes a row of all, if it counts by ids.

    Args:
        side: `"encoder"` or `"decoder"`, whose positions these are.
        first_position: where the table counts from, if it counts by ids, else 0.
    """

    def __init__(self, current_call: AttachedCall, side: str, first_position: int):
        self.current_call, self.side, self.first_position = current_call, side, first_position

    def __call__(self, table: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Arguments | None:
        call = self.current_call.now
        positions = None if call is None else call.positions.get(self.side)
        if positions is None:
            return None
        if not self.first_position:
            return args, {**kwargs, "position_ids": positions}
        ids = args[0] if args else kwargs.get("input_ids")
        if ids is None:  # of embeddings it numbers the columns
            return None
        row = torch.full_like(ids, self.first_position)
        return ((row, *args[1:]), kwargs) if args else (args, {**kwargs, "input_ids": row})


class TakesPositions(GivesPositions):
    """A hook after such a table: (B, L, D), or (1, B, L, D) where it took `position_ids` to be of one row."""

    def __call__(self, table: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        call = self.current_call.now
        positions = None if call is None else call.positions.get(self.side)
        if positions is None:
            return output
        if not self.first_position:
            return output.reshape(*positions.shape, -1)
        return output[0].index_select(0, positions.flatten()).view(*positions.shape, -1)


def position_table(side: Any) -> nn.Module | None:
    """The module of a side that can be told which positions to look up, or that counts them by ids; else None."""
    for module in side.modules():
        takes_positions = "position_ids" in inspect.signature(type(module).forward).parameters
        if isinstance(module, nn.Embedding) and takes_positions:
            return module
    return counter_of(side)


def counter_of(side: Any) -> nn.Module | None:
    """The module of a side that counts positions by ids, and does nothing else with them; None without one."""
    for module in side.modules():
        counts = first_position_of(module) and not any(map(first_position_of, module.children()))
        if counts and not any(isinstance(part, nn.Embedding) for part in module.modules()):
            return module
    return None
