"""The figure of scores by group. Needs the plots extra."""

import os
from collections.abc import Sequence
from pathlib import Path

from ..utils.errors import InputError
from .fonts import fit_fonts
from .masks import INK, Figure, save_png

_BAR = "#2f6f9f"


def group_scores(
    names: Sequence[str],
    values: Sequence[float],
    intervals: Sequence[tuple[float, float]],
    metric: str,
    path: str | os.PathLike[str],
) -> Path:
    """Draw a bar for each group, with its interval.

    Raises:
        ValueError: no groups, or unequal numbers.
        OSError: the file cannot be written.
    """
    if not names or len({len(names), len(values), len(intervals)}) > 1:
        raise InputError(f"groups must have one value and one interval each, got {len(names)} and {len(values)}")
    figure = Figure(figsize=(6.4, min(0.9 + 0.3 * len(names), 16.0)), layout="constrained")
    ax = figure.add_subplot()
    shown, families = fit_fonts(list(names))
    places = range(len(names))
    below = [max(value - low, 0.0) for value, (low, _) in zip(values, intervals, strict=True)]
    above = [max(high - value, 0.0) for value, (_, high) in zip(values, intervals, strict=True)]
    ax.barh(places, values, color=_BAR, height=0.6, xerr=[below, above], ecolor=INK, capsize=2)
    ax.set_yticks(places, labels=shown, fontsize=8, color=INK, fontfamily=families, parse_math=False)
    ax.invert_yaxis()
    ax.set_xlabel(metric, fontsize=9, color=INK)
    ax.tick_params(labelsize=8, colors=INK)
    ax.spines[["top", "right"]].set_visible(False)
    return save_png(figure, path)
