"""What a search leaves behind: a table of its trials, and a figure of what mattered. Needs the tune extra."""

from __future__ import annotations

from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from ..utils.atomic_write import write_text
from ..utils.errors import InputError
from .tuning import Tuning
from .tuning_trials import best_of, counted, reason_of

TABLE, FIGURE = "trials.md", "importances.png"
_FEWEST = 4  # complete trials to say what mattered by
_STATES = {
    TrialState.COMPLETE: "",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "running",
}


def write_results(tuning: Tuning) -> dict[str, Any]:
    """Write the table and the figure, and return the best trial for whoever prints it.

    Raises:
        InputError: no trial was complete.
    """
    with tuning.claim_lock:
        study = tuning.study
        best = best_of(study)
        trials = counted(study.get_trials(deepcopy=False))
        if best is None:
            reasons = [reason for trial in trials if (reason := reason_of(trial))]
            raise InputError(
                f"one trial or more must come to its end, got none of {len(trials)}; the last: "
                f"{reasons[-1] if reasons else 'pruned'}"
            )
        importances = importances_of(study)
        write_text(tuning.folder / TABLE, table(tuning, trials, best, importances))
        draw(tuning, importances)
    return {
        "trial": best.number,
        tuning.metric: best.value,
        "values": {one.name: one.suggest(best) for one in tuning.parameters},
        "importances": importances,
        "recipe": str(tuning.winner),
        "trials": len(trials),
    }


def importances_of(study: optuna.Study) -> dict[str, float]:
    """How much each field mattered, the largest first, all together 1; nothing where too few trials are complete.

    By PED-ANOVA (Watanabe et al. 2023, https://arxiv.org/abs/2304.10255).
    """
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    if len(complete) < _FEWEST or len({trial.value for trial in complete}) < 2:
        return {}
    evaluator = optuna.importance.PedAnovaImportanceEvaluator()
    found = optuna.importance.get_param_importances(study, evaluator=evaluator)
    return {name: float(value) for name, value in found.items()}


def table(tuning: Tuning, trials: list[FrozenTrial], best: FrozenTrial, importances: dict[str, float]) -> str:
    """The trials in Markdown, the best first, and what mattered."""
    names = [parameter.name for parameter in tuning.parameters]
    sign = -1 if tuning.greater_is_better else 1
    ranked = sorted(
        trials,
        key=lambda trial: (trial.state != TrialState.COMPLETE, sign * (trial.value or 0.0), trial.number),
    )
    lines = [
        f"# Trials of {tuning.name}",
        "",
        f"The best of {len(trials)} is trial {best.number}, with {tuning.metric} {best.value:.4g}: "
        f"`{tuning.winner.name}`. Made by `{tuning.command}`.",
        "",
        *_rows(["trial", tuning.metric, *names, "seconds", "note"]),
    ]
    for trial in ranked:
        values = [_cell(trial.params.get(name, "")) for name in names]
        seconds = "" if trial.duration is None else f"{trial.duration.total_seconds():.0f}"
        value = trial.value if trial.state == TrialState.COMPLETE else _last(trial)
        shown = "" if value is None else f"{value:.4g}"
        note = reason_of(trial) or _STATES[trial.state]
        lines.append(_row([str(trial.number), shown, *values, seconds, _cell(note)]))
    if importances:
        lines += [
            "",
            "What mattered: the part of each field in the differences between good and other trials (PED-ANOVA).",
            "",
            *_rows(["field", "importance"]),
            *(_row([name, f"{value:.2f}"]) for name, value in importances.items()),
            "",
            f"![What mattered]({FIGURE})",
        ]
    return "\n".join(lines) + "\n"


def draw(tuning: Tuning, importances: dict[str, float]) -> None:
    """Draw what mattered, and every complete trial over each field."""
    from ..plotting.tuning import search_result  # the command's help needs no matplotlib

    complete = tuning.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    order = list(importances) or [parameter.name for parameter in tuning.parameters]
    logs = {parameter.name for parameter in tuning.parameters if parameter.log}
    search_result(
        importances,
        {name: [trial.params[name] for trial in complete] for name in order},
        [trial.value or 0.0 for trial in complete],
        tuning.metric,
        tuning.folder / FIGURE,
        log=logs,
    )


def _last(trial: FrozenTrial) -> float | None:
    steps = trial.intermediate_values
    return steps[max(steps)] if steps else None


def _rows(names: list[str]) -> list[str]:
    return [_row(names), _row(["---"] * len(names))]


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(value: Any) -> str:
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    return " ".join(text.split()).replace("|", "\\|")
