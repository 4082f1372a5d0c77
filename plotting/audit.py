"""The figure of an audit: what is allowed, what was measured, and the leaks."""

import os
from collections.abc import Sequence
from textwrap import wrap
from typing import TYPE_CHECKING

import torch

from ..masks.view import Side, printable
from ..utils.errors import InputError
from .masks import (
    ALLOWED,
    BORDER,
    FORBIDDEN,
    INK,
    PADDING,
    Axes,
    ConstrainedLayoutEngine,
    Figure,
    ListedColormap,
    rule_cells,
    save_png,
    write_side,
)

if TYPE_CHECKING:
    from ..auditing.report import AuditReport, Relation

_UNUSED = "#a9c6dc"
_LEAK = "#c8281e"
_COLOURS = (FORBIDDEN, ALLOWED, _UNUSED, _LEAK, PADDING)
_NAMES = ("not allowed", "allowed, has influence", "allowed, has none", "leak")
_MOST_ROWS = 4
_CELL = 0.24  # inches


def plot(report: "AuditReport", path: str | os.PathLike[str] | None, rows: Sequence[int] | None) -> Figure:
    """`AuditReport.plot`."""
    count = len(report.across)
    if rows is None:
        rows = (sorted({leak.row for leak in report.leaks}) or range(count))[:_MOST_ROWS]
    if not rows or any(row not in range(count) for row in rows):
        raise InputError(f"rows must be some of 0 to {count - 1}, the batch's, got {list(rows)}")
    relations = (report.source, report.target)
    columns = [relation.allowed.shape[2] for relation in relations]
    beside, above = (
        max(_label_inches(relation, row, index) for relation in relations for row in rows) for index in (1, 0)
    )
    width = min(max(sum(columns) * _CELL + beside + 1.0, 5.0), 24.0)
    cell = (width - beside - 1.0) / sum(columns)
    heading = [line for part in report.heading for line in wrap(part, int(12.5 * width))]
    panel = report.source.allowed.shape[1] * cell + above + 0.55
    height = panel * len(rows) + 0.35 + 0.19 * len(heading)
    figure = Figure(figsize=(width, height), layout=ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.06))
    axes = figure.subplots(len(rows), 2, squeeze=False, width_ratios=columns)
    for row, line in zip(rows, axes, strict=True):
        for relation, ax in zip(relations, line, strict=True):
            _draw(ax, relation, row)
        line[1].set_yticks([])
        line[1].set_ylabel("")
    figure.suptitle("\n".join(heading), fontsize=9.5, color=INK, parse_math=False)
    _write_legend(figure, report)
    if path is not None:
        save_png(figure, path)
    return figure


def _draw(ax: Axes, relation: "Relation", row: int) -> None:
    columns, lines = _sides(relation, row)
    cells = relation.allowed[row].long() * torch.where(relation.measured[row], 1, 2)
    padding = (relation.target_segments[row] == 0)[:, None] | (relation.segments[row] == 0)
    cells = torch.where(padding, 4, cells)
    cells = torch.where(relation.leaking[row], 3, cells)
    ax.imshow(cells.numpy(), cmap=ListedColormap(_COLOURS), vmin=0, vmax=4, interpolation="nearest")
    rule_cells(ax, lines.length, columns.length)
    write_side(ax, "x", columns)
    write_side(ax, "y", lines)
    for segments, line in ((relation.segments[row], ax.axvline), (relation.target_segments[row], ax.axhline)):
        for index in range(1, len(segments)):
            if segments[index] != segments[index - 1] and segments[index] and segments[index - 1]:
                line(index - 0.5, color=BORDER, linewidth=1.2)
    if max(lines.length, columns.length) <= 64:
        # A shape besides the colour, for readers who do not distinguish the colours, and for print.
        leaks = relation.leaking[row].nonzero()
        size = 3.2 if max(lines.length, columns.length) <= 32 else 1.6
        ax.plot(leaks[:, 1], leaks[:, 0], "x", color="white", markersize=size, markeredgewidth=1.1)
    count = int(relation.leaking[row].sum())
    caption = f"row {row}: {count or 'no'} leak{'s' * (count > 1)} from the {relation.side}"
    # Below the axes, since above them the lengths of tokens would put the two captions at different heights.
    place = ((0.5, 0), (0, -5), "axes fraction", "offset points")
    ax.annotate(caption, *place, color=_LEAK if count else INK, fontsize=9, ha="center", va="top")


def _sides(relation: "Relation", row: int) -> tuple[Side, Side]:
    """The tokens that are read and the outputs: the columns and the rows of the picture."""
    shape = relation.allowed.shape
    tokens, outputs = (texts[row] if texts else None for texts in (relation.tokens, relation.target_tokens))
    return Side(relation.side, shape[2], tokens), Side("output at target", shape[1], outputs)


def _label_inches(relation: "Relation", row: int, index: int) -> float:
    """The space that the labels of the columns (index 0) or of the rows (index 1) need."""
    tokens = _sides(relation, row)[index].tokens
    return 0.4 if tokens is None else 0.3 + 0.075 * max(len(printable(token)) for token in tokens)


def _write_legend(figure: Figure, report: "AuditReport") -> None:
    shown = [0, 1]
    shown += [2] if report.source.unused.any() or report.target.unused.any() else []
    shown += [3] if report.leaks else []
    marks = []
    ax = figure.axes[0]
    for index in shown:
        marks += ax.plot([], [], "s", color=_COLOURS[index], markersize=7, label=_NAMES[index])
    figure.legend(
        handles=marks, loc="outside lower center", ncols=len(shown), frameon=False, fontsize=8, labelcolor=INK
    )
