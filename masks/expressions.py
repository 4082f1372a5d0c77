"""A mask is a value: a rule of positions, or a combination of rules by `&`, `|` and `~`.

A mask answers one question: may the token at place `q` (the query) see the token at place `k` (the key)? True means
allowed. It is asked with plain integers by `naive.py`, which is the specification, and with broadcast tensors by
`compile.py`, which is the fast path; one expression serves both, so a new rule is a few lines (see `rules.py`).
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import MISSING, Field, dataclass, field, fields
from functools import cached_property
from importlib import import_module
from typing import Any, ClassVar, NamedTuple

import torch

from .limits import DEPTH_LIMIT, RULES_LIMIT, TEXT_LIMIT, brief, shorten


class MaskError(ValueError):
    """A mask that cannot be read, built, combined or run. The message names the offending part and how to fix it."""


Allowed = bool | torch.Tensor


def both(a: Allowed, b: Allowed) -> Allowed:
    """`a & b`. Plain bools and tensors are not mixed in one operation: `torch.jit.trace` has none for them."""
    if isinstance(a, bool):
        return b if a else False
    if isinstance(b, bool):
        return a if b else False
    return a & b


def either(a: Allowed, b: Allowed) -> Allowed:
    """`a | b`, as `both` does it."""
    if isinstance(a, bool):
        return True if a else b
    if isinstance(b, bool):
        return True if b else a
    return a | b


def contrary(a: Allowed) -> Allowed:
    """`not a`."""
    return not a if isinstance(a, bool) else ~a


FAR = 2**38
"""Further than any position."""
EVERYWHERE = (-FAR, FAR)


@dataclass(frozen=True)
class TokenPosition:
    """Where a token stands: integers, or integer tensors that broadcast to (B, H, T, S).

    Attributes:
        position: index inside the token's own segment, counted from 0.
        segment: number of the example in its row, from 1; 0 is padding.
        passage: number of the passage inside the example, from 0; 0 where there are none.
        example: number of the example in the batch, from 0, row by row; hypotheses of one example share it.
        head: the query's attention head, from 0; of no meaning for a key.
    """

    position: int | torch.Tensor
    segment: int | torch.Tensor = 1
    passage: int | torch.Tensor = 0
    example: int | torch.Tensor = 0
    head: int | torch.Tensor = 0


class Extent(NamedTuple):
    """How large a mask is.

    Attributes:
        rules: how many rules it has, those within rules included.
        depth: how deep they are nested.
        characters: about how long its text is.
    """

    rules: int
    depth: int
    characters: int


class Mask:
    """Base of all masks: hashable, compared by value, with a text form that is the Python that builds it."""

    def allows(self, q: TokenPosition, k: TokenPosition) -> Allowed:
        """Whether `q` may see `k`; only comparisons, arithmetic, `&`, `|` and `^` may be used on the positions."""
        raise NotImplementedError

    reach_is_exact: ClassVar[bool] = False
    """Whether the mask allows all that is within its `key_ranges`, which ascend: then its contrary has ranges too."""

    uses_lookup_table: ClassVar[bool] = False
    """Whether the mask looks positions up in a table, which FlexAttention's kernels cannot."""

    def key_ranges(self, q: TokenPosition, keys: Any) -> list[tuple[int | torch.Tensor, int | torch.Tensor]]:
        """Ranges of positions, first and last, outside of which `q` sees no key: a bound, that makes attention cheap.

        Everything by default. Ranges may hold more than the rule allows, never less.

        Args:
            keys: the `layout.Layout` of all keys, for rules whose bound depends on how they are laid out.
        """
        return [EVERYWHERE]

    def check(self, query: Any, key: Any, heads: int) -> None:
        """Check the mask against two sides of a batch and the number of heads, before it is asked about them.

        Args:
            query, key: `layout.Layout` of either side.

        Raises:
            MaskError: it speaks of heads, examples, passages or tokens that are not there.
        """

    def for_layer(self, layer: int, layers: int, training: bool = True) -> "Mask":
        """The mask as it holds in one of `layers` layers, counted from 0, in training or in evaluation.

        Raises:
            MaskError: it speaks of a layer that is not there.
        """
        return self

    def rules(self) -> Iterator["Rule"]:
        """All rules that the mask is made of, in the order of its text."""
        raise NotImplementedError

    @property
    def is_per_example(self) -> bool:
        """Whether one of the rules has a table with a row for each example of one batch."""
        return any(getattr(rule, "examples", None) is not None for rule in self.rules())

    def __and__(self, other: "Mask") -> "Mask":
        return _combine(And((self, other))) if isinstance(other, Mask) else NotImplemented

    def __or__(self, other: "Mask") -> "Mask":
        return _combine(Or((self, other))) if isinstance(other, Mask) else NotImplemented

    def __invert__(self) -> "Mask":
        return self.part if isinstance(self, Not) else _combine(Not(self))

    @cached_property
    def extent(self) -> Extent:
        """How large the mask is."""
        return Extent(1, 1, 0)

    def text(self) -> str:
        """The Python that builds the mask, however long it is."""
        raise NotImplementedError

    def brief_text(self) -> str:
        """The text for an error or a title: in one line, and cut where it is long."""
        return shorten(self.text())

    def __str__(self) -> str:
        """The text that `parse` reads back.

        Raises:
            MaskError: the text is longer than `parse` reads.
        """
        text = self.text()
        if len(text) > TEXT_LIMIT:
            raise MaskError(
                f"a mask's text must have at most {TEXT_LIMIT:,} characters, but that of {self.brief_text()} has "
                f"{len(text):,}; pass the mask itself instead of its text"
            )
        return text

    def __repr__(self) -> str:
        text = self.text()
        return text if len(text) <= TEXT_LIMIT else f"<mask with a text of {len(text):,} characters: {shorten(text)}>"

    def __format__(self, spec: str) -> str:
        # In an error or a title a long mask is cut, not refused.
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
            ImportError: matplotlib is not there; `pip install 'crossmask[plots]'`.
            MaskError: lengths that do not fit together.
        """
        # By name, since the files that a saved model carries are those that an import statement names.
        try:
            figures = import_module("..plotting.masks", __package__)
        except ImportError as error:
            raise ImportError("plots are drawn by the crossmask package: pip install 'crossmask[plots]'") from error
        return figures.plot(self, source, target, **options)


class Rule(Mask):
    """A mask that is not made of others. Subclasses are frozen dataclasses whose fields are the rule's parameters.

    Registered rules are equal if they are of one class and their parameters are equal and of the same types: `1`,
    `1.0` and `True` are three parameters.
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
        given = [(p.name, getattr(self, p.name)) for p in parameters if not self.is_default(p)]
        return f"{self.name}({', '.join(f'{name}={value!r}' for name, value in given)})"

    def is_default(self, parameter: Field[Any]) -> bool:
        """Whether the text form may leave `parameter` out."""
        return parameter.default is not MISSING and bool(getattr(self, parameter.name) == parameter.default)

    def require_int(self, **lowest: int) -> None:
        """Check that parameters are integers, no smaller than `lowest` and below 2**31, so that no sum overflows.

        Raises:
            MaskError: one is not, with the rule, the parameter and what was expected.
        """
        for parameter, bound in lowest.items():
            value = getattr(self, parameter)
            if isinstance(value, bool) or not isinstance(value, int) or value < bound:
                raise MaskError(f"{self.name}: {parameter} must be an integer of at least {bound}, got {brief(value)}")
            if value >= 2**31:
                raise MaskError(f"{self.name}: {parameter} must be smaller than 2**31, got {brief(value)}")


