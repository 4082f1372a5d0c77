"""The figure of a classifier: its confusion matrix. Needs the plots extra."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from ..utils.errors import InputError
from .fonts import fit_fonts
from .masks import INK, Figure, rule_cells, save_png

_MOST_NUMBERS = 12  # classes whose counts are written


def confusion_matrix(counts: torch.Tensor, labels: Sequence[str], path: str | os.PathLike[str]) -> Path:
    """Draw how often each class is taken for each: the colour is the part of a row, the number the count.

    Args:
        counts: (C, C) integers, rows are the right classes and columns the predicted ones. labels: C names.

    Raises:
        ValueError: counts of another shape.
        OSError: the file cannot be written.
    """
    if tuple(counts.shape) != (len(labels), len(labels)) or not labels:
        raise InputError(f"counts must be {(len(labels), len(labels))}, one row for each label, got {counts.shape}")
    shares = counts.double() / counts.sum(1, keepdim=True).clamp(min=1)
    size = min(max(0.55 * len(labels) + 1.6, 3.2), 16.0)
    figure = Figure(figsize=(size + 0.6, size), layout="constrained")
    ax = figure.add_subplot()
    image = ax.imshow(shares.numpy(), cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
    rule_cells(ax, len(labels), len(labels))
    names, families = fit_fonts(list(labels))
    places = range(len(labels))
    options: dict[str, Any] = {
        "labels": names,
        "fontsize": 8,
        "color": INK,
        "fontfamily": families,
        "parse_math": False,
    }
    ax.set_xticks(places, rotation=45 if max(map(len, names)) > 4 else 0, **options)
    ax.set_yticks(places, **options)
    ax.set_xlabel("predicted", fontsize=9, color=INK)
    ax.set_ylabel("right", fontsize=9, color=INK)
    if len(labels) <= _MOST_NUMBERS:
        for row in places:
            for column in places:
                color = "white" if shares[row, column] > 0.6 else INK
                ax.text(
                    column, row, f"{int(counts[row, column]):,}", ha="center", va="center", fontsize=8, color=color
                )
    bar = figure.colorbar(image, ax=ax, fraction=0.05, pad=0.03)
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=7, length=0, colors=INK)
    bar.set_label("part of the row", fontsize=8, color=INK)
    return save_png(figure, path)
