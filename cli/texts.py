"""`crossmask translate` and `crossmask summarize`: lines in, lines out, from a file that may be long."""

from inspect import signature
from pathlib import Path
from typing import Annotated, Any, Literal, cast

import typer

from .command import (
    AsJson,
    Device,
    Dtype,
    Engine,
    Input,
    Mask,
    Model,
    Quiet,
    ReverseModel,
    ReverseWeight,
    Threads,
    above_0,
    add,
    finite,
    progress,
    quieten,
    read_input,
    whole_number,
)

SAMPLING = ("temperature", "top_k", "top_p")
Overlong = Literal["error", "truncate", "drop", "split"]
_KEYS = {"translate": "translation_text", "summarize": "summary_text"}
_TASKS = {"translate": "translation", "summarize": "summarization"}

Output = Annotated[str, typer.Option("--output", "-o", metavar="FILE", help="gzip if it ends with .gz; - is stdout.")]
Pairs = Annotated[
    bool,
    typer.Option(
        "--pairs", help="Write `output TAB input`: a source {format: tsv} to train the other direction from."
    ),
]
Prefix = Annotated[
    str | None,
    typer.Option(metavar="TEXT", help="Goes before every line, such as <2de> (the model's, if it has one)."),
]
MaxSource = Annotated[int | None, whole_number("Tokens in a line at most (what the model takes).")]
OverlongOption = Annotated[
    Overlong, typer.Option(help="What is done with longer lines; split: sentence by sentence, joined as they were.")
]
Language = Annotated[
    str | None,
    typer.Option(metavar="CODE", help="Split by the rules of this language, such as en (pip install sentencex)."),
]
BatchTokens = Annotated[int, whole_number("Source tokens in a batch.")]
Beams = Annotated[int | None, whole_number("(The model's; 1 with --sample.)")]
MaxNew = Annotated[int | None, whole_number("Tokens in an output at most (the model's).")]
MinNew = Annotated[int | None, whole_number("Tokens in an output at least.")]
LengthPenalty = Annotated[float | None, typer.Option(parser=finite, metavar="X", help="Of beam search (the model's).")]
Sample = Annotated[bool, typer.Option("--sample", help="Sample from the whole distribution (Edunov et al. 2018).")]
Temperature = Annotated[float | None, typer.Option(parser=above_0, metavar="X", help="Of sampling (1).")]
TopK = Annotated[int | None, whole_number("Sample from the N likeliest tokens (all).", 0)]
TopP = Annotated[
    float | None,
    typer.Option(parser=above_0, metavar="X", help="Sample from the likeliest with this probability (1)."),
]
Seed = Annotated[int | None, whole_number("Of sampling (0).", 0)]
Ray = Annotated[bool, typer.Option("--ray", help="Translate by actors of Ray, on this machine or a cluster.")]
RayActors = Annotated[int | None, whole_number("Actors, each with --threads processors (what the cluster has).")]


def register(app: typer.Typer) -> None:
    """Add both commands."""
    for name, what in (("translate", "Translate"), ("summarize", "Summarize")):
        _register(app, name, what)


def _register(app: typer.Typer, name: str, what: str) -> None:
    def command(
        model: Model,
        input: Input = "-",
        output: Output = "-",
        json: AsJson = False,
        pairs: Pairs = False,
        source_prefix: Prefix = None,
        max_source_length: MaxSource = None,
        overlong: OverlongOption = "error",
        language: Language = None,
        num_beams: Beams = None,
        max_new_tokens: MaxNew = None,
        min_new_tokens: MinNew = None,
        length_penalty: LengthPenalty = None,
        reverse_model: ReverseModel = None,
        reverse_weight: ReverseWeight = None,
        sample: Sample = False,
        temperature: Temperature = None,
        top_k: TopK = None,
        top_p: TopP = None,
        seed: Seed = None,
        encoder_mask: Mask = None,
        decoder_mask: Mask = None,
        cross_mask: Mask = None,
        batch_tokens: BatchTokens = 4096,
        engine: Engine = "auto",
        threads: Threads = None,
        ray: Ray = False,
        ray_actors: RayActors = None,
        dtype: Dtype = "auto",
        device: Device = None,
        quiet: Quiet = False,
    ) -> None:
        given = dict(locals())
        _check(given)
        generation = {key: given[key] for key in (*_GENERATION, *SAMPLING) if given[key] is not None}
        _generate(name, given, generation)

    command.__doc__ = (
        f"{what} texts, a line at a time.\n\n"
        "With --output, the same command continues a run that was stopped, and the file appears when it is complete."
    )
    if name == "summarize":  # a summary does not give its source back
        shown = signature(command)
        kept = [item for item in shown.parameters.values() if not item.name.startswith("reverse_")]
        cast(Any, command).__signature__ = shown.replace(parameters=kept)
    add(app, name, "Use a model")(command)


