"""`crossmask explore`: a page that shows what masks do."""

from pathlib import Path
from typing import Annotated

import typer

from .command import Device, Model, Port, add, quieten


def register(app: typer.Typer) -> None:
    """Add the command."""

    @add(app, "explore", "Examine")
    def explore(
        model: Model,
        host: Annotated[str, typer.Option(help="Address to listen at; 0.0.0.0 for every network.")] = "127.0.0.1",
        port: Port = 7860,
        device: Device = None,
        write_static: Annotated[
            Path | None,
            typer.Option(
                metavar="FOLDER", help="Write static files instead, whose model runs in the browser (needs npm)."
            ),
        ] = None,
        node_modules: Annotated[
            Path | None,
            typer.Option(metavar="FOLDER", help="Of the packages of the static files, instead of npm's."),
        ] = None,
    ) -> None:
        """Show masks, attention, alignments and streams of a model in a page of the browser.

        MODEL is one of our own, a bridge, or an encoder-decoder of Transformers. Static files are of our own network.
        """
        from crossmask.explorer import serve
        from crossmask.explorer import write_static as write
        from crossmask.utils.errors import InputError

        quieten()
        if write_static is not None:
            folder = write(model, write_static, node_modules=node_modules)
            size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 2**20
            print(f"{folder}: {size:.1f} MiB; see it by: python -m http.server --directory {folder}")
            return
        if node_modules is not None:
            raise InputError(f"--node-modules must be left out without --write-static, got {node_modules}")
        serve(model, device=device, host=host, port=port)
