"""`crossmask extract`: one column of a recipe's records as a file of lines."""

import gzip
from pathlib import Path
from typing import Annotated, Literal

import typer

from .command import add
from .recipes import complete


def register(app: typer.Typer) -> None:
    """Add the command."""

    @add(app, "extract", "Examine")
    def extract(
        recipe: Annotated[
            str,
            typer.Argument(
                metavar="RECIPE",
                help="A YAML file, or the name of a packaged recipe.",
                autocompletion=complete,
                show_default=False,
            ),
        ],
        column: Annotated[str, typer.Option(help="Such as source or target.", show_default=False)],
        output: Annotated[str, typer.Option("--output", "-o", metavar="FILE", help="gzip if it ends with .gz.")] = "-",
        part: Annotated[Literal["train", "validation", "test"], typer.Option()] = "train",
        data_dir: Annotated[
            str | None, typer.Option(help="A folder with local copies, instead of the recipe's or CROSSMASK_DATA.")
        ] = None,
    ) -> None:
        """Write one column of a recipe's records to a file of lines, for tools that read files.

        Records that a source gives again (`repeat`) are written once.
        """
        import sys
        from dataclasses import replace

        from crossmask.data.recipes import find_recipe, read_recipe
        from crossmask.data.sources import load_split, name_sources
        from crossmask.utils.atomic_write import write_bytes
        from crossmask.utils.errors import InputError

        found = read_recipe(find_recipe(recipe), part)
        lines: list[str] = []
        for place, spec in name_sources(part, found[part], data_dir or found.get("data_dir")).items():
            records = load_split(replace(spec, repeat=1))
            if column not in records.column_names:
                raise InputError(
                    f"--column must be one of {', '.join(records.column_names)}, the columns of {place}, got "
                    f"{column!r}"
                )
            lines.extend(records[column])
        for number, line in enumerate(lines, start=1):
            if not isinstance(line, str) or "\n" in line:
                raise InputError(f"record {number}: {column!r} must be one line of text; choose another column")
        text = "".join(f"{line}\n" for line in lines)
        if output == "-":
            sys.stdout.write(text)
            return
        data = text.encode()
        write_bytes(Path(output), gzip.compress(data, mtime=0) if output.endswith(".gz") else data)
        print(f"{len(lines):,} lines written to {output}", file=sys.stderr)