def _extent(value: Any, characters: int = 0) -> Extent:
    """The extent of a rule with a parameter, or with all of them in a tuple."""
    if isinstance(value, Mask):
        return Extent(1 + value.extent.rules, 1 + value.extent.depth, characters + value.extent.characters)
    if not isinstance(value, tuple):
        return Extent(1, 1, characters + (len(value) if isinstance(value, str) else 6))
    if value and type(value[0]) is int and type(value[-1]) is int:
        return Extent(1, 1, characters + 8 * len(value))  # at once, since tables are long
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
        return self if same else _combine(type(self)(tuple(resolved)))

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
        # `|` binds weaker than `&`, so only an Or inside an And needs brackets.
        return self.symbol.join(
            f"({by_text(p)})" if isinstance(self, And) and isinstance(p, Or) else by_text(p) for p in self.parts
        )


class And(_Combination):
    """Allowed where every part allows."""

    symbol = " & "

    def allows(self, q: TokenPosition, k: TokenPosition) -> Allowed:
        result = self.parts[0].allows(q, k)
        for part in self.parts[1:]:
            result = both(result, part.allows(q, k))
        return result


class Or(_Combination):
    """Allowed where at least one part allows."""

    symbol = " | "

    def allows(self, q: TokenPosition, k: TokenPosition) -> Allowed:
        result = self.parts[0].allows(q, k)
        for part in self.parts[1:]:
            result = either(result, part.allows(q, k))
        return result


@dataclass(frozen=True, repr=False)
class Not(Mask):
    """Allowed where the part does not allow. Padding and other segments stay closed all the same."""

    part: Mask
    reason: str = field(default="", compare=False)  # what a mask that never allows was made of

    def allows(self, q: TokenPosition, k: TokenPosition) -> Allowed:
        return contrary(self.part.allows(q, k))

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
    """Simplify combinations by `function`: the laws are made of masks, so they register here on import."""
    _canonical_form.append(function)
    return function


def _combine(mask: Mask) -> Mask:
    """The canonical form, unless a tracer watches, for which another form of the same meaning will do.

    Raises:
        MaskError: the mask is larger than any text of a mask may be.
    """
    if torch.compiler.is_compiling():
        return mask
    combined = _canonical_form[-1](mask)
    check_extent(combined)
    return combined


def by_text(mask: Mask) -> str:
    """The key by which masks are sorted: the text, which a mask keeps where it is short."""
    text = mask.__dict__.get("_text")
    if text is None:
        text = mask.text()
        if len(text) <= 1000:
            mask.__dict__["_text"] = text
    return text


def once(layers: Iterable[Mask]) -> list[Mask]:
    """The masks of layers, each value that several layers share once."""
    return list({id(mask): mask for mask in layers}.values())


def check_extent(mask: Mask) -> None:
    """Check that a mask has no more rules, and is nested no deeper, than a text may be.

    Raises:
        MaskError: it is larger; the message names the limit.
    """
    for what, size, limit in (
        ("rules", mask.extent.rules, RULES_LIMIT),
        ("levels of nesting", mask.extent.depth, DEPTH_LIMIT),
    ):
        if size > limit:
            raise MaskError(
                f"a mask must have at most {limit:,} {what}, but {mask.brief_text()} has {size:,}; join fewer rules, "
                "or give a boolean tensor"
            )
