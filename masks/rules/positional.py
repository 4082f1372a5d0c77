"""Rules that look at positions only. CONTRIBUTING.md says how to add one.

In the pictures rows are queries (target positions), columns are keys (source positions), and `#` is allowed.
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
    full()
    ####
    ####
    ```

    When to use: in encoders, and in the cross-attention of ordinary sequence-to-sequence models (Vaswani et al. 2017,
    https://arxiv.org/abs/1706.03762). It is the default of both.

    See also: `~full()` allows nothing, for a layer or a head that is switched off.
    """

    name = "full"
    reach_is_exact = True

    def allows(self, q: TokenPosition, k: TokenPosition) -> Allowed:
        return True


@rule
@dataclass(frozen=True, repr=False)
class causal(Rule):
    """Only the query's own position and those before it: `k <= q`.

    ```
    causal()
    #...
    ##..
    ###.
    ```

    When to use: in decoders, where it is the default, and in encoders that run while the source arrives.

    See also: `wait_k(1)` allows the same; `chunked(n)` lets an encoder look a little ahead.
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

    When to use: for long sources in which only near context matters (Beltagy et al. 2020,
    https://arxiv.org/abs/2004.05150). The time then grows linearly with the length of the source.

    See also: `blocks` has fixed borders; `window(64) | prefix(4)` lets every query see the first tokens too.

    Raises:
        MaskError: a width is not an integer of at least 0.
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
        """`right` as an integer, which it is once `__post_init__` has run."""
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
    """The first target position sees `k` source tokens, and each later one sees one more.

    ```
    wait_k(2)
    ##...
    ###..
    ####.
    ```

    When to use: in the cross mask, for simultaneous translation (Ma et al. 2019, https://arxiv.org/abs/1810.08398).
    The encoder mask must not look ahead either: `causal()` or `chunked(n)`. A smaller `k` gives less delay and less
    quality.

    See also: `model.stream()` and `crossmask.streaming` translate a source that is still arriving.

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

    When to use: in the decoder mask, `causal() | prefix(n)`, for a prefix that is read in both directions, as in the
    prefix language model (Raffel et al. 2020, https://arxiv.org/abs/1910.10683); `~prefix(n)` hides a header.

    See also: `keep((0, n))` allows the same.

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
    """Only the query's own block of `size` positions: `q // size == k // size`.

    ```
    blocks(2)
    ##..
    ##..
    ..##
    ```

    When to use: for long sources, as local attention with fixed borders (Liu et al. 2018,
    https://arxiv.org/abs/1801.10198).

    See also: `window` moves with the query; `chunked` also allows blocks before the query's own.

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
    """The query's own chunk of `size` positions and `lookback` chunks before it; all earlier ones unless given.

    ```
    chunked(2)    chunked(size=2, lookback=1)
    ##....        ##....
    ##....        ##....
    ####..        ####..
    ####..        ####..
    ######        ..####
    ######        ..####
    ```

    When to use: in encoders that run while the source arrives, a chunk at a time (Zhang et al. 2020,
    https://arxiv.org/abs/2012.05481). They see more context than under `causal()`, for a delay of at most `size - 1`
    tokens.

    See also: `blocks(n)` allows the same as `chunked(n, lookback=0)`.

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
        query_chunk, key_chunk = q.position // self.size, k.position // self.size
        if self.lookback is None:
            return key_chunk <= query_chunk
        return (query_chunk - self.lookback <= key_chunk) & (key_chunk <= query_chunk)

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

    When to use: joined to `window`, to look further for the same time (Beltagy et al. 2020,
    https://arxiv.org/abs/2004.05150), or joined to `causal()`, as the strided heads of sparse transformers (Child et
    al. 2019, https://arxiv.org/abs/1904.10509).

    See also: `heads({0: "dilated(2)", "rest": "full()"})` gives heads strides of their own.

    Raises:
        MaskError: `stride` is not an integer of at least 1.
    """

    stride: int
    name = "dilated"

    def __post_init__(self) -> None:
        self.require_int(stride=1)

    def allows(self, q: TokenPosition, k: TokenPosition) -> Allowed:
        return (q.position - k.position) % self.stride == 0
