"""Draw a model's quality/latency curve.

    python -m crossmask.streaming runs/multi30k-en-de-waitk --recipe recipes/multi30k-en-de-waitk.yaml

takes the test set from the recipe and writes `curve.md`, `curve.json`, `curve.png` and SimulEval's logs into the
model's folder, under `streaming/`.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import yaml
from huggingface_hub.errors import StrictDataclassError
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

from ..tasks import get_task
from ..training.splits import read_examples
from ..utils.errors import InputError
from .curve import measure, settings, table, write_curve


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what the command line asks for; returns the exit code, 2 where the input is at fault."""
    parser = argparse.ArgumentParser(prog="python -m crossmask.streaming", description="Quality against latency.")
    parser.add_argument("model", help="folder or Hub id of a crossmask model with its tokenizer")
    parser.add_argument("--recipe", required=True, help="a recipe whose task and `test` data to evaluate on")
    parser.add_argument("--k", type=int, nargs="*", default=[1, 3, 5, 7, 9], help="waits (1 3 5 7 9)")
    parser.add_argument("--align-att", type=int, nargs="*", default=[], metavar="F", help="margins of AlignAtt (none)")
    parser.add_argument("--no-offline", action="store_true", help="leave out the offline translation")
    parser.add_argument("--output", type=Path, help="where to write; MODEL/streaming by default")
    parser.add_argument("--limit", type=int, help="evaluate on the first so many examples")
    parser.add_argument("--batch-size", type=int, default=32, help="texts translated side by side (32)")
    options = parser.parse_args(arguments)
    try:
        _measure_all(options)
    except (ValueError, OSError, ImportError, StrictDataclassError) as error:
        print(f"{parser.prog}: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    return 0


def _measure_all(options: argparse.Namespace) -> None:
    chosen = settings(options.k, options.align_att, not options.no_offline)
    if not chosen:
        raise InputError("nothing to measure: give --k, --align-att, or leave --no-offline out")
    recipe = yaml.safe_load(Path(options.recipe).read_text(encoding="utf-8"))
    if not isinstance(recipe, dict) or not isinstance(recipe.get("test"), dict | list):
        raise InputError(f"{options.recipe}: expected a recipe with `test`, which says where test records come from")
    task = get_task(recipe.get("task", "translation"), **(recipe.get("task_options") or {}))
    examples = read_examples(recipe["test"], task, "test")[: options.limit]
    eager = "eager" if options.align_att else None
    model = AutoModelForSeq2SeqLM.from_pretrained(options.model, attn_implementation=eager).eval()
    tokenizer = AutoTokenizer.from_pretrained(options.model)
    folder, metric, points = options.output or Path(options.model, "streaming"), task.primary_metric.name, []
    for name, how in chosen.items():
        points.append(measure(name, model, tokenizer, task, examples, folder, batch_size=options.batch_size, **how))
        print(table(points, metric).splitlines()[-1], flush=True)
    write_curve(folder, points, metric)
    print(f"\n{table(points, metric)}\nwritten to {folder}")


if __name__ == "__main__":
    sys.exit(main())
