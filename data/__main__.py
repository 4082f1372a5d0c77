"""Write one column of a recipe's records to a file of lines, for tools that read files.

python -m crossmask.data recipes/multi30k-en-de.yaml --column source --output runs/train.en.gz
"""

import argparse
import gzip
import sys
from collections.abc import Sequence
from pathlib import Path

from ..utils.atomic_write import write_bytes
from ..utils.cli import Parser, run_command
from ..utils.errors import InputError
from .sources import load_split, name_sources
from .text_files import read_yaml


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, and return the exit status: 2 with one line on standard error where the input is at fault."""
    parser = Parser(
        prog="python -m crossmask.data", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("recipe", type=Path, help="a recipe")
    parser.add_argument("--part", choices=("train", "validation", "test"), default="train", help="(train)")
    parser.add_argument("--column", required=True, help="the column, such as source or target")
    parser.add_argument("--output", type=Path, required=True, help="gzip if it ends with .gz")
    parser.add_argument("--data-dir", help="a folder with local copies, instead of CROSSMASK_DATA")
    options = parser.parse_args(arguments)
    return run_command(parser.prog, lambda: _write(options), arguments)


def _write(options: argparse.Namespace) -> None:
    recipe = read_yaml(options.recipe)
    if not isinstance(recipe, dict) or not isinstance(recipe.get(options.part), dict | list):
        raise InputError(
            f"{options.recipe} must be a recipe with `{options.part}`, which says where records are; give another"
        )
    lines: list[str] = []
    for place, spec in name_sources(options.part, recipe[options.part], options.data_dir).items():
        records = load_split(spec)
        if options.column not in records.column_names:
            raise InputError(
                f"--column must be one of {', '.join(records.column_names)}, the columns of {place}, got "
                f"{options.column!r}"
            )
        lines.extend(records[options.column])
    for number, line in enumerate(lines, start=1):
        if not isinstance(line, str) or "\n" in line:
            raise InputError(f"record {number}: {options.column!r} must be one line of text; choose another column")
    text = "".join(f"{line}\n" for line in lines).encode()
    options.output.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(options.output, gzip.compress(text, mtime=0) if options.output.suffix == ".gz" else text)
    print(f"{len(lines):,} lines written to {options.output}")


if __name__ == "__main__":
    sys.exit(main())
