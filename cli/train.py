"""`crossmask train`: what `train.py` does."""

import shlex
from typing import Annotated

import typer

from .command import PROGRAM, add
from .recipes import complete


def register(app: typer.Typer) -> None:
    """Add the command."""
    options_of_recipe = {"allow_extra_args": True, "ignore_unknown_options": True, "allow_interspersed_args": False}

    @add(app, "train", "Train", context_settings=options_of_recipe, options_metavar="")
    def train(
        context: typer.Context,
        recipe: Annotated[
            str,
            typer.Argument(
                metavar="RECIPE",
                help="A YAML file, or the name of a packaged recipe.",
                autocompletion=complete,
                show_default=False,
            ),
        ],
    ) -> None:
        """Train, test and save a model: [b]crossmask train RECIPE[/b] [--field value ...] [--mapping.key value ...]

        [b]crossmask recipes[/b] lists the packaged recipes, and [b]crossmask train RECIPE --help[/b] all fields.
        """
        from crossmask.training.parsing import parse_run
        from crossmask.training.run import execute, prepare

        words = [recipe, *context.args]
        execute(prepare(parse_run(words, command=shlex.join([PROGRAM, "train", *words]))))
