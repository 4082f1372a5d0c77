"""`crossmask label`: the arguments of predicates."""

from collections.abc import Iterator
from functools import partial
from typing import Annotated, Any

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
    each_item,
    each_line,
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

        A line each, with the arguments in brackets, blank for a blank text; with --json what the pipeline returns.
        """
        pipe = load_pipeline("semantic-role-labeling", model, device, dtype)
        run = partial(pipe, batch_size=batch_size)
        results: Iterator[Any]
        if predicate is None:
            items = read_items(input, "{'text': ..., 'predicate': ...}, or a text beside --predicate")
            results = (found for _, found in each_item(items, run))
        else:
            results = each_line(
                read_input(input), lambda lines: run({"text": line, "predicate": predicate} for line in lines)
            )
        with progress("lines", None, quiet) as bar:
            for found in results:
                if json:
                    write_json(found)
                else:
                    print("" if found is None else found["text"], flush=True)
                bar.update(1)
