"""Different masks for different heads, and for different layers."""

import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any, ClassVar

from ..expressions import (
    Allowed,
    Mask,
    MaskError,
    Rule,
    TokenPosition,
    check_extent,
    logical_and,
    logical_not,
    logical_or,
)
from ..key_ranges import Range, ranges_of_any
from ..limits import RULES_LIMIT, brief
from ..parse import parse
from ..registry import rule

REST = "rest"
_MOST_LISTED = 12  # numbers that an error lists

Runs = tuple[tuple[int, int, Any], ...]
"""Ranges of heads or layers, in ascending order: the first and the last number, both inclusive, and their value."""


def read_runs(mapping: Mapping[int | str, Any], kind: str, owner: str) -> Runs:
    """The keys of a mapping as ranges of numbers, `"rest"` left out, each with its value.

    Args:
        kind: what is numbered, `"head"` or `"layer"`.
        owner: whose mapping it is, for the errors.

    Raises:
        MaskError: there are too many keys, a key is not a number or a range, or two keys have a number in common.
    """
    if len(mapping) > RULES_LIMIT:
        raise MaskError(
            f"{owner} must have at most {RULES_LIMIT:,} keys, got {len(mapping):,}; join neighbours: '0-3'"
        )
    runs = []
    for key, value in mapping.items():
        if key == REST:
            continue
        text = str(key) if type(key) is int and abs(key) < 10**9 else key
        match = re.fullmatch(r"([0-9]{1,9})(?:-([0-9]{1,9}))?", text) if isinstance(text, str) else None
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, -1)
        if first > last:
            raise MaskError(f'{owner}: keys must be numbers of {kind}s, got {brief(key)}; write 0, "0-3" or "rest"')
        runs.append((first, last, value))
    runs.sort(key=lambda run: run[:2])
    for (_, last_before, _), (first, _, _) in pairwise(runs):
        if first <= last_before:
            raise MaskError(f"{owner}: keys must name every {kind} once, got {kind} {first} twice; leave one out")
    return tuple(runs)


def missing_numbers(runs: Runs, count: int) -> list[int]:
    """The numbers below `count` that are in no range, the first twelve of them."""
    missing: list[int] = []
    after = 0
    for first, last, _ in (*runs, (count, count, None)):
        missing.extend(range(after, min(first, count, after + _MOST_LISTED)))
        after = max(after, last + 1)
        if len(missing) >= _MOST_LISTED:
            break
    return missing[:_MOST_LISTED]


@dataclass(frozen=True, repr=False, init=False)
class _Selection(Rule):
    """Masks for ranges of numbers, and one for all other numbers."""

    runs: Runs
    rest: Mask | None
    kind: ClassVar[str]

    def __init__(self, masks: Mapping[int | str, Mask | str]):
        if not isinstance(masks, Mapping) or not masks:
            raise MaskError(
                f'{self.name} must have a mapping like {{0: "window(8)", "rest": "full()"}}, got {brief(masks)}'
            )
        ranges = read_runs({key: key for key in masks}, self.kind, self.name)
        by_key = {key: self.read(mask, key) for key, mask in masks.items()}
        self.set_masks(((first, last, by_key[key]) for first, last, key in ranges), by_key.get(REST))

    def set_masks(self, runs: Iterable[tuple[int, int, Mask]], rest: Mask | None) -> None:
        """Set the masks of ranges; neighbouring ranges with the same mask become one."""
        joined: list[tuple[int, int, Mask]] = []
        for first, last, mask in runs:
            if joined and joined[-1][1] == first - 1 and joined[-1][2] == mask:
                first = joined.pop()[0]
            joined.append((first, last, mask))
        object.__setattr__(self, "runs", tuple(joined))
        object.__setattr__(self, "rest", rest)
        check_extent(self)

    def read(self, mask: Mask | str, key: int | str) -> Mask:
        try:
            read = mask if isinstance(mask, Mask) else parse(mask)
        except MaskError as error:
            raise MaskError(f"{self.name}[{brief(key)}]: {error}") from error
        if self.name in (part.name for part in read.rules()):
            raise MaskError(
                f"{self.name}[{brief(key)}]: a mask in {self.name}(...) must not have {self.name}(...) in it, got "
                f"{read.brief_text()}; write one {self.name}(...)"
            )
        return read

    def text(self) -> str:
        parts = [
            f"{first if first == last else f'{first}-{last}'!r}: {mask.text()}" for first, last, mask in self.runs
        ]
        parts += [] if self.rest is None else [f"{REST!r}: {self.rest.text()}"]
        return f"{self.name}({{{', '.join(parts)}}})"

    @cached_property
    def first_gap(self) -> int:
        """The lowest number that is in no range; kept, since a mask of many layers is asked once for each layer."""
        after = 0
        for first, last, _ in self.runs:
            if first > after:
                break
            after = last + 1
        return after

    def check_count(self, count: int) -> None:
        """Check that the numbers are those of `count` heads or layers.

        Raises:
            MaskError: a number is too high, or a head or layer has no mask.
        """
        if self.runs and self.runs[-1][1] >= count:
            raise MaskError(
                f"{self.brief_text()}: a {self.kind} must be a number from 0 to {count - 1}, since there are {count}, "
                f"got {self.kind} {self.runs[-1][1]}; count them from 0"
            )
        if self.rest is None and self.first_gap < count:
            missing = missing_numbers(self.runs, count)
            raise MaskError(
                f"{self.brief_text()}: every {self.kind} must have a mask, got none for {self.kind}s "
                f"{brief(missing)}; "
                'name them or add "rest"'
            )

    def values(self) -> list[Mask]:
        return [mask for _, _, mask in self.runs] + ([] if self.rest is None else [self.rest])

    def rules(self) -> Iterator[Rule]:
        yield self
        for mask in self.values():
            yield from mask.rules()


