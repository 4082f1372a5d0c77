"""Different masks for different heads, and for different layers."""

import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any, ClassVar

from ..expressions import Allowed, Mask, MaskError, Rule, TokenPosition, both, check_extent, contrary, either
from ..key_ranges import Range, ranges_of_any
from ..limits import RULES_LIMIT, brief
from ..parse import parse
from ..registry import rule

REST = "rest"
_LISTED = 12


Runs = tuple[tuple[int, int, Any], ...]
"""First and last number, both inclusive, and what belongs to them; ascending."""


def read_runs(given: Mapping[int | str, Any], what: str, owner: str) -> Runs:
    """The keys of a mapping as ranges of numbers, `"rest"` left out, each with its value.

    Args:
        what: what is numbered, `"head"` or `"layer"`.
        owner: whose mapping it is, for the errors.

    Raises:
        MaskError: too many keys, a key that names no numbers, or a number that is named twice.
    """
    if len(given) > RULES_LIMIT:
        raise MaskError(f"{owner} must have at most {RULES_LIMIT:,} keys, got {len(given):,}; join neighbours: '0-3'")
    runs = []
    for key, value in given.items():
        if key == REST:
            continue
        text = str(key) if type(key) is int and abs(key) < 10**9 else key
        match = re.fullmatch(r"([0-9]{1,9})(?:-([0-9]{1,9}))?", text) if isinstance(text, str) else None
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, -1)
        if first > last:
            raise MaskError(f'{owner}: {brief(key)} names no {what}s; write 0, "0-3" or "rest"')
        runs.append((first, last, value))
    runs.sort(key=lambda run: run[:2])
    for (_, before, _), (after, _, _) in pairwise(runs):
        if after <= before:
            raise MaskError(f"{owner}: {what} {after} is named twice; name every {what} once")
    return tuple(runs)


def missing_numbers(runs: Runs, count: int) -> list[int]:
    """The numbers below `count` that are in no range; no more than an error would list."""
    missing: list[int] = []
    after = 0
    for first, last, _ in (*runs, (count, count, None)):
        missing.extend(range(after, min(first, count, after + _LISTED)))
        after = max(after, last + 1)
        if len(missing) >= _LISTED:
            break
    return missing[:_LISTED]


@dataclass(frozen=True, repr=False, init=False)
class _Selection(Rule):
    """A mask for each of some numbers, and one for the rest."""

    runs: Runs
    rest: Mask | None
    what: ClassVar[str]

    def __init__(self, masks: Mapping[int | str, Mask | str]):
        if not isinstance(masks, Mapping) or not masks:
            raise MaskError(
                f'{self.name}: expected a mapping like {{0: "window(8)", "rest": "full()"}}, got {brief(masks)}'
            )
        ranges = read_runs({key: key for key in masks}, self.what, self.name)
        read = {key: self.read(mask, key) for key, mask in masks.items()}
        self.keep(((first, last, read[key]) for first, last, key in ranges), read.get(REST))

    def keep(self, runs: Iterable[tuple[int, int, Mask]], rest: Mask | None) -> None:
        """Take in masks by ranges; neighbours with the same mask become one."""
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
            raise MaskError(f"{self.name}[{brief(key)}]: {self.name}(...) cannot hold another {self.name}(...)")
        return read

    def text(self) -> str:
        parts = [
            f"{first if first == last else f'{first}-{last}'!r}: {mask.text()}" for first, last, mask in self.runs
        ]
        parts += [] if self.rest is None else [f"{REST!r}: {self.rest.text()}"]
        return f"{self.name}({{{', '.join(parts)}}})"

    @cached_property
    def first_gap(self) -> int:
        """The lowest number that is in no range: masks of many layers are asked for it once for each of them."""
        after = 0
        for first, last, _ in self.runs:
            if first > after:
                break
            after = last + 1
        return after

    def check_count(self, count: int) -> None:
        """Check that the numbers are those of `count` heads or layers.

        Raises:
            MaskError: one does not exist, or has no mask.
        """
        if self.runs and self.runs[-1][1] >= count:
            raise MaskError(
                f"{self.brief_text()}: {self.what} {self.runs[-1][1]} does not exist; there are {count} {self.what}s, "
                "counted from 0"
            )
        if self.rest is None and self.first_gap < count:
            missing = missing_numbers(self.runs, count)
            raise MaskError(f'{self.brief_text()}: no mask for {self.what}s {brief(missing)}; name them or add "rest"')

    def values(self) -> list[Mask]:
        return [mask for _, _, mask in self.runs] + ([] if self.rest is None else [self.rest])

    def rules(self) -> Iterator[Rule]:
        yield self
        for mask in self.values():
            yield from mask.rules()


