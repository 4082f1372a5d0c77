"""The pictures of a run: learning curve, alignments, and the masks in force. Needs the plots extra."""

import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from ..configuration.base import MaskedConfig
from ..masks.ascii_plot import Side, View, lay_view
from ..masks.glyphs import fit_fonts
from ..masks.scope import SCOPES, Scope
from ..utils.errors import InputError
from .masks import BORDER, INK, Axes, Figure, figure_size, gallery, rule_cells, save_png, write_side

_TRAIN = "#8a969e"
_EVAL = "#2f6f9f"
_NO_METRICS = ("runtime", "per_second", "preparation_time", "loss")
_LARGEST_VIEW = 48


def learning_curve(
    log_history: Sequence[Mapping[str, float]],
    path: str | os.PathLike[str],
    *,
    metric: str | None = None,
    greater_is_better: bool = True,
) -> Path:
    """Draw training and evaluation loss over steps, and below them the metric, its best value marked.

    Args:
        log_history: `trainer.state.log_history`.
        metric: the metric's name, with or without `eval_`; by default the first that evaluation logged. Without
            evaluation only losses are drawn.
        greater_is_better: which value is the best.

    Raises:
        ValueError: nothing to draw was logged, or not that metric.
        OSError: the file cannot be written.
    """
    losses = {"training": _series(log_history, "loss"), "evaluation": _series(log_history, "eval_loss")}
    metric = _metric(log_history, metric)
    scores = _series(log_history, metric) if metric else []
    if not any(losses.values()) and not scores:
        raise InputError("log_history has neither loss nor metrics to draw; let the Trainer log at least once")
    panels = [bool(any(losses.values())), bool(scores)]
    figure = Figure(figsize=(6.4, 1.0 + 2.4 * sum(panels)), layout="constrained")
    axes = list(figure.subplots(sum(panels), 1, sharex=True, squeeze=False)[:, 0])
    if panels[0]:
        _draw_losses(axes[0], losses)
    if panels[1]:
        _draw_scores(axes[-1], scores, metric.removeprefix("eval_"), max if greater_is_better else min)
    axes[-1].set_xlabel("optimizer step", fontsize=9, color=INK)
    return save_png(figure, path)


def alignment(
    weights: torch.Tensor,
    source_tokens: Sequence[str],
    target_tokens: Sequence[str],
    path: str | os.PathLike[str],
    title: str = "",
) -> Path:
    """Draw how much each target token attends to each source token.

    Args:
        weights: (T, S) or (H, T, S) float; the mean over heads is drawn.
        source_tokens: S of them. target_tokens: T of them.

    Raises:
        ValueError: weights of another shape.
        OSError: the file cannot be written.
    """
    expected = (len(target_tokens), len(source_tokens))
    if weights.ndim not in (2, 3) or tuple(weights.shape[-2:]) != expected or 0 in weights.shape:
        raise InputError(
            f"weights must be (target, source) or (heads, target, source) for {expected[0]} target and "
            f"{expected[1]} source tokens, got {tuple(weights.shape)}"
        )
    weights = weights.detach().float().cpu()
    weights = weights.mean(0) if weights.ndim == 3 else weights
    columns = Side("source", expected[1], tuple(source_tokens))
    rows = Side("target", expected[0], tuple(target_tokens))
    width, height = figure_size(columns, rows)
    figure = Figure(figsize=(max(width + 0.6, 4.0), height + 0.2), layout="constrained")
    ax = figure.add_subplot()
    image = ax.imshow(weights.numpy(), cmap="Blues", vmin=0, vmax=float(weights.max()) or 1, interpolation="nearest")
    rule_cells(ax, *expected)
    write_side(ax, "x", columns)
    write_side(ax, "y", rows)
    bar = figure.colorbar(image, ax=ax, fraction=0.04, pad=0.02, aspect=18)
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=7, length=0, colors=INK)
    bar.set_label("attention weight", fontsize=8, color=INK)
    if title:
        (shown,), families = fit_fonts([title])
        ax.set_title(shown, fontsize=9, color=INK, fontfamily=families, parse_math=False)
    return save_png(figure, path)


