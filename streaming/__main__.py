"""Draw a model's quality/latency curve.

    python -m crossmask.streaming runs/multi30k-en-de-waitk --recipe recipes/multi30k-en-de-waitk.yaml

takes the test set from the recipe and writes `curve.md`, `curve.json`, `curve.png` and SimulEval's logs into the
model's folder, under `streaming/`.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..data.text_files import read_yaml
from ..inference.loading import load_model_and_tokenizer
from ..tasks import Task, get_task
from ..tasks.examples import read_examples
from ..utils.cli import Parser, run_command, whole_number
from ..utils.disk import naming_full_disks
from ..utils.errors import InputError
from ..utils.type_checks import check_type
from .curve import measure, settings, table, write_curve


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what the command line asks for; returns the exit code, 2 where the input is at fault."""
    parser = Parser(prog="python -m crossmask.streaming", description="Quality against latency.")
    count = whole_number(1)
    parser.add_argument("model", help="folder or Hub id of a crossmask model with its tokenizer")
    parser.add_argument("--recipe", required=True, help="a recipe whose task and `test` data to evaluate on")
    parser.add_argument("--k", type=count, nargs="*", default=[1, 3, 5, 7, 9], help="waits (1 3 5 7 9)")
    parser.add_argument(
        "--align-att", type=whole_number(0), nargs="*", default=[], metavar="F", help="margins of AlignAtt (none)"
    )
    parser.add_argument("--no-offline", action="store_true", help="leave out the offline translation")
    parser.add_argument("--output", type=Path, help="where to write; MODEL/streaming by default")
    parser.add_argument("--limit", type=count, help="evaluate on this many examples, the first")
    parser.add_argument("--batch-size", type=count, default=32, help="texts translated side by side (32)")
    options = parser.parse_args(arguments)
    return run_command(parser.prog, lambda: _measure_all(options), arguments)


def _measure_all(options: argparse.Namespace) -> None:
    chosen = settings(options.k, options.align_att, not options.no_offline)
    if not chosen:
        raise InputError("nothing to measure: give --k, --align-att, or leave --no-offline out")
    task, test, data_dir = _task_and_test(Path(options.recipe))
    examples = read_examples(test, task, "test", data_dir)[: options.limit]
    eager = "eager" if options.align_att else None
    model, tokenizer = load_model_and_tokenizer(options.model, attn_implementation=eager)
    folder, metric, points = options.output or Path(options.model, "streaming"), task.primary_metric.name, []
    with naming_full_disks(folder):
        for name, how in chosen.items():
            points.append(
                measure(name, model, tokenizer, task, examples, folder, batch_size=options.batch_size, **how)
            )
            print(table(points, metric).splitlines()[-1], flush=True)
        write_curve(folder, points, metric)
    print(f"\n{table(points, metric)}\nwritten to {folder}")


def _task_and_test(path: Path) -> tuple[Task, dict | list, str | None]:
    """A recipe's task, what it says of its test records, and its data directory.

    Raises:
        InputError: it is not a recipe, or lacks them.
    """
    recipe = read_yaml(path)
    if not isinstance(recipe, dict) or not isinstance(recipe.get("test"), dict | list):
        raise InputError(f"{path}: expected a recipe with `test`, which says where test records come from")
    name, task_options = recipe.get("task", "translation"), recipe.get("task_options") or {}
    check_type(f"{path}: task", name, str)
    check_type(f"{path}: task_options", task_options, dict[str, Any])
    check_type(f"{path}: data_dir", recipe.get("data_dir"), str | None)
    return get_task(name, **task_options), recipe["test"], recipe.get("data_dir")


if __name__ == "__main__":
    sys.exit(main())
