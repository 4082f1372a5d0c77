"""`crossmask answer`: answers to questions about contexts."""

from collections.abc import Iterator
from functools import partial
from typing import Annotated, Any

import typer

from .command import (
    AsJson,
    BatchSize,
    Device,
    Dtype,
    Engine,
    Input,
    Model,
    Quiet,
    add,
    each_item,
    load_pipeline,
    progress,
    read_input,
    read_items,
    whole_number,
    write_json,
)

_WANTED = "{'question': ..., 'context': ...}, or a whole text beside --question"


def register(app: typer.Typer) -> None:
    """Add the command."""

    @add(app, "answer", "Use a model")
    def answer(
        model: Model,
        input: Input = "-",
        question: Annotated[str | None, typer.Option(help="One question, about the whole INPUT.")] = None,
        top_k: Annotated[int, whole_number("Answers to each question.")] = 1,
        source_template: Annotated[
            str | None,
            typer.Option(metavar="TEXT", help="What an encoder-decoder reads, with {question} and {context}."),
        ] = None,
        json: AsJson = False,
        batch_size: BatchSize = 8,
        engine: Engine = "auto",
        dtype: Dtype = "auto",
        device: Device = None,
        quiet: Quiet = False,
    ) -> None:
        """Answer questions: lines {"question": ..., "context": ...} of JSON, or --question about a text.

        An answer a line, empty where there is none; with --json what the pipeline returns: score, start and end too.
        """
        options = {} if source_template is None else {"source_template": source_template}
        pipe = load_pipeline("question-answering", model, device, dtype, engine, **options)
        several = {"top_k": top_k} if not pipe.model.can_generate() else _beams(top_k)
        run = partial(pipe, batch_size=batch_size, **several)
        found_all: Iterator[Any]
        if question is None:
            found_all = (found for _, found in each_item(read_items(input, _WANTED), run))
        else:
            found_all = iter([run({"question": question, "context": "\n".join(read_input(input))})])
        with progress("questions", None, quiet) as bar:
            for found in found_all:
                answers = found if isinstance(found, list) else [found]
                if json:
                    write_json(answers if top_k > 1 else answers[0])
                else:
                    print("\t".join(" ".join(one["answer"].split()) for one in answers), flush=True)
                bar.update(1)


def _beams(top_k: int) -> dict[str, int]:
    return {"num_beams": top_k, "num_return_sequences": top_k} if top_k > 1 else {}
