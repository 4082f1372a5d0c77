"""`crossmask tune`: trials of a recipe with other values of the fields in its `search`, each a whole training run.

Optuna chooses the values and prunes. It is used directly and not through `Trainer.hyperparameter_search`, which sets
training arguments alone, after model, data and batches were made. Here a trial is a recipe of its own, so that every
field may be searched: of the model, of the tokenizer, of batches. Needs the tune extra.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import optuna
import yaml
from filelock import FileLock
from sqlalchemy import URL
from transformers.trainer_utils import IntervalStrategy

from ..masks.expressions import MaskError
from ..tasks import get_task
from ..utils.atomic_write import write_text
from ..utils.errors import InputError
from ..utils.secrets import Secrets
from .nested import value_at
from .parsing import parse_run, read_fields
from .recipe import GROUPS
from .run import PreparedRun, check_recipe, prepare
from .run_arguments import RunArguments
from .search_space import Parameter, parse_space, with_values

STORAGE = "study.db"
RECIPE = "recipe.yaml"
OUTPUT = "output.txt"  # what a trial prints
_STUDY = "tune"


@dataclass(frozen=True)
class Tuning:
    """A search: what is searched, in which folder, and how far.

    Attributes:
        name: of the recipe. recipe: its fields. parameters: what is searched. command: what the user gave.
        metric: the key of evaluations that trials are compared by. trials: how many to finish in all.
        prune_after: trials that run to their end before one is pruned. workers: processes at a time.
    """

    name: str
    recipe: dict[str, Any]
    parameters: tuple[Parameter, ...]
    command: str
    folder: Path
    metric: str
    greater_is_better: bool
    seed: int
    trials: int
    prune_after: int
    workers: int = 1
    quiet: bool = False

    @property
    def winner(self) -> Path:
        """The recipe with the best values."""
        return self.folder / f"{self.name}-tuned.yaml"

    def trial_folder(self, number: int) -> Path:
        return self.folder / "trials" / f"{number:04}"

    @cached_property
    def study(self) -> optuna.Study:
        """The study in the folder, a new one if there is none.

        Raises:
            InputError: the study is of another recipe.
        """
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        url = URL.create("sqlite", database=str(self.folder / STORAGE)).render_as_string()
        with self.claim_lock:
            study = optuna.create_study(
                storage=optuna.storages.RDBStorage(url, engine_kwargs={"connect_args": {"timeout": 60}}),
                study_name=_STUDY,
                direction="maximize" if self.greater_is_better else "minimize",
                pruner=optuna.pruners.MedianPruner(n_startup_trials=self.prune_after),
                load_if_exists=True,
            )
            recipe = json.loads(json.dumps({**self.recipe, "metric": self.metric}, default=str))
            begun: dict[str, Any] = study.user_attrs.get("recipe", recipe)
            study.set_user_attr("recipe", begun)
        for field in sorted({*begun, *recipe}):
            if begun.get(field) != recipe.get(field):  # null and left out are the same
                raise InputError(
                    f"{field} must be {begun.get(field)!r}, with which {self.folder} was begun, got "
                    f"{recipe.get(field)!r}; put it back to continue, choose another --output, or delete "
                    f"{self.folder}"
                )
        return study

    @cached_property
    def claim_lock(self) -> FileLock:
        """Held while a trial is chosen or the results are written, by one of the processes that work on the study."""
        self.folder.mkdir(parents=True, exist_ok=True)
        return FileLock(self.folder.resolve() / ".claim.lock", thread_local=False)


def read_tuning(
    argv: list[str], command: str, output: str | None, trials: int, prune_after: int, workers: int, quiet: bool
) -> Tuning:
    """Read a recipe and its search space, and try both: nothing is trained yet.

    Args:
        argv: `RECIPE.yaml [--field value ...]`. output: the folder; by default `runs/NAME-tuning`.

    Raises:
        InputError, OSError: a recipe, a space or data that cannot be used.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise InputError("crossmask tune must be started without torchrun: a trial is one process; give --workers")
    run = parse_run(argv, command)
    path, recipe = read_fields(argv)
    if run.recipe.search.search is None:
        raise InputError(
            f"{path} must have a search space to be tuned; add for instance search: {{learning_rate: "
            "{low: 1.0e-4, high: 1.0e-3, log: true}}"
        )
    if Secrets.of(recipe).hide(recipe) != recipe:
        raise InputError(f"{path} must be without secrets, which every trial would have in its recipe; set HF_TOKEN")
    flags = {word.partition("=")[0].replace("-", "_") for word in argv if word.startswith("--")}
    for name, fix in (("output_dir", "give --output"), ("overwrite", "delete the search's to begin anew")):
        if f"__{name}" in flags:
            raise InputError(f"--{name} must be left out: every trial has a folder of its own; {fix}")
    if run.arguments.resume_from_checkpoint:
        raise InputError("resume_from_checkpoint must be left out: the same command continues a search")
    recipe.pop("overwrite", None)  # a trial's folder is new
    if run.arguments.eval_strategy == IntervalStrategy.NO:
        raise InputError("eval_strategy must be epoch or steps, by whose metric trials are compared, got no")
    if recipe["validation"] == recipe["test"] and not quiet:
        print("the test data are the validation data: the winner will be chosen on them", file=sys.stderr)
    parameters = parse_space(run.recipe.search.search, lambda name: value_at(_with_defaults(recipe), name.split(".")))
    check_space(recipe, parameters)
    with tempfile.TemporaryDirectory() as place, silence(Path(place, OUTPUT)):
        # As a trial with the recipe's own values would begin: its data, its metric.
        job = prepare_trial(recipe, Path(place), disable_tqdm=True)
        arguments: Any = job.trainer.args
        release(job)
    return Tuning(
        name=path.stem,
        recipe=recipe,
        parameters=parameters,
        command=command,
        folder=Path(output or f"runs/{path.stem}-tuning"),
        metric=f"eval_{arguments.metric_for_best_model.removeprefix('eval_')}",
        greater_is_better=bool(arguments.greater_is_better),
        seed=arguments.seed,
        trials=trials,
        prune_after=prune_after,
        workers=workers,
        quiet=quiet,
    )


