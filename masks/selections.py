"""Different masks for different heads, and for different layers."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from .base import Allowed, Mask, MaskError, Place, Rule, both, contrary, either
from .registry import rule

REST = "rest"


@dataclass(frozen=True, repr=False, init=False)
class _Selection(Rule):
    """A mask for each of some numbers, and one for the rest."""

    masks: tuple[tuple[int, Mask], ...]
    rest: Mask | None
    what: ClassVar[str]

    def __init__(self, masks: Mapping[int | str, Mask | str]):
        if not isinstance(masks, Mapping) or not masks:
            raise MaskError(
                f'{self.name}: expected a mapping like {{0: "window(8)", "rest": "full()"}}, got {masks!r}'
            )
        chosen: dict[int, Mask] = {}
        for key, value in masks.items():
            mask = self.read(value, key)
            for number in () if key == REST else self.numbers(key):
                if number in chosen:
                    raise MaskError(f"{self.name}: {self.what} {number} is named twice; name every {self.what} once")
                chosen[number] = mask
        object.__setattr__(self, "masks", tuple(sorted(chosen.items(), key=lambda pair: pair[0])))
        object.__setattr__(self, "rest", self.read(masks[REST], REST) if REST in masks else None)

    def read(self, mask: Mask | str, key: int | str) -> Mask:
        # Late: to read any text is to know this rule too.
        from .parse import parse

        try:
            read = mask if isinstance(mask, Mask) else parse(mask)
        except MaskError as error:
            raise MaskError(f"{self.name}[{key!r}]: {error}") from error
        if self.name in (part.name for part in read.rules()):
            raise MaskError(f"{self.name}[{key!r}]: {self.name}(...) cannot hold another {self.name}(...)")
        return read

    def numbers(self, key: int | str) -> range:
        match = re.fullmatch(r"(\d{1,9})(?:-(\d{1,9}))?", str(key))
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, -1)
        if not match or first > last or last - first > 10_000:
            raise MaskError(f'{self.name}: {key!r} names no {self.what}s; write 0, "0-3" or "rest"')
        return range(first, last + 1)

    def __str__(self) -> str:
        parts = [f"{key!r}: {mask}" for key, mask in self.groups()]
        parts += [] if self.rest is None else [f"{REST!r}: {self.rest}"]
        return f"{self.name}({{{', '.join(parts)}}})"

    def groups(self) -> list[tuple[int | str, Mask]]:
        """The masks by number, or by range where neighbours have the same."""
        runs: list[tuple[int, int, Mask]] = []
        for number, mask in self.masks:
            first = number
            if runs and runs[-1][1] == number - 1 and runs[-1][2] == mask:
                first = runs.pop()[0]
            runs.append((first, number, mask))
        return [(first if first == last else f"{first}-{last}", mask) for first, last, mask in runs]

    def check_count(self, count: int) -> None:
        """Check that the numbers are those of `count` heads or layers.

        Raises:
            MaskError: one does not exist, or has no mask.
        """
        named = [number for number, _ in self.masks]
        if named and named[-1] >= count:
            raise MaskError(
                f"{self}: {self.what} {named[-1]} does not exist; there are {count} {self.what}s, counted from 0"
            )
        missing = sorted(set(range(count)) - set(named))
        if missing and self.rest is None:
            raise MaskError(f'{self}: no mask for {self.what}s {missing}; name them or add "rest"')

    def values(self) -> Iterable[Mask]:
        return [mask for _, mask in self.masks] + ([] if self.rest is None else [self.rest])

    def rules(self) -> Iterable[Rule]:
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

    def allows(self, q: Place, k: Place) -> Allowed:
        groups = self.groups()
        result = (groups.pop()[1] if self.rest is None else self.rest).allows(q, k)
        for key, mask in groups:
            numbers = self.numbers(key)
            chosen = (numbers[0] <= q.head) & (q.head <= numbers[-1])
            # Where chosen, the mask's answer instead of the result so far.
            result = either(both(mask.allows(q, k), chosen), both(result, contrary(chosen)))
        return result

    def check(self, query: Any, key: Any, heads: int) -> None:
        self.check_count(heads)
        for mask in self.values():
            mask.check(query, key, heads)

    def resolve(self, layer: int, layers: int, training: bool = True) -> Mask:
        resolved = {number: mask.resolve(layer, layers, training) for number, mask in self.masks}
        if self.rest is not None:
            resolved[REST] = self.rest.resolve(layer, layers, training)
        return self if all(a is b for a, b in zip(resolved.values(), self.values(), strict=True)) else heads(resolved)


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

    def allows(self, q: Place, k: Place) -> Allowed:
        raise MaskError(f"{self}: which layer? Choose one: mask.resolve(layer=0, layers=6)")

    def resolve(self, layer: int, layers: int, training: bool = True) -> Mask:
        self.check_count(layers)
        mask = dict(self.masks).get(layer, self.rest)
        return mask.resolve(layer, layers, training)
