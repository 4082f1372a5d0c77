"""`crossmask classify`: a label for each line."""

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
        """Classify texts, a line at a time: `label TAB score`, or with --json what the pipeline returns."""
        pipe = load_pipeline("text-classification", model, device, dtype)
        options = {"truncation": True} if truncate else {}
        with progress("lines", None, quiet) as bar:
            for labels in pipe(read_input(input), batch_size=batch_size, top_k=top_k, **options):
                if json:
                    write_json(labels if top_k > 1 else labels[0])
                else:
                    print("\t".join(f"{one['label']}\t{one['score']:.4f}" for one in labels), flush=True)
                bar.update(1)