def masks_in_force(config: MaskedConfig, path: str | os.PathLike[str]) -> Path:
    """Draw each distinct mask of the encoder, the decoder and the cross-attention, with the layers that it holds for.

    Raises:
        OSError: the file cannot be written.
    """
    views = [view for scope in SCOPES for view in _views(config, scope)]
    return save_png(gallery(views, columns=min(len(views), 4)), path)


def _views(config: MaskedConfig, scope: Scope) -> list[View]:
    """One view for each distinct mask of a scope, titled with its layers."""
    masks = config.layer_masks(scope)
    views = []
    for mask in dict.fromkeys(masks):
        layers = [index for index, other in enumerate(masks) if other == mask]
        which = "all layers" if len(layers) == len(masks) else f"layers {_ranges(layers)}"
        view = lay_view(mask, _telling_length(str(mask)), scope=scope)
        if scope == "cross" and (memory := getattr(config, "memory_length", None)) is not None:
            view = lay_view(mask, min(memory, _LARGEST_VIEW), 12)
            view = replace(view, columns=replace(view.columns, name="memory"))
        views.append(replace(view, title=f"{scope}, {which}\n{mask}"))
    return views


def _telling_length(text: str) -> int:
    """A number of tokens over which a mask's numbers show: a window of 16 shows no band over 12 tokens."""
    largest = max(map(int, re.findall(r"\d+", text)), default=0)
    return min(max(12, 2 * largest), _LARGEST_VIEW)


def _ranges(numbers: Sequence[int]) -> str:
    """Rising numbers, runs joined: [0, 1, 2, 5] is `0-2, 5`."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)


def _series(log_history: Sequence[Mapping[str, float]], name: str) -> list[tuple[int, float]]:
    """Steps and values of what was logged as `name`; of a step that was logged twice, the first value.

    What is evaluated once more when training has ended is a mean of checkpoints.
    """
    return sorted({int(entry["step"]): float(entry[name]) for entry in reversed(log_history) if name in entry}.items())


def _metric(log_history: Sequence[Mapping[str, float]], wanted: str | None) -> str | None:
    logged = dict.fromkeys(name for entry in log_history for name in entry if name.startswith("eval_"))
    metrics = [name for name in logged if not name.endswith(_NO_METRICS)]
    if wanted is None:
        return next(iter(metrics), None)
    name = wanted if wanted.startswith("eval_") else f"eval_{wanted}"
    if name == "eval_loss":  # drawn with the losses
        return None
    if name not in metrics:
        raise InputError(f"{wanted!r} was not logged by evaluation; there are {', '.join(metrics) or 'no metrics'}")
    return name


def _draw_losses(ax: Axes, losses: Mapping[str, list[tuple[int, float]]]) -> None:
    for (name, series), colour, mark in zip(losses.items(), (_TRAIN, _EVAL), (None, "o"), strict=True):
        if series:
            single = "o" if len(series) == 1 else mark
            ax.plot(*zip(*series, strict=True), color=colour, linewidth=1.6, marker=single, markersize=3.5, label=name)
    values = [value for series in losses.values() for _, value in series if value > 0]
    if values and max(values) > 30 * min(values):
        ax.set_yscale("log")
        ax.set_ylabel("loss (log scale)", fontsize=9, color=INK)
    else:
        ax.set_ylabel("loss", fontsize=9, color=INK)
    ax.legend(frameon=False, fontsize=8, labelcolor=INK)
    _tidy(ax)


def _draw_scores(ax: Axes, scores: list[tuple[int, float]], name: str, best: Callable[..., tuple]) -> None:
    ax.plot(*zip(*scores, strict=True), color=_EVAL, linewidth=1.6, marker="o", markersize=3.5)
    finite = [score for score in scores if math.isfinite(score[1])]
    if finite:
        step, value = best(finite, key=lambda score: score[1])
        ax.plot([step], [value], marker="o", markersize=7, color=BORDER, linestyle="none")
        ax.set_title(f"best {name}: {value:.4g} at step {step}", fontsize=9, color=BORDER, loc="right")
    ax.set_ylabel(name, fontsize=9, color=INK)
    _tidy(ax)


def _tidy(ax: Axes) -> None:
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["left", "bottom"]].set_color("#c3cbd1")
    ax.tick_params(which="both", colors=INK, labelsize=8, length=0)
    ax.grid(axis="y", color="#e3e8eb", linewidth=0.8)
    ax.set_axisbelow(True)
    ax.margins(x=0.02)
