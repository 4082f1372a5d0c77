"""Rules of positions alone. To add one: a frozen dataclass with a `name`, parameters and `allows`, under `@rule`.

Those that count positions in steps of a size are in `chunks.py`.

In the pictures rows are queries (targets), columns are keys (sources), `#` is allowed.
"""

from dataclasses import dataclass
from typing import Any

from .base import FAR, Allowed, Place, Rule
from .registry import rule


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
    tight = True

    def allows(self, q: Place, k: Place) -> Allowed:
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
    tight = True

    def allows(self, q: Place, k: Place) -> Allowed:
        return k.position <= q.position

    def reach(self, q: Place, keys: Any) -> list[tuple]:
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
    tight = True

    def __post_init__(self) -> None:
        if self.right is None:
            object.__setattr__(self, "right", self.left)
        self.at_least(left=0, right=0)

    def is_default(self, parameter) -> bool:
        return parameter.name == "right" and self.right == self.left

    def allows(self, q: Place, k: Place) -> Allowed:
        return (q.position - self.left <= k.position) & (k.position <= q.position + self.right)

    def reach(self, q: Place, keys: Any) -> list[tuple]:
        return [(q.position - self.left, q.position + self.right)]


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
    tight = True

    def __post_init__(self) -> None:
        self.at_least(k=1)

    def allows(self, q: Place, k: Place) -> Allowed:
        return k.position < q.position + self.k

    def reach(self, q: Place, keys: Any) -> list[tuple]:
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
    tight = True

    def __post_init__(self) -> None:
        self.at_least(n=0)

    def allows(self, q: Place, k: Place) -> Allowed:
        return k.position < self.n

    def reach(self, q: Place, keys: Any) -> list[tuple]:
        return [(-FAR, self.n - 1)]
