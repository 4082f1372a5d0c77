"""What the docstring of a rule says: what it allows, as pictures, and when to use it.

The gallery, the table in `docs/masks.md` and the tests of all rules are made from it, so that a rule is described in
one place: its class.
"""

import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from .expressions import Allowed, Mask, TokenPosition
from .rules import RULES, parse, register
from .view import View, lay_view

COMBINATIONS = ("causal() | prefix(4)", "wait_k(3) & window(left=4)", "~window(2)", "dilated(3) | window(1)")
"""Masks that the gallery shows besides the rules."""

LENGTH = 12
"""Rows and columns of a mask in the gallery."""

_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_HEADING = re.compile(r"(?P<text>.+\))(?:, (?P<option>head|layer|source_segments|source_passages)=(?P<value>\d+))?")
_WHEN_TO_USE = re.compile(r"^When to use: (.+?)(?:\n\n|\Z)", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Picture:
    """A mask drawn in a docstring.

    Attributes:
        text: the mask's text.
        rows: a string for each query, with `#` for each key that it may see and `.` for the others.
        options: what `lay_view` must know besides: `head`, `layer`, `source_segments` or `source_passages`.
    """

    text: str
    rows: tuple[str, ...]
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def mask(self) -> Mask:
        """The mask that is drawn."""
        return parse(self.text)

    def view(self) -> View:
        """The mask, laid out over the tokens of the picture."""
        return self._laid_out(len(self.rows[0]), len(self.rows), self.options)

    def gallery_view(self) -> View:
        """The mask, laid out over more tokens, unless it has a table of positions, which is no longer than this."""
        if any(rule.uses_lookup_table for rule in self.mask.rules()):
            return self.view()
        options = {
            name: tuple(value[index * len(value) // LENGTH] for index in range(LENGTH))
            if isinstance(value, tuple)
            else value
            for name, value in self.options.items()
        }
        return self._laid_out(LENGTH, LENGTH, options)

    def _laid_out(self, columns: int, rows: int, options: dict[str, Any]) -> View:
        view = lay_view(self.mask, columns, None if "scope" in options else rows, **options)
        drawn_for = [f"{name} {options[name]}" for name in ("head", "layer") if name in options]
        return replace(view, title="; ".join([self.text, *drawn_for]))


def built_in_rules() -> dict[str, Callable[..., Mask]]:
    """The rules of this package by name, in alphabetical order, without those that a user registered."""
    folder = f"{__name__.rpartition('.')[0]}.rules."
    return {name: builder for name, builder in sorted(RULES.items()) if builder.__module__.startswith(folder)}


def summary(builder: Callable[..., Mask]) -> str:
    """The first paragraph of a rule's docstring, in one line: what it allows."""
    return " ".join(_docstring(builder).partition("\n\n")[0].split())


def when_to_use(builder: Callable[..., Mask]) -> str:
    """The paragraph of a rule's docstring that begins with `When to use:`, in one line.

    Raises:
        ValueError: there is none.
    """
    match = _WHEN_TO_USE.search(_docstring(builder))
    if match is None:
        raise ValueError(f"the docstring of {builder.__name__} must have a paragraph that begins with 'When to use: '")
    return " ".join(match[1].split())


def pictures(builder: Callable[..., Mask]) -> list[Picture]:
    """The pictures in a rule's docstring: blocks between ``` and ```, with a mask's text above each picture.

    Pictures stand side by side, two spaces or more apart. The text may be followed by what it is drawn for, as in
    `heads({0: causal(), 'rest': full()}), head=1` or `segments(), source_segments=1122`.

    Raises:
        ValueError: there is none, or one is not of this form.
    """
    blocks = [body for language, body in _BLOCK.findall(_docstring(builder)) if not language]
    drawn = [picture for block in blocks for picture in _read_block(block, builder.__name__)]
    if not drawn:
        raise ValueError(
            f"the docstring of {builder.__name__} must have a picture between ``` and ```: {builder.__name__}(...), "
            "and below it a line of # and . for each query"
        )
    return drawn


def _docstring(builder: Callable[..., Mask]) -> str:
    return inspect.cleandoc(builder.__doc__ or "")


def _read_block(block: str, name: str) -> list[Picture]:
    first, *lines = block.splitlines()
    headings = re.split(r"\s{2,}", first.strip())
    rows = [line.split() for line in lines]
    drawn = []
    for index, heading in enumerate(headings):
        match = _HEADING.fullmatch(heading)
        column = tuple(row[index] for row in rows if len(row) == len(headings))
        if (
            match is None
            or not column
            or len(column) < len(rows)
            or not re.fullmatch(r"[#.]+", "".join(column))
            or len(set(map(len, column))) > 1
        ):
            raise ValueError(
                f"a picture of {name} must be a mask's text with lines of # and . of one length below it, got "
                f"{block!r}"
            )
        drawn.append(Picture(match["text"], column, _options(match["option"], match["value"])))
    return drawn


def _options(name: str | None, value: str) -> dict[str, Any]:
    if name is None:
        return {}
    if name in ("head", "layer"):
        return {name: int(value)}
    return {name: tuple(map(int, value)), "scope": "encoder"}


@register
def even_keys(q: TokenPosition, k: TokenPosition) -> Allowed:
    """The function in the picture of `lookup`."""
    return k.position % 2 == 0


def gallery_views() -> list[View]:
    """Every picture in the docstrings of the rules, larger, and some combinations."""
    shown = [picture for builder in built_in_rules().values() for picture in pictures(builder)]
    return [picture.gallery_view() for picture in shown] + [lay_view(text, LENGTH, LENGTH) for text in COMBINATIONS]
