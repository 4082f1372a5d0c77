"""Rules that say which source position a target position belongs to: a straight line, or a given alignment.

In the pictures rows are target positions (queries), columns are source positions (keys), `#` is allowed.
"""

from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Any

from ..expressions import FAR, Allowed, MaskError, Rule, TokenPosition
from ..key_ranges import Range
from ..limits import NUMBERS_LIMIT, brief
from ..registry import rule
from .per_example import Table, example_lengths, look_up, per_example


@rule
@dataclass(frozen=True, repr=False)
class monotonic(Rule):
    """A band around a straight line, `slope` source tokens for each target token: `|k - slope * q| <= width`.

    ```
    monotonic(slope=0.8, width=1)
    ##...
    ##...
    .##..
    ..##.
    ...##
    ```

    When to use: in the cross mask, for targets in the order of their sources, as in pronunciation, transliteration or
    speech, where a band around the diagonal helps attention to align (Tachibana et al. 2017,
    https://arxiv.org/abs/1710.08969). Source tokens outside of the band are not read.

    See also: `alignment` for an alignment that is known; `window(n)` is `monotonic(slope=1.0, width=n)`.

    Args:
        slope: source tokens for each target token, from 0 to 1000, with at most six decimals.
        width: source tokens on either side of the line, at least 0.

    Raises:
        MaskError: `slope` or `width` is not such a number.
    """

    slope: float
    width: int
    name = "monotonic"
    reach_is_exact = True

    def __post_init__(self) -> None:
        self.require_int(width=0)
        if isinstance(self.slope, bool) or not isinstance(self.slope, int | float) or not 0 <= self.slope <= 1000:
            raise MaskError(f"{self.name}: slope must be a number from 0 to 1000, got {brief(self.slope)}")
        object.__setattr__(self, "slope", float(self.slope) + 0.0)  # -0.0 becomes 0.0, which means the same
        if self.ratio[1] > 10**6:
            raise MaskError(f"{self.name}: slope must have at most six decimals, got {self.slope!r}")

    @cached_property  # computed once, before torch.compile, which cannot follow the code of fractions
    def ratio(self) -> tuple[int, int]:
        """The slope as numerator and denominator: integers, so that rounding cannot move the edge of the band."""
        return Fraction(repr(self.slope)).as_integer_ratio()

    def allows(self, q: TokenPosition, k: TokenPosition) -> Allowed:
        numerator, denominator = self.ratio
        distance = k.position * denominator - q.position * numerator
        return (-self.width * denominator <= distance) & (distance <= self.width * denominator)

    def key_ranges(self, q: TokenPosition, keys: Any) -> list[Range]:
        numerator, denominator = self.ratio
        line = q.position * numerator
        return [(-(-line // denominator) - self.width, line // denominator + self.width)]


@rule
@dataclass(frozen=True, repr=False)
class alignment(Rule):
    """A band around a given alignment: `|k - points[q]| <= width`.

    ```
    alignment((0, 2, 1, 3, 5, 4))    alignment((0, 2, 1, 3, 5, 4), width=1)
    #.....                           ##....
    ..#...                           .###..
    .#....                           ###...
    ...#..                           ..###.
    .....#                           ....##
    ....#.                           ...###
    ```

    When to use: in the cross mask, if alignments are known beforehand, from an aligner, from durations or from markup.
    It needs a point for each target position.

    See also: `monotonic` if only the slope is known.

    Args:
        points: for each target position, from the start token on, the source position that it belongs to.
        width: source tokens on either side of the point, at least 0.
        examples: instead of `points`, a tuple of points for each example of the batch.

    Raises:
        MaskError: `points` are not positions, or are given together with `examples`; in a call, there are fewer points
            than target positions, a point is outside of the source, or the batch has another number of examples.
    """

    points: tuple[int, ...] | None = None
    width: int = 0
    examples: Table | None = None
    name = "alignment"
    reach_is_exact = True
    uses_lookup_table = True

    def __post_init__(self) -> None:
        self.require_int(width=0)
        if (self.points is None) == (self.examples is None):
            got = "neither" if self.points is None else "both"
            raise MaskError(
                f"{self.name} must have either points or examples, got {got}; give points for all examples alike, or "
                "examples=, a tuple of points for each"
            )
        rows: Any = (self.points,) if self.examples is None else self.examples
        if not isinstance(rows, tuple | list) or not all(isinstance(row, tuple | list | range) for row in rows):
            raise MaskError(f"{self.name}: points must be a tuple of source positions, got {brief(rows)}")
        size = sum(map(len, rows)) + len(rows)
        if size > NUMBERS_LIMIT:
            raise MaskError(
                f"{self.name}: points must be at most {NUMBERS_LIMIT:,} numbers, got {size:,}; give a boolean tensor "
                "instead"
            )
        table = tuple(tuple(row) for row in rows)
        for point in (point for row in table for point in row):
            if isinstance(point, bool) or not isinstance(point, int) or not 0 <= point < 2**31:
                raise MaskError(f"{self.name}: a point must be a source position, counted from 0, got {brief(point)}")
        if not table or not all(table):
            raise MaskError(f"{self.name}: points must not be empty, got (); give one for each target position")
        object.__setattr__(self, *(("points", table[0]) if self.examples is None else ("examples", table)))

    def text(self) -> str:
        points = f"{self.points!r}" if self.examples is None else f"examples={self.examples!r}"
        width = f"width={self.width}" if self.width else ""
        parts = (points, width) if self.examples is None else (width, points)
        return f"{self.name}({', '.join(part for part in parts if part)})"

    @property
    def table(self) -> Table:
        return (self.points or (),) if self.examples is None else self.examples

    def allows(self, q: TokenPosition, k: TokenPosition) -> Allowed:
        point = look_up(self.table, q.example, q.position, fill=-FAR)
        return (point - self.width <= k.position) & (k.position <= point + self.width)

    def key_ranges(self, q: TokenPosition, keys: Any) -> list[Range]:
        point = look_up(self.table, q.example, q.position, fill=-FAR)
        return [(point - self.width, point + self.width)]

    def check(self, query: Any, key: Any, heads: int) -> None:
        for length, row in per_example(self.table, example_lengths(query), self.name):
            if length > len(row):
                raise MaskError(
                    f"{self.name}: there must be a point for each of {length} target positions, got {len(row)}; give "
                    "one for each, the start token included, and limit max_new_tokens in generation"
                )
        for length, row in per_example(self.table, example_lengths(key), self.name):
            if max(row) >= length and not key.may_grow:
                raise MaskError(
                    f"{self.name}: a point must be inside of the source, which has {length} tokens, got {max(row)}; "
                    "count its tokens from 0"
                )
