"""The call that runs in a thread, for attention that its decoder hands no keywords on to."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from ..masks.expressions import Mask
from ..masks.tensor_mask import TensorMask
from ..seq2seq.current_call import CurrentCall
from .side_masks import SideMasks


@dataclass
class Call:
    """What one call gave, and what its sides compiled.

    Attributes:
        masks: the call's, by name, as `as_mask` reads them.
        passage_ids: (B, S) int64. example_ids: (B,) int64, ascending, which example each row of the target belongs to.
        sides: the compiled masks of `"encoder"` and `"decoder"`, once they run.
        segments: (B, S) and (B, P + T) integers of `"encoder"` and `"decoder"`, of packed rows; else empty.
        positions: (B, S) and (B, T) int64, which ones each side's table is to give, counted from 0; else empty.
        source_positions: (B, S) int64 that a packed call gave.
        is_of_side: whether a side was called by itself, and not by its model.
        is_unmasked: whether neither the call nor the config has a mask that forbids anything, and no row is packed.
    """

    masks: dict[str, Mask | TensorMask | None] = field(default_factory=dict)
    passage_ids: torch.Tensor | None = None
    example_ids: torch.Tensor | None = None
    sides: dict[str, SideMasks | None] = field(default_factory=dict)
    segments: dict[str, torch.Tensor] = field(default_factory=dict)
    positions: dict[str, torch.Tensor] = field(default_factory=dict)
    source_positions: torch.Tensor | None = None
    is_of_side: bool = False
    is_unmasked: bool = False


UNMASKED = Call(is_unmasked=True)
"""Every call in which nothing is masked: its sides have nothing to do, and write nothing into it."""


class AttachedCall(CurrentCall[Call]):
    """The call that runs in this thread, which may be one of a side by itself."""

    def of_side(self) -> Call:
        """The current call, or one that begins where a side is called by itself, and ends with `end_side`."""
        call = self.now
        if call is None or call.is_of_side:  # one that an error ended is still there
            self.set(call := Call(is_of_side=True))
        return call

    def end_side(self) -> None:
        if (call := self.now) is not None and call.is_of_side:
            self.set(None)

    def kept_by(self, checkpoint: Callable[..., Any]) -> "KeepsCall":
        """A checkpoint function under which a layer that is computed again in the backward pass has its call again."""
        return checkpoint if isinstance(checkpoint, KeepsCall) else KeepsCall(self, checkpoint)


@dataclass
class KeepsCall:
    """A function for gradient checkpointing that restores the call of the forward pass."""

    current_call: CurrentCall[Call]
    checkpoint: Callable[..., Any]

    def __call__(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        call = self.current_call.now

        def run(*inputs: Any, **options: Any) -> Any:
            with self.current_call.of(call):
                return function(*inputs, **options)

        return self.checkpoint(run, *args, **kwargs)
