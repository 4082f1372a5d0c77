"""Rules that count positions in steps of a size: blocks, chunks, strides. Pictures as in `rules.py`."""

from dataclasses import dataclass
from typing import Any

from .base import FAR, Allowed, Place, Rule
from .registry import rule


@rule
@dataclass(frozen=True, repr=False)
class blocks(Rule):
    """The same block of `size` positions: `q // size == k // size`.

    ```
    blocks(2)
    ##..
    ##..
    ..##
    ```

    When to use: local attention with fixed borders (Liu et al. 2018, https://arxiv.org/abs/1801.10198).
    Neighbours: `window` slides with the query.

    Raises:
        MaskError: `size` is not an integer of at least 1.
    """

    size: int
    name = "blocks"
    tight = True

    def __post_init__(self) -> None:
        self.at_least(size=1)

    def allows(self, q: Place, k: Place) -> Allowed:
        return q.position // self.size == k.position // self.size

    def reach(self, q: Place, keys: Any) -> list[tuple]:
        first = q.position // self.size * self.size
        return [(first, first + self.size - 1)]


@rule
@dataclass(frozen=True, repr=False)
class chunked(Rule):
    """Chunks of `size` positions: one's own, whole, and `lookback` chunks before it; all of them unless given.

    ```
    chunked(2)    chunked(size=2, lookback=1)
    ##....        ##....
    ##....        ##....
    ####..        ####..
    ####..        ####..
    ######        ..####
    ######        ..####
    ```

    When to use: encoders that run as the source arrives, a chunk at a time (Zhang et al. 2020,
    https://arxiv.org/abs/2012.05481): more context than `causal()`, for a delay of up to `size - 1` tokens.
    Neighbours: `blocks(n)` is `chunked(n, lookback=0)`.

    Raises:
        MaskError: `size` is not an integer of at least 1, or `lookback` one of at least 0.
    """

    size: int
    lookback: int | None = None
    name = "chunked"
    tight = True

    def __post_init__(self) -> None:
        self.at_least(size=1)
        if self.lookback is not None:
            self.at_least(lookback=0)

    def allows(self, q: Place, k: Place) -> Allowed:
        chunk, other = q.position // self.size, k.position // self.size
        if self.lookback is None:
            return other <= chunk
        return (chunk - self.lookback <= other) & (other <= chunk)

    def reach(self, q: Place, keys: Any) -> list[tuple]:
        last = q.position // self.size * self.size + self.size - 1
        return [(-FAR if self.lookback is None else last + 1 - (self.lookback + 1) * self.size, last)]


@rule
@dataclass(frozen=True, repr=False)
class dilated(Rule):
    """Every `stride`-th position, counted from the query: `(q - k) % stride == 0`.

    ```
    dilated(2)
    #.#.
    .#.#
    #.#.
    ```

    When to use: together with `window`, a wider view for the same cost (Beltagy et al. 2020,
    https://arxiv.org/abs/2004.05150); with `causal()`, the strided heads of Child et al. 2019
    (https://arxiv.org/abs/1904.10509). Neighbours: several strides on several heads, `heads({0: dilated(2), ...})`.

    Raises:
        MaskError: `stride` is not an integer of at least 1.
    """

    stride: int
    name = "dilated"

    def __post_init__(self) -> None:
        self.at_least(stride=1)

    def allows(self, q: Place, k: Place) -> Allowed:
        return (q.position - k.position) % self.stride == 0
