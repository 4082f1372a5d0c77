"""Quality against latency of one model at several waits, as a table and a plot."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..seq2seq.simultaneous.policies import AlignAtt, ReadAll
from ..tasks.base import Example, Task
from ..utils.atomic_write import write_text
from .latency import Latency
from .text import translate

METRICS = ("AL", "LAAL", "DAL")


@dataclass(frozen=True)
class Point:
    """One way to run the model: its policy, and the latency and the scores of the translations."""

    policy: str
    latency: Latency
    scores: dict[str, float | str]


def settings(waits: Iterable[int], margins: Iterable[int], offline: bool) -> dict[str, dict]:
    """Options of `model.stream` by name: wait-k for each of `waits`, AlignAtt for each of `margins`, and offline."""
    chosen: dict[str, dict] = {f"wait-{k}": {"cross_mask": f"wait_k({k})"} for k in waits}
    chosen |= {f"AlignAtt {f}": {"policy": AlignAtt(f)} for f in margins}
    return chosen | ({"offline": {"policy": ReadAll()}} if offline else {})


def measure(
    name: str,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    task: Task,
    examples: Sequence[Example],
    folder: Path,
    **options,
) -> Point:
    """Translate `examples` simultaneously and score them; a log in SimulEval's format is written to `folder`.

    Renamed to `instances.log`, the log `instances-NAME.log` can be read by `simuleval --score-only`.
    """
    translations = list(translate(model, tokenizer, [example.source for example in examples], **options))
    latency = Latency.of(
        [translation.delays for translation in translations],
        [translation.source_length for translation in translations],
        [example.references[0] for example in examples],
    )
    lines = [
        json.dumps(
            {
                "index": index,
                "prediction": translation.text,
                "delays": translation.delays,
                "elapsed": [0] * len(translation.delays),
                "prediction_length": len(translation.delays),
                "reference": example.references[0],
                "source": example.source,
                "source_length": translation.source_length,
            },
            ensure_ascii=False,
        )
        for index, (translation, example) in enumerate(zip(translations, examples, strict=True))
    ]
    write_text(folder / f"instances-{name.replace(' ', '-').lower()}.log", "\n".join(lines) + "\n")
    return Point(name, latency, task.metrics([translation.text for translation in translations], examples))


def write_curve(folder: Path, points: Sequence[Point], metric: str) -> None:
    """Write `curve.md`, `curve.json` and `curve.png` into `folder`.

    Args:
        metric: the score that stands for quality.

    Raises:
        OSError: the folder cannot be written.
        ImportError: matplotlib is not installed.
    """
    rows = [{"policy": p.policy, **p.scores, **asdict(p.latency)} for p in points]
    write_text(folder / "curve.json", json.dumps(rows, indent=2, ensure_ascii=False) + "\n")
    write_text(folder / "curve.md", table(points, metric))
    draw(folder / "curve.png", points, metric)


def table(points: Sequence[Point], metric: str) -> str:
    """The points as a Markdown table; latency is in source words."""
    lines = [f"| policy | {metric} | {' | '.join(METRICS)} |", "|---|" + "---:|" * (1 + len(METRICS))]
    for point in points:
        values = [point.scores[metric], *(getattr(point.latency, name) for name in METRICS)]
        lines.append(f"| {point.policy} | " + " | ".join(f"{value:.2f}" for value in values) + " |")
    return "\n".join(lines) + "\n"


def draw(path: Path, points: Sequence[Point], metric: str) -> None:
    """Draw quality over average lagging: a line for each kind of policy, a dashed level for offline."""
    # Imported here, so that the table needs no matplotlib.
    from ..plotting.masks import ALLOWED, BORDER, INK, Figure, save_png

    figure = Figure(figsize=(5.6, 3.8), layout="constrained")
    ax = figure.add_subplot()
    styles = {"wait-": ("wait-k", ALLOWED, "o"), "AlignAtt ": ("AlignAtt", BORDER, "s")}
    for prefix, (label, colour, marker) in styles.items():
        of_policy = sorted((p for p in points if p.policy.startswith(prefix)), key=lambda p: p.latency.AL)
        if not of_policy:
            continue
        positions = [(p.latency.AL, p.scores[metric]) for p in of_policy]
        ax.plot(*zip(*positions, strict=True), color=colour, marker=marker, markersize=5, label=label)
        for point, position in zip(of_policy, positions, strict=True):
            text = point.policy.removeprefix(prefix)
            ax.annotate(text, position, xytext=(4, -10), textcoords="offset points", fontsize=8, color=INK)
    for point in points:
        if point.policy == "offline":
            label = f"offline (AL {point.latency.AL:.1f})"
            ax.axhline(point.scores[metric], color=INK, linestyle="--", linewidth=1, label=label)
    ax.set_xlabel("average lagging, source words", fontsize=9, color=INK)
    ax.set_ylabel(metric, fontsize=9, color=INK)
    ax.tick_params(labelsize=8, colors=INK)
    ax.grid(alpha=0.25)
    ax.legend(fontsize=8, frameon=False)
    save_png(figure, path)
