"""Measure a model's quality against its latency.

    python -m crossmask.streaming runs/multi30k-en-de-waitk --recipe recipes/multi30k-en-de-waitk.yaml

takes the test set from the recipe and writes `curve.md`, `curve.json`, `curve.png` and SimulEval's logs to the folder
`streaming/` in the model's folder.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..data.recipes import read_recipe
from ..inference.loading import load_model_and_tokenizer
from ..tasks import Task, get_task
from ..tasks.examples import read_examples
from ..utils.cli import Parser, whole_number
from ..utils.disk import naming_full_disks
from ..utils.errors import InputError
from ..utils.type_checks import check_type
from .curve import measure, settings, table, write_curve


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, and return the exit status: 2 with one line on standard error for an error of the input."""
    parser = Parser(prog="python -m crossmask.streaming", description=__doc__)
    add, count = parser.add_argument, whole_number(1)
    add("model", help="folder or Hub id of a crossmask model with its tokenizer")
    add("--recipe", type=Path, required=True, help="a recipe whose task and `test` data to evaluate on")
    add("--k", type=count, nargs="*", default=[1, 3, 5, 7, 9], help="waits (1 3 5 7 9)")
    add("--align-att", type=whole_number(0), nargs="*", default=[], metavar="F", help="margins of AlignAtt (none)")
    add("--no-offline", action="store_true", help="leave out the offline translation")
    add("--output", type=Path, help="where to write; MODEL/streaming by default")
    add("--limit", type=count, help="evaluate on this many examples, the first")
    add("--batch-size", type=count, default=32, help="texts translated side by side (32)")
    return parser.run(_measure_all, arguments)


def _measure_all(options: argparse.Namespace) -> None:
    from .. import plotting  # noqa: F401 - refuses where matplotlib is missing

    chosen = settings(options.k, options.align_att, not options.no_offline)
    if not chosen:
        raise InputError("--k, --align-att and --no-offline must leave something to measure, got nothing; give --k")
    recipe = read_recipe(options.recipe, "test")
    task = _task(options.recipe, recipe)
    task.check_libraries()
    examples = read_examples(recipe["test"], task, "test", recipe.get("data_dir"))[: options.limit]
    eager = "eager" if options.align_att else None
    model, tokenizer = load_model_and_tokenizer(options.model, attn_implementation=eager)
    folder, metric, points = options.output or Path(options.model, "streaming"), task.primary_metric.name, []
    with naming_full_disks(folder):
        for name, stream_options in chosen.items():
            points.append(
                measure(
                    name, model, tokenizer, task, examples, folder, batch_size=options.batch_size, **stream_options
                )
            )
            print(table(points, metric).splitlines()[-1], flush=True)
        write_curve(folder, points, metric)
    print(f"\n{table(points, metric)}\nwritten to {folder}")


def _task(path: Path, recipe: dict[str, Any]) -> Task:
    name, options = recipe.get("task", "translation"), recipe.get("task_options") or {}
    check_type(f"{path}: task", name, str)
    check_type(f"{path}: task_options", options, dict[str, Any])
    return get_task(name, **options)


if __name__ == "__main__":
    sys.exit(main())
