"""An audit as a figure: what is allowed, what was measured, and the leaks."""

import os
from textwrap import wrap

import torch

from ..masks.figures import (
    ALLOWED,
    BORDER,
    FORBIDDEN,
    INK,
    PADDING,
    Axes,
    Figure,
    ListedColormap,
    figure_size,
    rule_cells,
    save_png,
    write_side,
)
from ..masks.picture import Side
from .report import AuditReport, Relation

_UNUSED = "#a9c6dc"
_LEAK = "#c8281e"
_COLOURS = (FORBIDDEN, ALLOWED, _UNUSED, _LEAK, PADDING)
_NAMES = ("not allowed", "allowed, has influence", "allowed, has none", "leak")
_MOST_ROWS = 4


def plot(report: AuditReport, path: str | os.PathLike[str] | None, rows: list[int] | None) -> Figure:
    """`AuditReport.plot`."""
    count = len(report.across)
    if rows is None:
        rows = sorted({leak.row for leak in report.leaks}) or list(range(count))
        rows = rows[:_MOST_ROWS]
    if not rows or any(row not in range(count) for row in rows):
        raise ValueError(f"rows must be some of 0 to {count - 1}, the batch's, got {rows}")
    relations = (report.source, report.target)
    sizes = [[figure_size(*_sides(relation, row)) for relation in relations] for row in rows]
    widths = [max(width for width, _ in column) for column in zip(*sizes, strict=True)]
    heights = [max(height for _, height in line) for line in sizes]
    width = sum(widths) + 0.3
    heading = wrap(_heading(report), int(12 * width))
    figure = Figure(figsize=(width, sum(heights) + 0.45 + 0.2 * len(heading)), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.1, h_pad=0.08)
    axes = figure.subplots(len(rows), 2, squeeze=False, width_ratios=widths, height_ratios=heights)
    for row, line in zip(rows, axes, strict=True):
        for relation, ax in zip(relations, line, strict=True):
            _draw(ax, relation, row)
    colour = _LEAK if not report.ok else INK
    figure.suptitle("\n".join(heading), fontsize=9.5, color=colour, parse_math=False)
    _write_legend(figure, report)
    if path is not None:
        save_png(figure, path)
    return figure


def _draw(ax: Axes, relation: Relation, row: int) -> None:
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
        # A shape beside the colour, for those who do not tell colours apart, and for print.
        leaks = relation.leaking[row].nonzero()
        size = 3.2 if max(lines.length, columns.length) <= 32 else 1.6
        ax.plot(leaks[:, 1], leaks[:, 0], "x", color="white", markersize=size, markeredgewidth=1.1)
    found = int(relation.leaking[row].sum())
    what = f"row {row}, from the {relation.side}: " + (f"{found} leak{'s' * (found != 1)}" if found else "no leak")
    ax.set_title(what, fontsize=9, color=_LEAK if found else INK)


def _sides(relation: Relation, row: int) -> tuple[Side, Side]:
    """The tokens that are read, and the outputs: columns and rows of the picture."""
    shape = relation.allowed.shape
    tokens, outputs = (one and one[row] for one in (relation.tokens, relation.target_tokens))
    return Side(f"{relation.side}, read", shape[2], tokens), Side("output at target", shape[1], outputs)


def _heading(report: AuditReport) -> str:
    return str(report).splitlines()[0] + (f": {report.cause}" if report.cause else "")


def _write_legend(figure: Figure, report: AuditReport) -> None:
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
