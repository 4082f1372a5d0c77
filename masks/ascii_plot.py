"""A mask to look at: which rows may see which columns, with tokens on the axes, as text for a terminal.

`figures.py` draws the same view with matplotlib.
"""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from .expressions import Mask, MaskError
from .layout import Layout, lay_out
from .limits import CELLS_LIMIT, brief
from .materialize import compile_mask
from .rules import full, heads, layers, random
from .scope import Scope
from .tensor_mask import MaskLike, TensorMask, as_mask

DEFAULT_LENGTH = 12
_AXES: dict[Scope, tuple[str, str]] = {
    "cross": ("target", "source"),
    "encoder": ("source", "source"),
    "decoder": ("target", "target"),
}
_LONGEST_LABEL = 16


@dataclass(frozen=True)
class Side:
    """One axis: its name, its number of tokens, and the tokens, segments and passages where they are known."""

    name: str
    length: int
    tokens: tuple[str, ...] | None = None
    segments: tuple[int, ...] | None = None
    passages: tuple[int, ...] | None = None

    def layout(self) -> Layout:
        segments, passages = (None if ids is None else torch.tensor([ids]) for ids in (self.segments, self.passages))
        return lay_out(self.length, torch.device("cpu"), segment_ids=segments, passage_ids=passages)


@dataclass(frozen=True, eq=False)
class View:
    """A mask laid out over certain tokens: `allowed` is (T, S) bool, rows are queries, columns are keys."""

    title: str
    allowed: torch.Tensor
    rows: Side
    columns: Side

    @property
    def padding(self) -> torch.Tensor:
        """Where the row or the column is padding: (T, S) bool."""
        row, column = (
            torch.zeros(side.length, dtype=torch.bool) if side.segments is None else torch.tensor(side.segments) == 0
            for side in (self.rows, self.columns)
        )
        return row[:, None] | column[None, :]


def lay_view(
    mask: MaskLike,
    source: int | None = None,
    target: int | None = None,
    *,
    source_tokens: Sequence[str] | None = None,
    target_tokens: Sequence[str] | None = None,
    source_segments: Sequence[int] | None = None,
    target_segments: Sequence[int] | None = None,
    source_passages: Sequence[int] | None = None,
    scope: Scope = "cross",
    head: int = 0,
    layer: int = 0,
) -> View:
    """Lay a mask out over tokens, for `picture` and `figures.plot`.

    Args:
        mask: a mask, its text, or a boolean tensor (T, S), dimensions of size 1 before them allowed.
        source: S, the number of columns (keys); by default that of the tokens or segments, else 12.
        target: T, the number of rows (queries); by default likewise, else that of the columns.
        source_tokens, target_tokens: what to write on the axes; positions are written otherwise.
        source_segments, target_segments: S and T integers, 0 for padding, one number from 1 up for each packed
            example; positions restart in each.
        source_passages: S integers, one number from 0 up for each passage.
        scope: `"cross"`, `"encoder"` or `"decoder"`: names the axes. In the latter two both sides are the same
            sequence, so tokens and segments of the columns stand for the rows' as well.
        head, layer: which one, of a mask that tells them apart.

    Raises:
        MaskError: a mask that cannot be read, or lengths that do not fit together.
    """
    if scope not in _AXES:
        raise MaskError(f"scope must be one of {', '.join(map(repr, _AXES))}, got {scope!r}")
    known = as_mask(mask)
    if known is None:
        raise MaskError("mask: expected a mask, its text or a boolean tensor, got None")
    given = _flat(known) if isinstance(known, TensorMask) else None
    shape = (None, None) if given is None else tuple(given.shape[-2:])
    if scope != "cross" and target is None:
        target_tokens = source_tokens if target_tokens is None else target_tokens
        target_segments = source_segments if target_segments is None else target_segments
    columns = _side("source", _AXES[scope][1], source, source_tokens, source_segments, shape[1], DEFAULT_LENGTH)
    rows = _side("target", _AXES[scope][0], target, target_tokens, target_segments, shape[0], columns.length)
    if source_passages is not None:
        if len(source_passages) != columns.length:
            raise MaskError(
                f"source_passages has {len(source_passages)}, source has {columns.length}; they must agree"
            )
        columns = replace(columns, passages=tuple(map(int, source_passages)))
        rows = rows if scope == "cross" else replace(rows, passages=columns.passages)
    for name, number in (("head", head), ("layer", layer)):
        if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number < 2**31:
            raise MaskError(f"{name} must be a number from 0, got {brief(number)}")
    rule, title = (full(), "tensor") if isinstance(known, TensorMask) else _choose(known, head, layer)
    count = _count(rule, heads, head)
    if rows.length * columns.length * count > CELLS_LIMIT:
        raise MaskError(
            f"a picture must have at most {CELLS_LIMIT:,} cells, got {brief(rows.length)} rows, "
            f"{brief(columns.length)} columns and {count} head{'s' * (count > 1)}; choose fewer, or a lower head"
        )
    allowed = compile_mask(rule, rows.layout(), columns.layout(), given, heads=count)
    if allowed is None:
        allowed = torch.ones(1, 1, rows.length, columns.length, dtype=torch.bool)
    allowed = allowed[0, head if allowed.shape[1] > 1 else 0]
    return View(title, allowed.expand(rows.length, columns.length), rows, columns)


