"""`crossmask label`: the arguments of predicates."""

from typing import Annotated

import typer

from .command import (
    AsJson,
    BatchSize,
    Device,
    Dtype,
    Input,
    Model,
    Quiet,
    add,
    load_pipeline,
    progress,
    read_input,
    read_items,
    write_json,
)


def register(app: typer.Typer) -> None:
    """Add the command."""

    @add(app, "label", "Use a model")
    def label(
        model: Model,
        input: Input = "-",
        predicate: Annotated[
            str | None, typer.Option(metavar="WORD", help="Of every line, which is then a text and not JSON.")
        ] = None,
        json: AsJson = False,
        batch_size: BatchSize = 8,
        dtype: Dtype = "auto",
        device: Device = None,
        quiet: Quiet = False,
    ) -> None:
        """Label semantic roles: lines {"text": ..., "predicate": ...} of JSON, or {"words": [...], "predicate": N}.

        A line each, with the arguments in brackets; with --json what the pipeline returns.
        """
        if predicate is None:
            items = read_items(input, "{'text': ..., 'predicate': ...}, or a text beside --predicate")
        else:
            items = ({"text": line, "predicate": predicate} for line in read_input(input))
        pipe = load_pipeline("semantic-role-labeling", model, device, dtype)
        with progress("lines", None, quiet) as bar:
            for found in pipe(items, batch_size=batch_size):
                if json:
                    write_json(found)
                else:
                    print(found["text"], flush=True)
                bar.update(1)