@rule
class heads(_Selection):
    """A mask for each head.

    ```
    heads({0: window(0), 'rest': causal()}), head=0    heads({0: window(0), 'rest': causal()}), head=1
    #...                                               #...
    .#..                                               ##..
    ..#.                                               ###.
    ```

    ```python
    >>> masks.heads({0: "window(8)", "1-2": masks.causal(), "rest": "full()"})
    heads({0: window(left=8), '1-2': causal(), 'rest': full()})
    ```

    When to use: if some heads are to look near and others far (Sukhbaatar et al. 2019,
    https://arxiv.org/abs/1905.07799). Time is saved only where all heads of a layer look near. To switch a head off,
    write `heads({3: "~full()", "rest": "full()"})`.

    See also: `layers`.

    Args:
        masks: from a head (`0`), an inclusive range (`"0-3"`) or `"rest"` to a mask or its text.

    Raises:
        MaskError: `masks` is not such a mapping; in a call, a head that does not exist or that has no mask.
    """

    name = "heads"
    kind = "head"

    def allows(self, q: TokenPosition, k: TokenPosition) -> Allowed:
        runs = list(self.runs)
        result = (runs.pop()[2] if self.rest is None else self.rest).allows(q, k)
        for first, last, mask in runs:
            chosen = (first <= q.head) & (q.head <= last)
            # In the chosen heads this mask takes the place of the result so far.
            result = logical_or(logical_and(mask.allows(q, k), chosen), logical_and(result, logical_not(chosen)))
        return result

    def key_ranges(self, q: TokenPosition, keys: Any) -> list[Range]:
        return ranges_of_any(self.values(), q, keys)

    def check(self, query: Any, key: Any, heads: int) -> None:
        self.check_count(heads)
        for mask in self.values():
            mask.check(query, key, heads)

    def for_layer(self, layer: int, layers: int, training: bool = True) -> Mask:
        resolved = [mask.for_layer(layer, layers, training) for mask in self.values()]
        if all(a is b for a, b in zip(resolved, self.values(), strict=True)):
            return self
        # Without the constructor, which would read a mapping again.
        result = object.__new__(heads)
        rest = None if self.rest is None else resolved.pop()
        result.set_masks(
            ((first, last, mask) for (first, last, _), mask in zip(self.runs, resolved, strict=True)), rest
        )
        return result


@rule
class layers(_Selection):
    """A mask for each layer.

    ```
    layers({0: window(0), 'rest': causal()}), layer=0    layers({0: window(0), 'rest': causal()}), layer=1
    #...                                                 #...
    .#..                                                 ##..
    ..#.                                                 ###.
    ```

    ```python
    >>> masks.layers({"0-2": "window(8)", "rest": "full()"})
    layers({'0-2': window(left=8), 'rest': full()})
    ```

    When to use: for local layers below and global ones above (Beltagy et al. 2020, https://arxiv.org/abs/2004.05150).
    Each local layer saves time.

    See also: `heads`. A config takes the mapping too, without `layers(...)` around it.

    Args:
        masks: from a layer (`0`), an inclusive range (`"0-3"`) or `"rest"` to a mask or its text.

    Raises:
        MaskError: `masks` is not such a mapping; in a config or a call, a layer that does not exist or that has no
            mask.
    """

    name = "layers"
    kind = "layer"

    def allows(self, q: TokenPosition, k: TokenPosition) -> Allowed:
        raise MaskError(
            f"{self.brief_text()}: a layer must be chosen before the mask is used, got none; write "
            "mask.for_layer(0, layers=6)"
        )

    def for_layer(self, layer: int, layers: int, training: bool = True) -> Mask:
        self.check_count(layers)
        index = bisect_right(self.runs, layer, key=lambda run: run[0]) - 1
        mask = self.runs[index][2] if index >= 0 and layer <= self.runs[index][1] else self.rest
        assert isinstance(mask, Mask), "check_count has checked that every layer has a mask"
        return mask.for_layer(layer, layers, training)
