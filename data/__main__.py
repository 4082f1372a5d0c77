"""Write one column of a recipe's records to a file of lines, for tools that read files.

python -m crossmask.data recipes/multi30k-en-de.yaml --column source --output runs/train.en.gz
"""

import argparse
import gzip
import sys
from collections.abc import Sequence
from pathlib import Path

from ..utils.atomic_write import write_bytes
from ..utils.cli import Parser
from ..utils.errors import InputError
from .recipes import read_recipe
from .sources import load_split, name_sources


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, and return the exit status: 2 with one line on standard error for an error of the input."""
    parser = Parser(prog="python -m crossmask.data", description=__doc__)
    parser.add_argument("recipe", type=Path, help="a recipe")
    parser.add_argument("--part", choices=("train", "validation", "test"), default="train", help="(train)")
    parser.add_argument("--column", required=True, help="the column, such as source or target")
    parser.add_argument("--output", type=Path, required=True, help="gzip if it ends with .gz")
    parser.add_argument("--data-dir", help="a folder with local copies, instead of the recipe's or CROSSMASK_DATA")
    return parser.run(_write, arguments)


def _write(options: argparse.Namespace) -> None:
    recipe = read_recipe(options.recipe, options.part)
    data_dir = options.data_dir or recipe.get("data_dir")
    lines: list[str] = []
    for place, spec in name_sources(options.part, recipe[options.part], data_dir).items():
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
    write_bytes(options.output, gzip.compress(text, mtime=0) if options.output.suffix == ".gz" else text)
    print(f"{len(lines):,} lines written to {options.output}")


if __name__ == "__main__":
    sys.exit(main())
