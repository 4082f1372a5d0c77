"""`crossmask export`: a model for another engine."""

import json
from pathlib import Path
from typing import Annotated, Literal

import typer

from .command import AsJson, Model, add


def register(app: typer.Typer) -> None:
    """Add the command."""

    @add(app, "export", "Share")
    def export(
        model: Model,
        output: Annotated[
            Path, typer.Argument(metavar="OUTPUT", help="A folder that does not exist yet.", show_default=False)
        ],
        to: Annotated[
            Literal["ctranslate2", "onnx", "web"],
            typer.Option(help="ctranslate2 is fastest and has few masks; onnx has all of them; web is for browsers."),
        ],
        dtype: Annotated[
            str | None,
            typer.Option(help="What weights are stored in, such as int8.", show_default="float32"),
        ] = None,
        as_json: AsJson = False,
    ) -> None:
        """Write a model as CTranslate2, onnxruntime or transformers.js loads it.

        The folder appears when it is complete. What the engine cannot express is refused, with all reasons.
        """
        from crossmask.serving import export as write

        written = write(model, to, output, dtype=dtype)
        if as_json:
            facts = {"folder": str(output), "engine": to, "dtype": written.dtype, "bytes": written.sizes}
            print(json.dumps(facts, ensure_ascii=False))
        else:
            print(written)