def _choose(mask: Mask, head: int, layer: int) -> tuple[Mask, str]:
    """The mask of one layer, and a title that says of which layer and head the view is, where that matters."""
    chosen = mask.for_layer(layer, _count(mask, layers, layer))
    named = {"layer": layer} if any(isinstance(rule, layers) for rule in mask.rules()) else {}
    if any(isinstance(rule, heads | random) for rule in chosen.rules()):
        named["head"] = head
    return chosen, "; ".join([_title(mask), *(f"{name} {number}" for name, number in named.items())])


def _count(mask: Mask, kind: type[heads | layers], least: int) -> int:
    """A number of heads or layers with which every one that the mask names is there."""
    named = [rule.runs[-1][1] for rule in mask.rules() if isinstance(rule, kind) and rule.runs]
    return max([least, *named]) + 1


def _title(mask: Mask) -> str:
    """The whole text of most masks; what is too long to read is cut."""
    return mask.text() if mask.extent.characters <= 2000 else mask.brief_text()


def picture(mask: MaskLike, source: int | None = None, target: int | None = None, **options: Any) -> str:
    """The mask as text: rows are queries, columns are keys, `#` is allowed, `.` is not, padding is blank.

    ```python
    >>> from crossmask import masks
    >>> print(masks.picture("wait_k(2)", source_tokens=["ein", "Hund", "."], target=2))
    wait_k(2): rows are target, columns source; # allowed, . not
    <BLANKLINE>
        H
      e u
      i n
      n d .
    0 # # .
    1 # # #
    ```

    Args:
        mask, source, target, options: as in `lay_view`: tokens, segments and scope.

    Raises:
        MaskError: a mask that cannot be read, or lengths that do not fit together.
    """
    return render(lay_view(mask, source, target, **options))


def render(view: View) -> str:
    """A view as text, as `picture` describes it."""
    heads = [_cells(label) for label in labels(view.columns)]
    height = max(map(len, heads))
    cell_width = 1 + max((_width(cell) for head in heads for cell in head), default=1)
    names = labels(view.rows)
    margin = max(map(_width, names))
    blank = view.padding.any()
    lines = [
        f"{view.title}: rows are {view.rows.name}, columns {view.columns.name}; # allowed, . not"
        + (", blank is padding" if blank else ""),
        "",
    ]
    for level in range(height):
        cells = [cells[level - height + len(cells)] if level >= height - len(cells) else "" for cells in heads]
        lines.append(" " * margin + " " + "".join(cell + " " * (cell_width - _width(cell)) for cell in cells))
    for name, allowed, padding in zip(names, view.allowed.tolist(), view.padding.tolist(), strict=True):
        marks = [" " if out else "#" if open_ else "." for open_, out in zip(allowed, padding, strict=True)]
        lines.append(" " * (margin - _width(name)) + name + " " + (" " * (cell_width - 1)).join(marks))
    return "\n".join(line.rstrip() for line in lines)


def labels(side: Side) -> list[str]:
    """What stands on the axis: tokens, printable and cut to a length that fits, or positions, none for padding."""
    if side.tokens is None:
        segments = side.segments or (1,) * side.length
        positions = side.layout().positions[0].tolist()
        return [str(position) if segment else "" for position, segment in zip(positions, segments, strict=True)]
    return [printable(token) for token in side.tokens]


def printable(token: str) -> str:
    """A token without control characters, at most 16 characters long; an empty one or a space stays visible."""
    text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in token)
    text = text if text.strip() else "␣" * len(text) or "∅"
    return text if len(text) <= _LONGEST_LABEL else text[: _LONGEST_LABEL - 1] + "…"


def _side(
    argument: str,
    name: str,
    length: int | None,
    tokens: Sequence[str] | None,
    segments: Sequence[int] | None,
    width: int | None,
    default: int,
) -> Side:
    if isinstance(length, list | tuple | str):
        raise MaskError(
            f"{argument} is a number of tokens, got {brief(length)}; write {argument}_tokens=[...] for tokens"
        )
    sizes = {
        argument: length,
        f"{argument}_tokens": None if tokens is None else len(tokens),
        f"{argument}_segments": None if segments is None else len(segments),
        "the tensor": width,
    }
    told = {what: size for what, size in sizes.items() if size is not None}
    if len(set(told.values())) > 1:
        raise MaskError(f"{', '.join(f'{what} has {size}' for what, size in told.items())}; they must be equal")
    length = next(iter(told.values()), default)
    if isinstance(length, bool) or not isinstance(length, int) or length < 1:
        raise MaskError(f"{argument} must be at least 1 token, got {brief(length)}")
    return Side(
        name,
        length,
        None if tokens is None else tuple(tokens),
        None if segments is None else tuple(int(segment) for segment in segments),
    )


def _flat(mask: TensorMask) -> torch.Tensor:
    """A tensor mask of one example and one head: (1, 1, T, S) bool."""
    allowed = mask.allowed.cpu()
    if any(size != 1 for size in allowed.shape[:-2]):
        raise MaskError(f"mask: one picture shows (T, S), got {tuple(allowed.shape)}; choose one example and head")
    return allowed.reshape(1, 1, *allowed.shape[-2:])


def _cells(text: str) -> list[str]:
    """The text character by character, accents with their letter."""
    cells: list[str] = []
    for character in text:
        if cells and _width(character) == 0:
            cells[-1] += character
        else:
            cells.append(character)
    return cells


def _width(text: str) -> int:
    """How many columns of a terminal the text takes."""
    return sum(
        0 if unicodedata.category(c) in ("Mn", "Me") else 2 if unicodedata.east_asian_width(c) in "WF" else 1
        for c in text
    )
