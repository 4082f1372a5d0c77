"""Rules of where a target position stands in the source: a slope, or an alignment.

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
    monotonic(slope=2.0, width=1)
    ##....
    .###..
    ...###
    ```

    When to use: a target in the order of its source, as in pronunciation, transliteration or speech, where a band
    around the diagonal helps attention to align (Tachibana et al. 2017, https://arxiv.org/abs/1710.08969). Neighbours:
    `alignment` follows a line that is known; `window(n)` is `monotonic(slope=1.0, width=n)`.

    Args:
        slope: source tokens for a target token, at least 0 and at most 1000, with up to six decimals.
        width: source tokens on either side of the line.

    Raises:
        MaskError: a slope or a width that is none.
    """

    slope: float
    width: int
    name = "monotonic"
    reach_is_exact = True

    def __post_init__(self) -> None:
        self.require_int(width=0)
        if isinstance(self.slope, bool) or not isinstance(self.slope, int | float) or not 0 <= self.slope <= 1000:
            raise MaskError(f"{self.name}: slope must be a number from 0 to 1000, got {brief(self.slope)}")
        object.__setattr__(self, "slope", float(self.slope) + 0.0)  # minus zero is written otherwise, but means zero
        if self.ratio[1] > 10**6:
            raise MaskError(f"{self.name}: slope must have at most six decimals, got {self.slope!r}")

    @cached_property  # made with the mask: no compiler reads the Python of fractions
    def ratio(self) -> tuple[int, int]:
        """The slope as numerator and denominator: integers, so that no rounding moves the border."""
        return Fraction(repr(self.slope)).as_integer_ratio()

    def allows(self, q: TokenPosition, k: TokenPosition) -> Allowed:
        up, down = self.ratio
        ahead = k.position * down - q.position * up
        return (-self.width * down <= ahead) & (ahead <= self.width * down)

    def key_ranges(self, q: TokenPosition, keys: Any) -> list[Range]:
        up, down = self.ratio
        line = q.position * up
        return [(-(-line // down) - self.width, line // down + self.width)]


@rule
@dataclass(frozen=True, repr=False)
class alignment(Rule):
    """A band around a given hard alignment: `|k - points[q]| <= width`.

    ```
    alignment((0, 2, 1))    alignment((0, 2, 1), width=1)
    #...                    ##..
    ..#.                    .###
    .#..                    ###.
    ```

    When to use: alignments are known beforehand, from an aligner, from durations or from markup. Neighbours:
    `monotonic` for a line that is not known.

    Args:
        points: for each target position, from the start token on, the source position that it belongs to; or nothing,
            and `examples`: such a tuple for each example of the batch.
        width: source tokens on either side.

    Raises:
        MaskError: points that are not positions; in a call, an alignment that is shorter than the target, points
            outside of the source, or another number of examples than the batch has.
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
            raise MaskError(f"{self.name}: give either points, for all examples, or examples=, points for each")
        rows: Any = (self.points,) if self.examples is None else self.examples
        if not isinstance(rows, tuple | list) or not all(isinstance(row, tuple | list | range) for row in rows):
            raise MaskError(f"{self.name}: points must be a tuple of source positions, got {brief(rows)}")
        if sum(map(len, rows)) + len(rows) > NUMBERS_LIMIT:
            raise MaskError(
                f"{self.name}: there must be at most {NUMBERS_LIMIT:,} points; give a boolean tensor instead"
            )
        table = tuple(tuple(row) for row in rows)
        for point in (point for row in table for point in row):
            if isinstance(point, bool) or not isinstance(point, int) or not 0 <= point < 2**31:
                raise MaskError(f"{self.name}: a point must be a source position, counted from 0, got {brief(point)}")
        if not table or not all(table):
            raise MaskError(f"{self.name}: an alignment without points; give one for each target position")
        object.__setattr__(self, *(("points", table[0]) if self.examples is None else ("examples", table)))

    def text(self) -> str:
        what = f"{self.points!r}" if self.examples is None else f"examples={self.examples!r}"
        width = f"width={self.width}" if self.width else ""
        parts = (what, width) if self.examples is None else (width, what)
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
                    f"{self.name}: {len(row)} points for a target of {length} positions; give one for each, that of "
                    "the start token included, and limit max_new_tokens in generation"
                )
        for length, row in per_example(self.table, example_lengths(key), self.name):
            if max(row) >= length and not key.may_grow:
                raise MaskError(f"{self.name}: point {max(row)} is outside of the source, which has {length} tokens")
