"""`crossmask classify`: a label for each line."""

from functools import partial
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
    each_line,
    load_pipeline,
    progress,
    read_input,
    whole_number,
    write_json,
)


def register(app: typer.Typer) -> None:
    """Add the command."""

    @add(app, "classify", "Use a model")
    def classify(
        model: Model,
        input: Input = "-",
        top_k: Annotated[int, whole_number("Labels of each line, the likeliest first.")] = 1,
        truncate: Annotated[bool, typer.Option("--truncate", help="Cut longer lines, which are an error.")] = False,
        json: AsJson = False,
        batch_size: BatchSize = 8,
        dtype: Dtype = "auto",
        device: Device = None,
        quiet: Quiet = False,
    ) -> None:
        """Classify texts, a line at a time: `label TAB score`, or with --json what the pipeline returns.

        A blank line gives a blank one, or null.
        """
        pipe = load_pipeline("text-classification", model, device, dtype)
        options = {"truncation": True} if truncate else {}
        with progress("lines", None, quiet) as bar:
            run = partial(pipe, batch_size=batch_size, top_k=top_k, **options)
            for labels in each_line(read_input(input), run):
                if json:
                    write_json(labels if top_k > 1 or labels is None else labels[0])
                else:
                    print("\t".join(f"{one['label']}\t{one['score']:.4f}" for one in labels or ()), flush=True)
                bar.update(1)
