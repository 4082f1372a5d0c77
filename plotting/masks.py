"""Masks as matplotlib figures. Needs the plots extra: `pip install crossmask[plots]`.

Figures are made without pyplot, so that no window opens and no global state changes.
"""

import io
import os
from collections.abc import Sequence
from pathlib import Path
from textwrap import wrap
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from ..masks.tensor_mask import MaskLike
from ..masks.view import Side, View, labels, lay_view
from ..utils.atomic_write import write_bytes
from .fonts import fit_fonts

INK = "#333f48"
ALLOWED = "#2f6f9f"
FORBIDDEN = "#e9edf0"
PADDING = "#ffffff"
BORDER = "#d1731f"
_CELL = 0.24  # inches
_TICKS = 8  # the most positions written on an axis


def plot(
    mask: MaskLike, source: int | None = None, target: int | None = None, *, ax: Axes | None = None, **options
) -> Axes:
    """Draw a mask: dark cells are allowed, pale ones are not, padding is white, orange lines are between examples.

    ```python
    >>> from crossmask import masks
    >>> ax = masks.wait_k(2).plot(target=4, source_tokens=["ein", "Hund", "bellt", "."])
    >>> ax.get_title()
    'wait_k(2)'
    ```

    Args:
        mask, source, target, options: as in `view.lay_view`: tokens, segments and scope.
        ax: where to draw; by default in a new figure, which `ax.figure.savefig(...)` writes.

    Returns:
        the Axes.

    Raises:
        MaskError: the mask cannot be read, or lengths do not fit together.
    """
    view = lay_view(mask, source, target, **options)
    if ax is None:
        ax = Figure(figsize=figure_size(view.columns, view.rows), layout="constrained").add_subplot()
    draw(view, ax, title_width=int(10 * ax.get_figure(root=True).get_figwidth()))
    return ax


def draw(view: View, ax: Axes, *, title_width: int = 26) -> None:
    """Draw a view into an Axes, its title wrapped to `title_width` characters."""
    # Padding is never allowed, so that three colours are enough.
    colours = ListedColormap([FORBIDDEN, ALLOWED, PADDING])
    cells = torch.where(view.padding, 2, view.allowed.long())
    ax.imshow(cells.numpy(), cmap=colours, vmin=0, vmax=2, interpolation="nearest")
    rule_cells(ax, view.rows.length, view.columns.length)
    write_side(ax, "x", view.columns)
    write_side(ax, "y", view.rows)
    for side, line in ((view.columns, ax.axvline), (view.rows, ax.axhline)):
        segments = side.segments or ()
        for index in range(1, len(segments)):
            if segments[index] != segments[index - 1]:
                line(index - 0.5, color=BORDER, linewidth=1.2)
    lines = [part for line in view.title.splitlines() for part in wrap(line, title_width)]
    ax.set_title("\n".join(lines), fontsize=9, color=INK, parse_math=False)


def gallery(views: Sequence[View], *, columns: int = 4) -> Figure:
    """Several views in one figure, `columns` in a row.

    Raises:
        ValueError: there are no views.
    """
    if not views:
        raise ValueError("a gallery must have at least one mask, got none")
    columns = min(columns, len(views))
    rows = -(-len(views) // columns)
    width, height = (max(sizes) for sizes in zip(*(figure_size(v.columns, v.rows) for v in views), strict=True))
    if len(views) > 1:
        width, height = 2.35, 2.35 * height / width + 0.2
    figure = Figure(figsize=(width * columns, height * rows), layout=ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.1))
    for index, view in enumerate(views):
        draw(view, figure.add_subplot(rows, columns, index + 1))
    return figure


def save_png(figure: Figure, path: str | os.PathLike[str], *, dpi: int = 150, description: str | None = None) -> Path:
    """Write a figure as PNG, completely or not at all.

    Args:
        description: what is drawn, for the file's metadata.

    Raises:
        OSError: the file cannot be written; a file that was at `path` is as it was.
    """
    path = Path(path)
    buffer = io.BytesIO()
    # Without the version of matplotlib the same figure gives the same bytes.
    metadata = {"Software": None} | ({} if description is None else {"Description": description})
    figure.savefig(
        buffer, format="png", metadata=metadata, dpi=dpi, facecolor="white", bbox_inches="tight", pad_inches=0.12
    )
    write_bytes(path, buffer.getvalue())
    return path


def figure_size(columns: Side, rows: Side) -> tuple[float, float]:
    """Width and height in inches, so that tokens can be read, 24 inches at most."""
    across, down = (side.length * _CELL for side in (columns, rows))
    beside, above = (_label_inches(side) + 0.6 for side in (rows, columns))
    return min(max(across + beside, 2.6), 24.0), min(max(down + above + 0.3, 2.2), 24.0)


def rule_cells(ax: Axes, rows: int, columns: int) -> None:
    """Draw white lines between cells, thinner ones if there are many, and remove the frame."""
    ax.spines[:].set_visible(False)
    ax.set_xticks([index - 0.5 for index in range(1, columns)], minor=True)
    ax.set_yticks([index - 0.5 for index in range(1, rows)], minor=True)
    ax.tick_params(which="both", length=0, colors=INK, labelsize=8)
    if max(rows, columns) <= 64:
        ax.grid(which="minor", color="white", linewidth=1.2 if max(rows, columns) <= 24 else 0.5)


def write_side(ax: Axes, axis: str, side: Side) -> None:
    """Write the name of a side and its tokens or positions on the `"x"` axis, at the top, or on the `"y"` axis."""
    texts, families = fit_fonts(labels(side))
    most = 160 if side.tokens is not None else _TICKS
    step = -(-side.length // most)
    ticks = range(0, side.length, step)
    # Without parsing formulas, since a dollar sign is a token too.
    style: dict[str, Any] = {"fontfamily": families, "parse_math": False, "fontsize": 8 if side.length <= 80 else 6}
    shown = [texts[index] for index in ticks]
    if axis == "x":
        ax.xaxis.set_ticks_position("none")
        ax.tick_params(axis="x", labeltop=True, labelbottom=False)
        ax.xaxis.set_label_position("top")
        if side.tokens is not None:
            style |= {"rotation": 60, "ha": "left", "va": "center", "rotation_mode": "anchor"}
        ax.set_xticks(ticks, shown, **style)
        ax.set_xlabel(side.name, fontsize=8, color=INK)
    else:
        ax.set_yticks(ticks, shown, **style)
        ax.set_ylabel(side.name, fontsize=8, color=INK)


def _label_inches(side: Side) -> float:
    return 0.08 * max(map(len, fit_fonts(labels(side))[0])) if side.tokens is not None else 0.2
