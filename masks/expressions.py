"""A mask is a value: a rule about positions, or rules combined by `&`, `|` and `~`.

A mask answers one question: may the token at position `q` (the query) see the token at position `k` (the key)? True
means allowed. `reference.py`, the specification, asks it with plain integers; `materialize.py`, the fast path, asks it
with tensors that broadcast. One expression serves both, so that a new rule takes a few lines.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import MISSING, Field, dataclass, field, fields
from functools import cached_property
from importlib import import_module
from typing import Any, ClassVar, NamedTuple

import torch

from .limits import DEPTH_LIMIT, RULES_LIMIT, TEXT_LIMIT, brief, shorten


class MaskError(ValueError):
    """A mask cannot be read, built, combined or used. The message names the part at fault and how to fix it."""


Allowed = bool | torch.Tensor


def logical_and(a: Allowed, b: Allowed) -> Allowed:
    """`a & b`, without an operation on a bool and a tensor, which `torch.jit.trace` does not have."""
    if isinstance(a, bool):
        return b if a else False
    if isinstance(b, bool):
        return a if b else False
    return a & b


def logical_or(a: Allowed, b: Allowed) -> Allowed:
    """`a | b`, likewise."""
    if isinstance(a, bool):
        return True if a else b
    if isinstance(b, bool):
        return True if b else a
    return a | b


def logical_not(a: Allowed) -> Allowed:
    """`not a`, of a bool or of a tensor's elements."""
    return not a if isinstance(a, bool) else ~a


FAR = 2**38
"""Larger than any position."""
EVERYWHERE = (-FAR, FAR)
"""The range of all positions."""


@dataclass(frozen=True)
class TokenPosition:
    """Where a token stands: integers, or integer tensors that broadcast to (B, H, T, S).

    Attributes:
        position: index inside the token's own segment, counted from 0.
        segment: number of the example in its row, from 1; 0 is padding.
        passage: number of the passage inside the example, from 0; 0 where there are none.
        example: number of the example in the batch, from 0, row by row; the beams of one example share it.
        head: the query's attention head, from 0; a key has none.
    """

    position: int | torch.Tensor
    segment: int | torch.Tensor = 1
    passage: int | torch.Tensor = 0
    example: int | torch.Tensor = 0
    head: int | torch.Tensor = 0


class Extent(NamedTuple):
    """How large a mask is.

    Attributes:
        rules: the number of rules, rules inside of `heads` and `layers` included.
        depth: how deep they are nested.
        characters: roughly the length of its text.
    """

    rules: int
    depth: int
    characters: int


