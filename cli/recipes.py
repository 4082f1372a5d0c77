"""`crossmask recipes`: the recipes that come with the package."""

from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from .command import AsJson, write_json


def folder() -> Path:
    """The folder with the recipes; found without an import of the package."""
    spec = find_spec("crossmask")
    places = [] if spec is None else spec.submodule_search_locations or []
    return Path(next(iter(places), "."), "recipes")


def packaged() -> dict[str, Path]:
    """The recipes by name."""
    return {path.stem: path for path in sorted(folder().glob("*.yaml"), key=lambda path: path.stem)}


def complete(incomplete: str) -> list[str]:
    """The names that begin so, for the shell."""
    return [name for name in packaged() if name.startswith(incomplete)]


def summary(path: Path) -> str:
    """The first sentence of what a recipe says of its model."""
    import yaml

    text = str(yaml.safe_load(path.read_text(encoding="utf-8")).get("summary", ""))
    first, stop, _ = text.partition(". ")
    return first + stop.strip()


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command("recipes", rich_help_panel="Train")  # not `add`: nothing of the package is needed
    def recipes(
        name: Annotated[
            str | None, typer.Argument(help="A recipe to print.", autocompletion=complete, show_default=False)
        ] = None,
        json: AsJson = False,
    ) -> None:
        """List the recipes that come with the package, or print one."""
        known = packaged()
        if name is not None:
            if name not in known:
                raise typer.BadParameter(f"NAME must be one of {', '.join(known)}, got {name!r}")
            print(known[name].read_text(encoding="utf-8"), end="")
            return
        if json:
            write_json({name: summary(path) for name, path in known.items()})
            return
        width = max(map(len, known))
        for each, path in known.items():
            print(f"{each:<{width}}  {summary(path)}".rstrip())
