"""`crossmask latency`: the quality of simultaneous translation against its latency."""

from pathlib import Path
from typing import Annotated, Any

import typer

from .command import Model, add, quieten, whole_number, whole_numbers
from .recipes import complete


def register(app: typer.Typer) -> None:
    """Add the command."""

    @add(app, "latency", "Examine")
    def latency(
        model: Model,
        recipe: Annotated[
            str, typer.Option(help="Whose task and test data to take.", autocompletion=complete, show_default=False)
        ],
        k: Annotated[Any, typer.Option(parser=whole_numbers, metavar="K,K,...", help="Waits.")] = "1,3,5,7,9",
        align_att: Annotated[
            Any, typer.Option(parser=whole_numbers, metavar="F,F,...", help="Margins of AlignAtt.")
        ] = "",
        no_offline: Annotated[bool, typer.Option("--no-offline", help="Leave the offline translation out.")] = False,
        output: Annotated[
            Path | None, typer.Option("--output", "-o", metavar="FOLDER", help="(MODEL/streaming)")
        ] = None,
        limit: Annotated[int | None, whole_number("Examples, the first.")] = None,
        batch_size: Annotated[int, whole_number("Texts translated side by side.")] = 32,
    ) -> None:
        """Measure a model's quality against its latency: a table, a picture and SimulEval's logs."""
        from crossmask import plotting  # noqa: F401 - refuses where matplotlib is missing
        from crossmask.data.recipes import find_recipe, read_recipe
        from crossmask.inference.loading import load_model_and_tokenizer
        from crossmask.pipelines.registration import attach_saved_masks
        from crossmask.pipelines.saved_options import saved_prefix
        from crossmask.streaming.curve import measure, settings, table, write_curve
        from crossmask.tasks.examples import read_examples
        from crossmask.utils.disk import naming_full_disks
        from crossmask.utils.errors import InputError

        for name, values, lowest in (("--k", k, 1), ("--align-att", align_att, 0)):
            if any(value < lowest for value in values):
                raise InputError(f"{name} must be whole numbers of at least {lowest}, got {min(values)}")
        chosen = settings(k, align_att, not no_offline)
        if not chosen:
            raise InputError(
                "--k, --align-att and --no-offline must leave something to measure, got nothing; give --k"
            )
        path = find_recipe(recipe)
        found = read_recipe(path, "test")
        task = _task(path, found)
        task.check_libraries()
        examples = read_examples(found["test"], task, "test", found.get("data_dir"))[:limit]
        quieten()
        eager: dict[str, Any] = {"attn_implementation": "eager"} if align_att else {}
        loaded, tokenizer = load_model_and_tokenizer(model, **eager)
        loaded = attach_saved_masks(loaded)
        prefix = found.get("source_prefix")
        if prefix is None:
            prefix = saved_prefix(loaded.config, task.pipeline_tag or task.name)
        folder, metric, points = output or Path(model, "streaming"), task.primary_metric.name, []
        with naming_full_disks(folder):
            for name, options in chosen.items():
                points.append(
                    measure(
                        name,
                        loaded,
                        tokenizer,
                        task,
                        examples,
                        folder,
                        batch_size=batch_size,
                        prefix=prefix,
                        **options,
                    )
                )
                print(table(points, metric).splitlines()[-1], flush=True)
            write_curve(folder, points, metric)
        print(f"\n{table(points, metric)}\nwritten to {folder}")


def _task(path: Path, recipe: dict[str, Any]) -> Any:
    from crossmask.tasks import get_task
    from crossmask.utils.type_checks import check_type

    name, options = recipe.get("task", "translation"), recipe.get("task_options") or {}
    check_type(f"{path}: task", name, str)
    check_type(f"{path}: task_options", options, dict[str, Any])
    return get_task(name, **options)