class Mask:
    """The base of all masks: hashable, compared by value, with a text form that is the Python that builds it."""

    def allows(self, q: TokenPosition, k: TokenPosition) -> Allowed:
        """Whether `q` may see `k`, computed by comparisons, arithmetic, `&`, `|` and `^` only."""
        raise NotImplementedError

    reach_is_exact: ClassVar[bool] = False
    """Whether `key_ranges` are all that the mask allows, and ascend, so that its negation has ranges too."""

    uses_lookup_table: ClassVar[bool] = False
    """Whether the mask looks positions up in a table, which FlexAttention's kernels cannot do."""

    def key_ranges(self, q: TokenPosition, keys: Any) -> list[tuple[int | torch.Tensor, int | torch.Tensor]]:
        """Ranges of positions, first and last, outside of which `q` sees no key: there attention computes nothing.

        Everything by default. Ranges may have more keys than the rule allows, but not fewer.

        Args:
            keys: the `layout.Layout` of all keys, for rules whose ranges depend on it.
        """
        return [EVERYWHERE]

    def check(self, query: Any, key: Any, heads: int) -> None:
        """Check that the mask fits a batch, before it is asked about its tokens.

        Args:
            query, key: the `layout.Layout` of either side.
            heads: the number of attention heads.

        Raises:
            MaskError: the mask names heads, examples, passages or tokens that do not exist.
        """

    def for_layer(self, layer: int, layers: int, training: bool = True) -> "Mask":
        """The mask of one of `layers` layers, counted from 0, in training or in evaluation.

        Raises:
            MaskError: the mask names a layer that does not exist.
        """
        return self

    def rules(self) -> Iterator["Rule"]:
        """All rules of the mask, in the order of its text."""
        raise NotImplementedError

    @property
    def is_per_example(self) -> bool:
        """Whether one of the rules has a table with a row for each example of a batch."""
        return any(getattr(rule, "examples", None) is not None for rule in self.rules())

    def __and__(self, other: "Mask") -> "Mask":
        return as_canonical(And((self, other))) if isinstance(other, Mask) else NotImplemented

    def __or__(self, other: "Mask") -> "Mask":
        return as_canonical(Or((self, other))) if isinstance(other, Mask) else NotImplemented

    def __invert__(self) -> "Mask":
        return self.part if isinstance(self, Not) else as_canonical(Not(self))

    @cached_property
    def extent(self) -> Extent:
        """The size of the mask."""
        return Extent(1, 1, 0)

    def text(self) -> str:
        """The Python that builds the mask, of any length."""
        raise NotImplementedError

    def brief_text(self) -> str:
        """The text for an error or a title: in one line, and shortened if it is long."""
        return shorten(self.text())

    def __str__(self) -> str:
        """The text that `parse` reads back.

        Raises:
            MaskError: the text is longer than `parse` reads.
        """
        text = self.text()
        if len(text) > TEXT_LIMIT:
            raise MaskError(
                f"a mask's text must have at most {TEXT_LIMIT:,} characters, got {len(text):,} in "
                f"{self.brief_text()}; pass the mask itself instead of its text"
            )
        return text

    def __repr__(self) -> str:
        text = self.text()
        return text if len(text) <= TEXT_LIMIT else f"<mask with a text of {len(text):,} characters: {shorten(text)}>"

    def __format__(self, spec: str) -> str:
        # `__str__` refuses long masks; in an error or a title they are shortened.
        return format(repr(self), spec)

    def plot(self, source: int | None = None, target: int | None = None, **options: Any) -> Any:
        """Draw the mask with matplotlib; rows are queries, columns are keys, dark is allowed.

        Args:
            source, target: numbers of columns and rows, 12 unless tokens are given.
            options: `source_tokens`, `target_tokens` to write on the axes; `source_segments`, `target_segments` for
                packed rows; `scope="cross"`, `"encoder"` or `"decoder"`, which names the axes; `ax` to draw into.

        Returns:
            the matplotlib Axes; `mask.plot().figure.savefig("mask.png")` writes a file.

        Raises:
            ImportError: matplotlib is not installed; `pip install 'crossmask[plots]'`.
            MaskError: lengths do not fit together.
        """
        # Not by an import statement: then the file would be written beside every saved model.
        try:
            figures = import_module("..plotting.masks", __package__)
        except ImportError as error:
            raise ImportError(
                "crossmask must be installed with matplotlib to draw a mask; run: pip install 'crossmask[plots]'"
            ) from error
        return figures.plot(self, source, target, **options)


class Rule(Mask):
    """A mask that is not a combination. Subclasses are frozen dataclasses whose fields are the rule's parameters.

    Registered rules are equal if they are of the same class and their parameters are equal and of the same types: `1`,
    `1.0` and `True` are three different parameters.
    """

    name: ClassVar[str]
    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]

    def rules(self) -> Iterator["Rule"]:
        yield self

    @cached_property
    def extent(self) -> Extent:
        return _extent(tuple(getattr(self, parameter.name) for parameter in fields(self)), len(self.name) + 2)

    def text(self) -> str:
        parameters = fields(self)
        if len(parameters) == 1:
            return f"{self.name}({getattr(self, parameters[0].name)!r})"
        written = [(p.name, getattr(self, p.name)) for p in parameters if not self.is_default(p)]
        return f"{self.name}({', '.join(f'{name}={value!r}' for name, value in written)})"

    def is_default(self, parameter: Field[Any]) -> bool:
        """Whether `parameter` has its default, so that the text leaves it out."""
        return parameter.default is not MISSING and bool(getattr(self, parameter.name) == parameter.default)

    def require_int(self, **lowest: int) -> None:
        """Check that parameters are integers from `lowest` up and below 2**31, so that no sum of them overflows.

        Raises:
            MaskError: a parameter is not such an integer.
        """
        for parameter, bound in lowest.items():
            value = getattr(self, parameter)
            if isinstance(value, bool) or not isinstance(value, int) or value < bound:
                raise MaskError(f"{self.name}: {parameter} must be an integer of at least {bound}, got {brief(value)}")
            if value >= 2**31:
                raise MaskError(f"{self.name}: {parameter} must be smaller than 2**31, got {brief(value)}")


def _extent(value: Any, characters: int = 0) -> Extent:
    """The extent of a rule with this parameter, or with these parameters in a tuple."""
    if isinstance(value, Mask):
        return Extent(1 + value.extent.rules, 1 + value.extent.depth, characters + value.extent.characters)
    if not isinstance(value, tuple):
        return Extent(1, 1, characters + (len(value) if isinstance(value, str) else 6))
    if value and type(value[0]) is int and type(value[-1]) is int:
        return Extent(1, 1, characters + 8 * len(value))  # without looking at each number: tables are long
    parts = [_extent(part) for part in value]
    return Extent(
        1 + sum(part.rules - 1 for part in parts),
        max((part.depth for part in parts), default=1),
        characters + 2 + sum(part.characters for part in parts),
    )


