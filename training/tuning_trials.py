"""The trials of a search: chosen, run, pruned, and tried again after a kill. Needs the tune extra.

Several processes may work on one study. A trial's folder is locked while its process lives: a trial that is running
and whose folder can be locked was killed.
"""

from __future__ import annotations

import gc
import json
import shutil
import sys
import time
from typing import Any

import numpy as np
import optuna
import torch
from optuna.trial import FrozenTrial, TrialState
from transformers import TrainerCallback

from ..masks.expressions import MaskError
from ..utils.atomic_write import write_text
from ..utils.errors import InputError
from .checkpoint_averaging import load_average_if_better
from .divergence import DivergedError
from .run import PreparedRun
from .run_directory import lock_folder, remove_checkpoints
from .search_space import with_values
from .tuning import OUTPUT, Tuning, prepare_trial, silence, yaml_of

ATTEMPTS = 3  # of a trial whose process is killed
_RETRY_OF, _REASON = "retry_of", "reason"


class Pruning(TrainerCallback):
    """Tells a trial what every evaluation gave, and ends one that is worse than the median of the others.

    Evaluations are counted: those of trials with batches of other sizes are after other numbers of steps.
    """

    def __init__(self, trial: optuna.Trial, metric: str) -> None:
        self.trial, self.metric = trial, metric
        self.values: list[float] = []

    def on_evaluate(self, args: Any, state: Any, control: Any, **options: Any) -> None:
        value = float(options["metrics"][self.metric])
        self.values.append(value)
        self.trial.report(value, len(self.values))
        if state.global_step < state.max_steps and self.trial.should_prune():
            raise optuna.TrialPruned


def work(tuning: Tuning) -> None:
    """Run trials until there are enough."""
    while (trial := claim(tuning)) is not None:
        number, begin = trial.number, time.monotonic()
        values = {parameter.name: parameter.suggest(trial) for parameter in tuning.parameters}
        say(tuning, f"trial {number}: {shown(values)}")
        outcome = run_trial(tuning, trial, values)
        with tuning.claim_lock:
            keep_best(tuning)
            release_folder(tuning, number)
        say(tuning, f"trial {number}: {outcome}, {time.monotonic() - begin:.0f} s")


def claim(tuning: Tuning) -> optuna.Trial | None:
    """A trial to run, whose folder is locked; None if there are enough."""
    study = tuning.study
    with tuning.claim_lock:
        reclaim(tuning)
        trials = study.get_trials(deepcopy=False)
        if len(counted(trials)) >= tuning.trials:
            return None
        # By the number of the trial, so that a search that was killed draws on, and processes do not draw alike.
        seed = np.random.SeedSequence((tuning.seed, len(trials))).generate_state(1)[0]
        study.sampler = optuna.samplers.TPESampler(seed=int(seed), constant_liar=True)
        trial = study.ask()
        for parameter in tuning.parameters:
            parameter.suggest(trial)
        lock_folder(tuning.trial_folder(trial.number))
    return trial


def counted(trials: list[FrozenTrial]) -> list[FrozenTrial]:
    """The trials that are finished or running, without those that were killed and are tried again."""
    again = {trial.user_attrs.get(_RETRY_OF) for trial in trials}
    return [trial for trial in trials if trial.state != TrialState.WAITING and trial.number not in again]


def reclaim(tuning: Tuning) -> None:
    """Count trials whose process was killed as failed, and put their values up again."""
    trials = {trial.number: trial for trial in tuning.study.get_trials(deepcopy=False)}
    again = {trial.user_attrs.get(_RETRY_OF) for trial in trials.values()}
    for number, trial in trials.items():
        if trial.state != TrialState.RUNNING or is_alive(tuning, number):
            continue
        attempts, earlier = 1, trial
        while (before := earlier.user_attrs.get(_RETRY_OF)) is not None:
            attempts, earlier = attempts + 1, trials[before]
        if attempts < ATTEMPTS and number not in again:
            tuning.study.enqueue_trial(trial.params, user_attrs={_RETRY_OF: number})
        tuning.study.tell(number, state=TrialState.FAIL)
        shutil.rmtree(tuning.trial_folder(number), ignore_errors=True)
        say(tuning, f"trial {number}: its process was killed")


def is_alive(tuning: Tuning, number: int) -> bool:
    """Whether another process runs a trial."""
    try:
        lock = lock_folder(tuning.trial_folder(number))
    except InputError:
        return True
    lock.release(force=True)
    return False