def _with_defaults(recipe: dict[str, Any]) -> dict[str, Any]:
    defaults = {
        name: item.default for kind in (*GROUPS, RunArguments) for name, item in kind.__dataclass_fields__.items()
    }
    return {**defaults, **recipe}


def check_space(recipe: dict[str, Any], parameters: tuple[Parameter, ...]) -> None:
    """Try the ends of every range, and all choices, one by one: are they values that the recipe may have?

    Raises:
        InputError: with the field, the value and what is wrong with it.
    """
    with tempfile.TemporaryDirectory() as place:
        for parameter in parameters:
            for value in parameter.extremes:
                try:
                    run = run_of(with_values(recipe, {parameter.name: value}), Path(place))
                    task = get_task(run.recipe.data.task, **(run.recipe.data.task_options or {}))
                    check_recipe(run.recipe, task, run.arguments)
                except (InputError, MaskError) as error:
                    reason = str(error).removeprefix(f"{Path(place, RECIPE)}: ")
                    raise InputError(f"search.{parameter.name} cannot be {value!r}: {reason}") from None


def run_of(recipe: dict[str, Any], folder: Path, **changes: Any) -> Any:
    """The run of a recipe in a folder, where it is written."""
    values = {name: value for name, value in recipe.items() if name not in ("search", "output_dir")}
    write_text(folder / RECIPE, yaml_of(values))
    options = [word for name, value in changes.items() for word in (f"--{name}", str(value))]
    return parse_run([str(folder / RECIPE), "--output_dir", str(folder), *options], command="crossmask tune")


def prepare_trial(recipe: dict[str, Any], folder: Path, **changes: Any) -> PreparedRun:
    return prepare(run_of(recipe, folder, **changes))


def release(job: PreparedRun) -> None:
    """Unlock a run's folder, which its process would keep to its end."""
    if job.lock is not None:
        job.lock.release(force=True)


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True


def yaml_of(values: dict[str, Any]) -> str:
    return yaml.dump(values, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=119)


@contextmanager
def silence(path: Path) -> Iterator[None]:
    """Write to a file what is printed: standard output is for results."""
    with path.open("a", encoding="utf-8") as file, redirect_stdout(file):
        yield