@dataclass(frozen=True, repr=False)
class _Combination(Mask):
    parts: tuple[Mask, ...]
    symbol: ClassVar[str]

    def check(self, query: Any, key: Any, heads: int) -> None:
        for part in self.parts:
            part.check(query, key, heads)

    def for_layer(self, layer: int, layers: int, training: bool = True) -> Mask:
        resolved = [part.for_layer(layer, layers, training) for part in self.parts]
        same = all(a is b for a, b in zip(resolved, self.parts, strict=True))
        return self if same else as_canonical(type(self)(tuple(resolved)))

    def rules(self) -> Iterator[Rule]:
        for part in self.parts:
            yield from part.rules()

    @cached_property
    def extent(self) -> Extent:
        extents = [part.extent for part in self.parts]
        return Extent(
            sum(extent.rules for extent in extents),
            1 + max(extent.depth for extent in extents),
            sum(extent.characters + 3 for extent in extents),
        )

    def text(self) -> str:
        # `&` binds more tightly than `|`, so only an Or inside of an And needs brackets.
        return self.symbol.join(
            f"({by_text(p)})" if isinstance(self, And) and isinstance(p, Or) else by_text(p) for p in self.parts
        )


class And(_Combination):
    """Allowed where every part allows."""

    symbol = " & "

    def allows(self, q: TokenPosition, k: TokenPosition) -> Allowed:
        result = self.parts[0].allows(q, k)
        for part in self.parts[1:]:
            result = logical_and(result, part.allows(q, k))
        return result


class Or(_Combination):
    """Allowed where at least one part allows."""

    symbol = " | "

    def allows(self, q: TokenPosition, k: TokenPosition) -> Allowed:
        result = self.parts[0].allows(q, k)
        for part in self.parts[1:]:
            result = logical_or(result, part.allows(q, k))
        return result


@dataclass(frozen=True, repr=False)
class Not(Mask):
    """Allowed where the part does not allow. Padding and other segments remain forbidden."""

    part: Mask
    reason: str = field(default="", compare=False)  # for `~full()`: the text of the contradiction that it came from

    def allows(self, q: TokenPosition, k: TokenPosition) -> Allowed:
        return logical_not(self.part.allows(q, k))

    def check(self, query: Any, key: Any, heads: int) -> None:
        self.part.check(query, key, heads)

    def for_layer(self, layer: int, layers: int, training: bool = True) -> Mask:
        resolved = self.part.for_layer(layer, layers, training)
        return self if resolved is self.part else ~resolved

    def rules(self) -> Iterator[Rule]:
        return self.part.rules()

    @cached_property
    def extent(self) -> Extent:
        return self.part.extent

    def text(self) -> str:
        return f"~({by_text(self.part)})" if isinstance(self.part, _Combination) else f"~{by_text(self.part)}"


_canonical_form: list[Callable[[Mask], Mask]] = []


def canonical_form(function: Callable[[Mask], Mask]) -> Callable[[Mask], Mask]:
    """Simplify combinations by `function`. `equivalence.py`, which imports this module, registers its function so."""
    _canonical_form.append(function)
    return function


def as_canonical(mask: Mask) -> Mask:
    """The canonical form; under `torch.compile`, which cannot follow that code, the mask as it is.

    Raises:
        MaskError: the mask is larger than the text of a mask may be.
    """
    if torch.compiler.is_compiling():
        return mask
    combined = _canonical_form[-1](mask)
    check_extent(combined)
    return combined


def by_text(mask: Mask) -> str:
    """The key by which masks are sorted: the text. A mask keeps its text if it is short."""
    text = mask.__dict__.get("_text")
    if text is None:
        text = mask.text()
        if len(text) <= 1000:
            mask.__dict__["_text"] = text
    return text


def once(layers: Iterable[Mask]) -> list[Mask]:
    """The masks of all layers, without repeating a value that several layers share."""
    return list({id(mask): mask for mask in layers}.values())


def check_extent(mask: Mask) -> None:
    """Check that a mask is no larger than the text of a mask may be.

    Raises:
        MaskError: it has too many rules, or is nested too deep; the message names the limit.
    """
    for unit, size, limit in (
        ("rules", mask.extent.rules, RULES_LIMIT),
        ("levels of nesting", mask.extent.depth, DEPTH_LIMIT),
    ):
        if size > limit:
            raise MaskError(
                f"a mask must have at most {limit:,} {unit}, got {size:,} in {mask.brief_text()}; join fewer rules, "
                "or give a boolean tensor"
            )