_GENERATION = (
    "num_beams", "max_new_tokens", "min_new_tokens", "length_penalty", "encoder_mask", "decoder_mask", "cross_mask",
)  # fmt: skip
_NOT_OF_THE_OUTPUT = ("output", "quiet", "device", "threads", "ray", "ray_actors")


def _check(given: dict[str, Any]) -> None:
    from crossmask.inference.options import MASKS, check_mask
    from crossmask.utils.errors import InputError

    for name in MASKS:
        check_mask(name, given[name])
    if not given["sample"] and (idle := [name for name in (*SAMPLING, "seed") if given[name] is not None]):
        flag = f"--{idle[0].replace('_', '-')}"
        raise InputError(f"{flag} must come with --sample, without which it does nothing; give both or neither")
    if given["json"] and given["pairs"]:
        raise InputError("--json must be left out beside --pairs, whose lines are not JSON; give one of them")
    if given["reverse_weight"] is not None and given["reverse_model"] is None:
        raise InputError("--reverse-weight must come with --reverse-model, without which it does nothing; give both")
    for name in ("sample", "ray"):
        if given["reverse_model"] is not None and given[name]:
            raise InputError(f"--reverse-model must be left out beside --{name}, with which it does not work")
    if given["ray_actors"] is not None and not given["ray"]:
        raise InputError("--ray-actors must come with --ray, without which it does nothing; give both or neither")
    if given["language"] is not None and given["overlong"] != "split":
        raise InputError("--language must come with --overlong split, without which it does nothing")


def _generate(name: str, given: dict[str, Any], generation: dict[str, Any]) -> None:
    import sys

    from crossmask.inference.files import LineTranslator, translate_file
    from crossmask.inference.texts import tokenizers_of
    from crossmask.pipelines.saved_options import saved_prefix
    from crossmask.serving import RayLines, load_translator
    from crossmask.serving.libraries import require
    from crossmask.utils.disk import naming_full_disks
    from crossmask.utils.hardware import device_named

    if given["sample"]:
        generation = {"do_sample": True, "num_beams": 1, "top_k": 0} | generation
    else:
        generation = {"do_sample": False} | generation
    if given["ray"]:
        require("ray.data", "ray", "translate on a cluster")
    splitter = _splitter(given["language"])
    device_named(given["device"])  # refuses one that is not there before the input is read
    line_count = None if given["input"] == "-" else sum(1 for _ in read_input(given["input"]))
    quieten()
    loading = {key: given[key] for key in ("model", "engine", "device", "dtype", "threads")}
    with load_translator(**loading) as translator:
        if given["source_prefix"] is None:
            given["source_prefix"] = saved_prefix(translator.model.config, _TASKS[name])
        if given["reverse_model"] is not None:
            generation = {**generation, "custom_generate": _reranker(translator, given)}
        one = LineTranslator(
            translator,
            max_source_length=given["max_source_length"]
            or translator.max_source_length
            or tokenizers_of(translator.tokenizer)[0].model_max_length,
            pairs=given["pairs"],
            json_key=_KEYS[name] if given["json"] else None,
            prefix=given["source_prefix"],
            overlong=given["overlong"],
            splitter=splitter,
            batch_tokens=given["batch_tokens"],
            seed=given["seed"] or 0,
            options=generation,
        )
        translate = RayLines(one, loading, given["ray_actors"]) if given["ray"] else one
        if given["dtype"] == "auto":
            print(f"generating in {translator.dtype}", file=sys.stderr)
        with progress("lines", line_count, given["quiet"]) as bar:
            lines = read_input(given["input"])
            if given["output"] != "-":
                # The engine and the dtype in use: `auto` may be others on the machine that continues the run.
                settings = {k: v for k, v in given.items() if k not in _NOT_OF_THE_OUTPUT}
                settings |= {"lines": line_count, "engine": translator.engine, "dtype": translator.dtype}
                translate_file(translate, lines, Path(given["output"]), settings, bar)
                return
            with naming_full_disks("standard output"):
                for text in translate(lines, bar):
                    sys.stdout.write(text)
                    sys.stdout.flush()


def _reranker(translator: Any, given: dict[str, Any]) -> Any:
    from crossmask.inference.reranking import NoisyChannelReranker
    from crossmask.utils.errors import InputError

    if translator.engine != "torch":
        raise InputError(
            f"--reverse-model must be left out with engine {translator.engine}; give a model that PyTorch runs"
        )
    return NoisyChannelReranker.load(
        given["reverse_model"],
        translator.tokenizer,
        weight=given["reverse_weight"],
        prefix=given["source_prefix"],
        device=translator.model.device,
        dtype=translator.model.dtype,
    )


def _splitter(language: str | None) -> Any:
    """What splits a text into sentences by the rules of a language; None for the rules of the package."""
    if language is None:
        return None
    from functools import partial

    from crossmask.utils.errors import MissingLibraryError

    try:
        import sentencex
    except ImportError:
        raise MissingLibraryError(
            "--language needs sentencex, which is not installed; pip install sentencex"
        ) from None
    return partial(sentencex.segment, language)