def release_folder(tuning: Tuning, number: int) -> None:
    lock_folder(tuning.trial_folder(number)).release(force=True)


def run_trial(tuning: Tuning, trial: optuna.Trial, values: dict[str, Any]) -> str:
    """Train, tell the study what came of it, and return that in words."""
    folder, study = tuning.trial_folder(trial.number), tuning.study
    try:
        with silence(folder / OUTPUT):
            value = train(
                tuning, trial, prepare_trial(with_values(tuning.recipe, values), folder, **tuning_options(tuning))
            )
    except optuna.TrialPruned:
        study.tell(trial, state=TrialState.PRUNED)
        return "pruned"
    except DivergedError as error:
        trial.set_user_attr(_REASON, str(error))
        study.tell(trial, state=TrialState.PRUNED)  # and not as failed: the sampler should keep away from it
        return f"diverged, {error}"
    except (InputError, MaskError, torch.OutOfMemoryError) as error:
        trial.set_user_attr(_REASON, " ".join(str(error).split()))
        study.tell(trial, state=TrialState.FAIL)
        return f"failed, {error}"
    study.tell(trial, value)
    return f"{tuning.metric} {value:.4g}"


def tuning_options(tuning: Tuning) -> dict[str, Any]:
    """Fields of a trial that are not the recipe's."""
    return {"disable_tqdm": True} if tuning.quiet or tuning.workers > 1 else {}


def train(tuning: Tuning, trial: optuna.Trial, job: PreparedRun) -> float:
    """Train a trial's model, and return the metric of the weights that the run would keep.

    Raises:
        optuna.TrialPruned: it was worse than others. DivergedError: its loss is not finite.
    """
    trainer: Any = job.trainer
    number = job.run.recipe.optimization.average_checkpoints
    pruning = Pruning(trial, tuning.metric)
    trainer.add_callback(pruning)
    try:
        trainer.train()
        trainer.remove_callback(pruning)
        if number is not None:
            load_average_if_better(trainer, job.folder, number)
            return float(trainer.evaluate()[tuning.metric])
        if trainer.args.load_best_model_at_end and trainer.state.best_metric is not None:
            return float(trainer.state.best_metric)
        return pruning.values[-1] if pruning.values else float(trainer.evaluate()[tuning.metric])
    except optuna.TrialPruned:
        trainer.callback_handler.on_train_end(
            trainer.args, trainer.state, trainer.control
        )  # loggers close their files
        raise
    finally:
        lines = (json.dumps(entry) for entry in trainer.state.log_history)
        write_text(job.folder / "log.jsonl", "".join(f"{line}\n" for line in lines))
        trainer.model = trainer.model_wrapped = trainer.optimizer = None
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def best_of(study: optuna.Study) -> FrozenTrial | None:
    """The best trial so far, the first of equals; None before one is complete."""
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    sign = -1 if study.direction == optuna.study.StudyDirection.MAXIMIZE else 1
    return min(complete, key=lambda trial: (sign * (trial.value or 0.0), trial.number), default=None)


def keep_best(tuning: Tuning) -> None:
    """Write the winning recipe, and remove the checkpoints of the other trials that are finished."""
    best = best_of(tuning.study)
    for trial in tuning.study.get_trials(deepcopy=False):
        folder = tuning.trial_folder(trial.number)
        if trial.state.is_finished() and (best is None or trial.number != best.number) and folder.is_dir():
            remove_checkpoints(folder)
    if best is not None:
        values = {one.name: one.suggest(best) for one in tuning.parameters}
        recipe = {name: value for name, value in tuning.recipe.items() if name != "search"}
        origin = f"Trial {best.number} of `{tuning.command}`, with {tuning.metric} {best.value:.6g}."
        comment = "".join(f"# {line}\n" for line in origin.splitlines())
        write_text(tuning.winner, comment + yaml_of(with_values(recipe, values)))


def reason_of(trial: FrozenTrial) -> str | None:
    """Why a trial failed or diverged."""
    return trial.user_attrs.get(_REASON)


def shown(values: dict[str, Any]) -> str:
    """Values of fields in a line."""
    return ", ".join(
        f"{name} {f'{value:.4g}' if isinstance(value, float) else value}" for name, value in values.items()
    )


def say(tuning: Tuning, text: str) -> None:
    """A line about the search on standard error."""
    if not tuning.quiet:
        print(text, file=sys.stderr, flush=True)
