"""The figure of a hyperparameter search: which fields mattered, and the metric over each. Needs the plots extra."""

import os
from collections.abc import Collection, Mapping, Sequence
from math import ceil
from pathlib import Path
from typing import Any

from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from ..utils.errors import InputError
from .fonts import fit_fonts
from .masks import INK, Figure, save_png

_BAR = "#2f6f9f"
_COLUMNS = 3
_LONGEST = 22  # characters of a choice's name


def search_result(
    importances: Mapping[str, float],
    values: Mapping[str, Sequence[Any]],
    metric_values: Sequence[float],
    metric: str,
    path: str | os.PathLike[str],
    *,
    log: Collection[str] = (),
) -> Path:
    """Draw a bar for how much each field mattered, and below a dot for each trial over each field.

    Args:
        importances: by the names of fields, or nothing, which draws the dots alone.
        values: of each field, one for each of `metric_values`. log: the fields with a logarithmic axis.

    Raises:
        ValueError: no trials, or a field with another number of values.
        OSError: the file cannot be written.
    """
    lengths = {len(of_field) for of_field in values.values()}
    if lengths != {len(metric_values)} or not metric_values:
        raise InputError(f"fields must have one value for each of {len(metric_values)} trials, got {sorted(lengths)}")
    columns = min(len(values), _COLUMNS)
    rows = ceil(len(values) / columns)
    height = 0.5 + 0.3 * len(importances) if importances else 0
    figure = Figure(figsize=(2.6 * columns + 0.6, height + 2.2 * rows), layout="constrained")
    panels: Any = figure
    if importances:
        parts: Any = figure.subfigures(2, 1, height_ratios=[height, 2.2 * rows])
        panels = parts[1]
        ax = parts[0].subplots()
        places = range(len(importances))
        ax.barh(places, list(importances.values()), color=_BAR, height=0.6)
        ax.set_yticks(places, labels=list(importances), fontsize=8, color=INK)
        ax.invert_yaxis()
        ax.set_xlabel("importance", fontsize=8, color=INK)
        _clean(ax)
    for number, (name, of_field) in enumerate(values.items(), start=1):
        ax = panels.add_subplot(rows, columns, number)
        if all(isinstance(value, int | float) and not isinstance(value, bool) for value in of_field):
            ax.scatter(of_field, metric_values, s=14, color=_BAR, alpha=0.8)
            if name in log:
                ax.set_xscale("log")
                ax.xaxis.set_major_locator(LogLocator(subs=(1.0, 3.0)))
                ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
                ax.xaxis.set_minor_locator(NullLocator())
        else:
            names = list(dict.fromkeys(map(str, of_field)))
            ax.scatter([names.index(str(value)) for value in of_field], metric_values, s=14, color=_BAR, alpha=0.8)
            shown, families = fit_fonts([text[:_LONGEST] for text in names])
            ax.set_xticks(
                range(len(names)), labels=shown, rotation=30, ha="right", fontfamily=families, parse_math=False
            )
            ax.margins(x=0.2)
        ax.set_xlabel(name, fontsize=8, color=INK)
        if number % columns == 1 or columns == 1:
            ax.set_ylabel(metric, fontsize=8, color=INK)
        _clean(ax)
    return save_png(figure, path)


def _clean(ax: Any) -> None:
    ax.tick_params(labelsize=7, colors=INK)
    ax.spines[["top", "right"]].set_visible(False)
