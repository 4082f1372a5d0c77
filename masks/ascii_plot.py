"""A mask as text for a terminal: rows of `#` and `.`, with tokens on the axes."""

import unicodedata
from typing import Any

from .tensor_mask import MaskLike
from .view import View, labels, lay_view


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
        MaskError: the mask cannot be read, or lengths do not fit together.
    """
    return render(lay_view(mask, source, target, **options))


def render(view: View) -> str:
    """A view as text, as `picture` describes it."""
    headings = [_cells(label) for label in labels(view.columns)]
    height = max(map(len, headings))
    cell_width = 1 + max((_width(cell) for heading in headings for cell in heading), default=1)
    names = labels(view.rows)
    margin = max(map(_width, names))
    blank = view.padding.any()
    lines = [
        f"{view.title}: rows are {view.rows.name}, columns {view.columns.name}; # allowed, . not"
        + (", blank is padding" if blank else ""),
        "",
    ]
    for level in range(height):
        cells = [cells[level - height + len(cells)] if level >= height - len(cells) else "" for cells in headings]
        lines.append(" " * margin + " " + "".join(cell + " " * (cell_width - _width(cell)) for cell in cells))
    for name, allowed, padding in zip(names, view.allowed.tolist(), view.padding.tolist(), strict=True):
        marks = [
            " " if is_padding else "#" if is_allowed else "."
            for is_allowed, is_padding in zip(allowed, padding, strict=True)
        ]
        lines.append(" " * (margin - _width(name)) + name + " " + (" " * (cell_width - 1)).join(marks))
    return "\n".join(line.rstrip() for line in lines)


def _cells(text: str) -> list[str]:
    """The text as a list of characters, each with its combining accents."""
    cells: list[str] = []
    for character in text:
        if cells and _width(character) == 0:
            cells[-1] += character
        else:
            cells.append(character)
    return cells


def _width(text: str) -> int:
    """The number of columns that a terminal needs for the text."""
    return sum(
        0 if unicodedata.category(c) in ("Mn", "Me") else 2 if unicodedata.east_asian_width(c) in "WF" else 1
        for c in text
    )