@rule
class heads(_Selection):
    """A mask for each head.

    The first head of `heads({0: window(0), "rest": causal()})`, and the others:

    ```
    window(0)    causal()
    #...         #...
    .#..         ##..
    ..#.         ###.
    ```

    ```python
    >>> masks.heads({0: "window(8)", "1-2": masks.causal(), "rest": "full()"})
    heads({0: window(left=8), '1-2': causal(), 'rest': full()})
    ```

    When to use: some heads look near and others far (Sukhbaatar et al. 2019, https://arxiv.org/abs/1905.07799); to
    switch a head off, `heads({3: "~full()", "rest": "full()"})`. Neighbours: `layers`.

    Args:
        masks: from a head (`0`), an inclusive range (`"0-3"`) or `"rest"` to a mask or its text.

    Raises:
        MaskError: no such mapping; in a call, a head that does not exist or has no mask.
    """

    name = "heads"
    what = "head"

    def allows(self, q: TokenPosition, k: TokenPosition) -> Allowed:
        runs = list(self.runs)
        result = (runs.pop()[2] if self.rest is None else self.rest).allows(q, k)
        for first, last, mask in runs:
            chosen = (first <= q.head) & (q.head <= last)
            # Where chosen, the mask's answer instead of the result so far.
            result = either(both(mask.allows(q, k), chosen), both(result, contrary(chosen)))
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
        # Not by way of a mapping: its masks are read already.
        result = object.__new__(heads)
        rest = None if self.rest is None else resolved.pop()
        result.keep(((first, last, mask) for (first, last, _), mask in zip(self.runs, resolved, strict=True)), rest)
        return result


@rule
class layers(_Selection):
    """A mask for each layer.

    The first layer of `layers({0: window(0), "rest": causal()})`, and the others:

    ```
    window(0)    causal()
    #...         #...
    .#..         ##..
    ..#.         ###.
    ```

    ```python
    >>> masks.layers({"0-2": "window(8)", "rest": "full()"})
    layers({'0-2': window(left=8), 'rest': full()})
    ```

    When to use: local layers below, global ones above (Beltagy et al. 2020, https://arxiv.org/abs/2004.05150).
    Neighbours: `heads`; a config also takes the mapping as it is.

    Args:
        masks: from a layer (`0`), an inclusive range (`"0-3"`) or `"rest"` to a mask or its text.

    Raises:
        MaskError: no such mapping; in a config or a call, a layer that does not exist or has no mask.
    """

    name = "layers"
    what = "layer"

    def allows(self, q: TokenPosition, k: TokenPosition) -> Allowed:
        raise MaskError(f"{self.brief_text()}: which layer? Choose one: mask.resolve(layer=0, layers=6)")

    def for_layer(self, layer: int, layers: int, training: bool = True) -> Mask:
        self.check_count(layers)
        index = bisect_right(self.runs, layer, key=lambda run: run[0]) - 1
        mask = self.runs[index][2] if index >= 0 and layer <= self.runs[index][1] else self.rest
        assert isinstance(mask, Mask), "check_count found a mask for every layer"
        return mask.for_layer(layer, layers, training)
