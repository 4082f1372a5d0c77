"""Attention positions left out by chance, the same ones each time."""

from dataclasses import dataclass, replace

import torch

from ..expressions import Allowed, Mask, MaskError, Rule, TokenPosition
from ..registry import rule
from .positional import full

_32_BITS = 0xFFFFFFFF


@rule
@dataclass(frozen=True, repr=False)
class random(Rule):
    """Forbids each pair with probability `p`, while training; in evaluation it is `full()`.

    ```
    random(p=0.5, seed=0)
    ..##.#.#
    ###....#
    #.....#.
    #..####.
    ```

    Whether a pair is forbidden is a function of `seed`, the layer, the example's number in the batch, the head, and
    the two positions, mixed as integers. So nothing depends on how the pair is computed: in one pass or step by step,
    packed or padded, on which backend or device. With another seed at every call it is dropout of attention positions:

    ```python
    model(**batch, cross_mask=masks.random(p=0.1, seed=step))
    ```

    A config cannot hold it: its one seed would forbid the same pairs at every step.

    When to use: against a decoder that leans on few source positions, or leaks its masks (DropAttention, Zehui et al.
    2019, https://arxiv.org/abs/1907.11065). Neighbours: the config's `attention_dropout` drops weights after the
    softmax, by torch's generator; here the others' weights still sum to one.

    Args:
        p: the probability that a pair is forbidden, from 0 up and below 1.
        seed: an integer from 0 to `2**31 - 1`.
        layer: the layer that the pattern is for; the model fills it in.

    Raises:
        MaskError: a probability, a seed or a layer that is none.
    """

    p: float
    seed: int
    layer: int = 0
    name = "random"

    def __post_init__(self) -> None:
        self.require_int(seed=0, layer=0)
        if isinstance(self.p, bool) or not isinstance(self.p, int | float) or not 0 <= self.p < 1:
            raise MaskError(f"{self.name}: p must be a number from 0 up and below 1, got {self.p!r}")
        object.__setattr__(self, "p", float(self.p))

    def allows(self, q: TokenPosition, k: TokenPosition) -> Allowed:
        state: int | torch.Tensor = _mix(0x2545F491 ^ self.seed)
        # Small tensors first: only the last step is as large as the mask.
        for number in (self.layer, q.example, q.head, q.position, k.position):
            state = _mix(state ^ number)
        return state >= int(self.p * 2**32)

    def for_layer(self, layer: int, layers: int, training: bool = True) -> Mask:
        return replace(self, layer=layer) if training else full()


def _mix(number: int | torch.Tensor) -> int | torch.Tensor:
    """A number of 32 bits spread over all of them, the same for ints and int64 tensors: no product exceeds 63 bits."""
    number = number ^ (number >> 16)
    number = (number * 0x21F0AAAD) & _32_BITS
    number = number ^ (number >> 15)
    number = (number * 0x735A2D97) & _32_BITS
    return number ^ (number >> 15)
