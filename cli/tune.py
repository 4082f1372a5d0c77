"""`crossmask tune`: a search for better values of a recipe's fields."""

import shlex
from importlib.util import find_spec
from typing import Annotated

import typer

from .command import PROGRAM, AsJson, Quiet, add, quieten, whole_number, write_json
from .recipes import complete


def register(app: typer.Typer) -> None:
    """Add the command."""
    options_of_recipe = {"allow_extra_args": True, "ignore_unknown_options": True}

    @add(app, "tune", "Train", context_settings=options_of_recipe)
    def tune(
        context: typer.Context,
        recipe: Annotated[
            str,
            typer.Argument(
                metavar="RECIPE",
                help="A YAML file with a search space, or the name of a packaged recipe that has one.",
                autocompletion=complete,
                show_default=False,
            ),
        ],
        trials: Annotated[int, whole_number("Trials in all, those of earlier runs in the same folder included.")] = 20,
        workers: Annotated[int, whole_number("Trials at a time, each in a process of its own.")] = 1,
        prune_after: Annotated[
            int, whole_number("Trials that run to their end before any is pruned by the median.", 0)
        ] = 5,
        output: Annotated[
            str | None, typer.Option("--output", "-o", metavar="FOLDER", help="(runs/NAME-tuning)")
        ] = None,
        json: AsJson = False,
        quiet: Quiet = False,
    ) -> None:
        """Search for better values of a recipe's fields: [b]crossmask tune RECIPE[/b] [--field value ...]

        The recipe's [b]search[/b] says which fields, and what they may be. Every trial is a training run. The folder
        gets the winning recipe, for [b]crossmask train[/b], a table of the trials and a figure of what mattered. The
        same command continues a search that was stopped; run twice at the same time, both processes work on it.
        """
        from crossmask.utils.errors import MissingLibraryError

        if find_spec("optuna") is None:
            raise MissingLibraryError("optuna must be installed to tune; run: pip install 'crossmask[tune]'")
        from crossmask.training.tuning import read_tuning
        from crossmask.training.tuning_report import write_results
        from crossmask.training.tuning_workers import run_workers

        quieten()
        words = [recipe, *context.args]
        tuning = read_tuning(words, shlex.join([PROGRAM, "tune", *words]), output, trials, prune_after, workers, quiet)
        run_workers(tuning)
        found = write_results(tuning)
        if json:
            write_json(found)
            return
        print(f"{tuning.metric} {found[tuning.metric]:.4g} in trial {found['trial']} of {found['trials']}")
        for name, value in found["values"].items():
            weight = f"  importance {found['importances'][name]:.2f}" if found["importances"] else ""
            print(f"  {name}: {value}{weight}")
        print(f"{tuning.folder}: trials.md, importances.png; crossmask train {tuning.winner}")
