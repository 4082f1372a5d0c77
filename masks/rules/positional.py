"""Rules of positions alone. To add one: a frozen dataclass with a `name`, parameters and `allows`, under `@rule`.

In the pictures rows are queries (targets), columns are keys (sources), `#` is allowed.
"""

from dataclasses import Field, dataclass
from typing import Any

from ..expressions import FAR, Allowed, Rule, TokenPosition
from ..key_ranges import Range
from ..registry import rule


@rule
@dataclass(frozen=True, repr=False)
class full(Rule):
    """Everything is allowed.

    ```
    ####
    ####
    ```

    When to use: encoders, and the cross-attention of ordinary sequence-to-sequence models (Vaswani et al. 2017,
    https://arxiv.org/abs/1706.03762).
    """

    name = "full"
    reach_is_exact = True

    def allows(self, q: TokenPosition, k: TokenPosition) -> Allowed:
        return q.position == q.position


@rule
@dataclass(frozen=True, repr=False)
class causal(Rule):
    """No look into the future: `k <= q`.

    ```
    #...
    ##..
    ###.
    ```

    When to use: decoders; encoders that must run incrementally. Neighbours: `wait_k(1)` is the same rule.
    """

    name = "causal"
    reach_is_exact = True

    def allows(self, q: TokenPosition, k: TokenPosition) -> Allowed:
        return k.position <= q.position

    def key_ranges(self, q: TokenPosition, keys: Any) -> list[Range]:
        return [(-FAR, q.position)]


@rule
@dataclass(frozen=True, repr=False)
class window(Rule):
    """A band: `q - left <= k <= q + right`; `right` is `left` unless given.

    ```
    window(1)     window(left=2, right=0)
    ##...         #....
    ###..         ##...
    .###.         ###..
    ..###         .###.
    ```

    When to use: long sources whose meaning is local (Beltagy et al. 2020, https://arxiv.org/abs/2004.05150); the cost
    then grows with the window. Neighbours: `blocks` cuts at fixed borders instead of sliding.

    Raises:
        MaskError: a width that is not an integer of at least 0.
    """

    left: int
    right: int | None = None
    name = "window"
    reach_is_exact = True

    def __post_init__(self) -> None:
        if self.right is None:
            object.__setattr__(self, "right", self.left)
        self.require_int(left=0, right=0)

    @property
    def last(self) -> int:
        """`right`, once it is set."""
        return self.left if self.right is None else self.right

    def is_default(self, parameter: Field[Any]) -> bool:
        return parameter.name == "right" and self.right == self.left

    def allows(self, q: TokenPosition, k: TokenPosition) -> Allowed:
        return (q.position - self.left <= k.position) & (k.position <= q.position + self.last)

    def key_ranges(self, q: TokenPosition, keys: Any) -> list[Range]:
        return [(q.position - self.left, q.position + self.last)]


@rule
@dataclass(frozen=True, repr=False)
class wait_k(Rule):
    """The target runs `k` source tokens behind: target position q may read source positions `< q + k`.

    ```
    wait_k(2)
    ##...
    ###..
    ####.
    ```

    When to use: simultaneous translation, in the cross mask (Ma et al. 2019, https://arxiv.org/abs/1810.08398), with
    an encoder mask that does not look ahead either, such as `causal()`.

    Raises:
        MaskError: `k` is not an integer of at least 1.
    """

    k: int
    name = "wait_k"
    reach_is_exact = True

    def __post_init__(self) -> None:
        self.require_int(k=1)

    def allows(self, q: TokenPosition, k: TokenPosition) -> Allowed:
        return k.position < q.position + self.k

    def key_ranges(self, q: TokenPosition, keys: Any) -> list[Range]:
        return [(-FAR, q.position + self.k - 1)]


@rule
@dataclass(frozen=True, repr=False)
class prefix(Rule):
    """Only the first `n` keys of each segment: `k < n`.

    ```
    prefix(2)
    ##...
    ##...
    ```

    When to use: `causal() | prefix(n)` is the prefix language model of Raffel et al. 2020
    (https://arxiv.org/abs/1910.10683); `~prefix(n)` hides a header.

    Raises:
        MaskError: `n` is not an integer of at least 0.
    """

    n: int
    name = "prefix"
    reach_is_exact = True

    def __post_init__(self) -> None:
        self.require_int(n=0)

    def allows(self, q: TokenPosition, k: TokenPosition) -> Allowed:
        return k.position < self.n

    def key_ranges(self, q: TokenPosition, keys: Any) -> list[Range]:
        return [(-FAR, self.n - 1)]


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
    reach_is_exact = True

    def __post_init__(self) -> None:
        self.require_int(size=1)

    def allows(self, q: TokenPosition, k: TokenPosition) -> Allowed:
        return q.position // self.size == k.position // self.size

    def key_ranges(self, q: TokenPosition, keys: Any) -> list[Range]:
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
    reach_is_exact = True

    def __post_init__(self) -> None:
        self.require_int(size=1)
        if self.lookback is not None:
            self.require_int(lookback=0)

    def allows(self, q: TokenPosition, k: TokenPosition) -> Allowed:
        chunk, other = q.position // self.size, k.position // self.size
        if self.lookback is None:
            return other <= chunk
        return (chunk - self.lookback <= other) & (other <= chunk)

    def key_ranges(self, q: TokenPosition, keys: Any) -> list[Range]:
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
        self.require_int(stride=1)

    def allows(self, q: TokenPosition, k: TokenPosition) -> Allowed:
        return (q.position - k.position) % self.stride == 0
