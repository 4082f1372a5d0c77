"""Pairs of a query and a key that are forbidden at random, the same pairs each time."""

from dataclasses import dataclass, replace

import torch

from ..expressions import Allowed, Mask, MaskError, Rule, TokenPosition
from ..limits import brief
from ..registry import rule
from .positional import full

_32_BITS = 0xFFFFFFFF


@rule
@dataclass(frozen=True, repr=False)
class random(Rule):
    """All but pairs that are forbidden with probability `p`, in training; in evaluation it is `full()`.

    ```
    random(p=0.5, seed=0)
    ..##.#.#
    ###....#
    #.....#.
    #..####.
    ```

    Whether a pair is forbidden is a function of `seed`, the layer, the example's number in the batch, the head, and
    the two positions, mixed as integers. So it is the same in one pass and step by step, packed and padded, and on
    every backend and device. With another seed at every call it is dropout of attention positions:

    ```python
    model(**batch, cross_mask=masks.random(p=0.1, seed=step))
    ```

    A config must not have it: with one seed the same pairs would be forbidden at every step.

    When to use: in training, with a new seed at every step, against a decoder that relies on few source positions
    (DropAttention; Zehui et al. 2019, https://arxiv.org/abs/1907.11065).

    See also: the config's `attention_dropout` drops weights after the softmax, so that the remaining ones do not sum
    to one; here they do.

    Args:
        p: the probability that a pair is forbidden, at least 0 and below 1.
        seed: an integer from 0 to `2**31 - 1`.
        layer: the layer that the pattern is for; the model sets it.

    Raises:
        MaskError: `p`, `seed` or `layer` is not such a number.
    """

    p: float
    seed: int
    layer: int = 0
    name = "random"

    def __post_init__(self) -> None:
        self.require_int(seed=0, layer=0)
        if isinstance(self.p, bool) or not isinstance(self.p, int | float) or not 0 <= self.p < 1:
            raise MaskError(f"{self.name}: p must be a number of at least 0 and below 1, got {brief(self.p)}")
        object.__setattr__(self, "p", float(self.p))

    def allows(self, q: TokenPosition, k: TokenPosition) -> Allowed:
        state: int | torch.Tensor = _mix(0x2545F491 ^ self.seed)
        # Keys last: only that step needs a tensor as large as the mask.
        for number in (self.layer, q.example, q.head, q.position, k.position):
            state = _mix(state ^ number)
        return state >= int(self.p * 2**32)

    def for_layer(self, layer: int, layers: int, training: bool = True) -> Mask:
        return replace(self, layer=layer) if training else full()


def _mix(number: int | torch.Tensor) -> int | torch.Tensor:
    """A hash of a number of 32 bits, the same for ints and int64 tensors, since no product exceeds 63 bits."""
    number = number ^ (number >> 16)
    number = (number * 0x21F0AAAD) & _32_BITS
    number = number ^ (number >> 15)
    number = (number * 0x735A2D97) & _32_BITS
    return number ^ (number >> 15)
