"""Positions that an encoder counts by ids: a hidden token would show in those behind it, if it were padding.

RoBERTa and models like it can be told their positions. M2M100 and models like it have a module that counts them; it is
given ids that say of each token only whether it is padding by the attention mask.
"""

from typing import Any

import torch
from torch import nn

from ..seq2seq.pretrained_parts import first_position_of
from .current_call import AttachedCall

Arguments = tuple[tuple[Any, ...], dict[str, Any]]


class CountsTokens:
    """A hook before a module that counts positions by ids. Where something is masked, it counts tokens."""

    def __init__(self, current_call: AttachedCall, first_position: int):
        self.current_call, self.first_position = current_call, first_position

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Arguments | None:
        call = self.current_call.now
        ids = args[0] if args else kwargs.get("input_ids")
        if call is None or call.is_token is None or ids is None:
            return None
        ids = torch.where(call.is_token, self.first_position, self.first_position - 1).expand_as(ids)
        return ((ids, *args[1:]), kwargs) if args else (args, {**kwargs, "input_ids": ids})


def counter_of(encoder: Any) -> nn.Module | None:
    """The module of an encoder that counts positions by ids, and does nothing else with them; None without one."""
    for module in encoder.modules():
        counts = first_position_of(module) and not any(map(first_position_of, module.children()))
        if counts and not any(isinstance(part, nn.Embedding) for part in module.modules()):
            return module
    return None
