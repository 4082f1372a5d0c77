"""`crossmask extract`: one column of a recipe's records as a file of lines."""

import gzip
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

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
        parts: Annotated[
            list[str] | None,
            typer.Option(
                "--part",
                metavar="PART",
                help="train (the default), validation, test, or one source of several, such as train[1]. May be "
                "repeated.",
                show_default=False,
            ),
        ] = None,
        data_dir: Annotated[
            str | None, typer.Option(help="A folder with local copies, instead of the recipe's or CROSSMASK_DATA.")
        ] = None,
    ) -> None:
        """Write one column of a recipe's records to a file of lines, for tools that read files.

        Records that a source gives again (`repeat`) are written once.
        """
        import sys

        from crossmask.data.sources import load_split
        from crossmask.utils.atomic_write import write_bytes
        from crossmask.utils.errors import InputError

        lines: list[str] = []
        for place, spec in _sources(recipe, parts or ["train"], data_dir).items():
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


def _sources(recipe: str, parts: Sequence[str], data_dir: str | None) -> dict[str, Any]:
    """The source specs of a recipe that the parts name, each once, by their names."""
    from crossmask.data.recipes import find_recipe, read_recipe
    from crossmask.data.sources import name_sources
    from crossmask.utils.errors import InputError

    sources: dict[str, Any] = {}
    for part in parts:
        whole = part.partition("[")[0]
        if whole not in ("train", "validation", "test"):
            raise InputError(f"--part must be train, validation, test, or such as train[1], got {part!r}")
        found = read_recipe(find_recipe(recipe), whole)
        named = name_sources(whole, found[whole], data_dir or found.get("data_dir"))
        if part not in (whole, *named):
            raise InputError(f"--part must be one of {', '.join(dict.fromkeys((whole, *named)))}, got {part!r}")
        sources |= named if part == whole else {part: named[part]}
    return sources
