"""What all commands have in common: errors of one line, exit statuses, progress, and options."""

import json
import math
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import wraps
from itertools import repeat
from typing import Annotated, Any, Literal

import typer

PROGRAM = "crossmask"
Command = Callable[..., int | None]


def add(app: typer.Typer, name: str, panel: str, **settings: Any) -> Callable[[Command], Command]:
    """A decorator: makes a function a subcommand, whose errors of the input are one line, with exit status 2.

    The function returns another exit status, or None for 0.

    Args:
        panel: under which heading the help lists it. settings: of `typer.Typer.command`.
    """

    def decorate(function: Command) -> Command:
        @wraps(function)
        def run(*args: Any, **options: Any) -> int:
            from crossmask.utils.cli import run_command

            status = 0

            def call() -> None:
                nonlocal status
                status = function(*args, **options) or 0

            return run_command(f"{PROGRAM} {name}", call, []) or status

        app.command(name, rich_help_panel=panel, **settings)(run)
        return function

    return decorate


def whole_number(help_text: str, lowest: int = 1, highest: float = math.inf, metavar: str = "N") -> Any:
    """An option that is a whole number of at least `lowest`, and at most `highest`."""
    bounds = f"of at least {lowest}" if highest == math.inf else f"from {lowest} to {highest}"

    def read(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = lowest - 1
        if not lowest <= value <= highest:
            raise typer.BadParameter(f"must be a whole number {bounds}, got {str(text)[:20]!r}")
        return value

    return typer.Option(parser=read, metavar=metavar, help=help_text)


def whole_numbers(text: str) -> list[int]:
    """Whole numbers, separated by commas."""
    try:
        return [int(part) for part in text.split(",") if part.strip()]
    except ValueError:
        raise typer.BadParameter(f"must be whole numbers separated by commas, got {text[:40]!r}") from None


def finite(text: str) -> float:
    """A finite number."""
    return _finite(text, -math.inf, "")


def above_0(text: str) -> float:
    """A finite number above 0."""
    return _finite(text, 0, " above 0")


def _finite(text: str, above: float, bound: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or value <= above:
        raise typer.BadParameter(f"must be a finite number{bound}, got {text[:20]!r}")
    return value


Model = Annotated[str, typer.Argument(metavar="MODEL", help="Folder or Hub id of a saved model.", show_default=False)]
Input = Annotated[str, typer.Argument(metavar="INPUT", help="File, plain or gzip; - is standard input.")]
Device = Annotated[str | None, typer.Option(help="Such as cpu or cuda:1; an accelerator where there is one.")]
Dtype = Annotated[
    Literal["auto", "saved", "float32", "bfloat16", "float16", "int8"],
    typer.Option(
        help="auto is bfloat16 where the device multiplies in it natively, float32 elsewhere; of an exported model "
        "what it was exported in. int8 is for exported models."
    ),
]
Engine = Annotated[
    Literal["auto", "torch", "ctranslate2", "onnx"],
    typer.Option(help="What the folder must be for; auto goes by what is in it."),
]
Threads = Annotated[int | None, whole_number("Of the processor (the library's choice).")]
Port = Annotated[int, whole_number("To listen at.", highest=65535)]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress bar.")]
AsJson = Annotated[bool, typer.Option("--json", help="Write JSON.")]
ReverseModel = Annotated[
    str | None,
    typer.Option(
        metavar="MODEL",
        help="Of the other direction: chooses among the hypotheses of beam search the one that gives the source back.",
    ),
]
ReverseWeight = Annotated[
    float | None, typer.Option(parser=above_0, metavar="X", help="Of --reverse-model beside the model itself (0.5).")
]
BatchSize = Annotated[int, whole_number("Inputs in a batch.")]
Mask = Annotated[str | None, typer.Option(metavar="RULE", help="And-ed with the config's, such as wait_k(3).")]


class Progress:
    """A progress bar on standard error. `update(n)` is what functions of the package call."""

    def __init__(self, bar: Any, task: Any) -> None:
        self.bar, self.task = bar, task

    @property
    def total(self) -> float | None:
        return self.bar.tasks[self.task].total if self.bar is not None else None

    @total.setter
    def total(self, value: float | None) -> None:
        if self.bar is not None:
            self.bar.update(self.task, total=value)

    def update(self, number: int = 1) -> None:
        if self.bar is not None:
            self.bar.advance(self.task, number)


@contextmanager
def progress(unit: str, total: int | None, quiet: bool = False) -> Iterator[Progress]:
    """A progress bar for the time of a block; none if quiet."""
    if quiet:
        yield Progress(None, None)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn(unit), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Bar(*columns, console=Console(file=sys.stderr)) as bar:
        yield Progress(bar, bar.add_task(unit, total=total))


def read_input(path: str) -> Iterator[str]:
    """The lines of a file, or of standard input for `-`."""
    from crossmask.data.text_files import bounded_lines, decode_lines, read_lines

    if path != "-":
        return read_lines(path)
    return decode_lines(bounded_lines(sys.stdin.buffer, "standard input"), "standard input")


def each_item(items: Iterable[tuple[int, Any]], results: Callable[[Iterator[Any]], Any]) -> Iterator[tuple[int, Any]]:
    """What a pipeline makes of items, each with the number of its line, by which errors call it.

    Args:
        items: each with its number. results: runs the pipeline.

    Raises:
        InputError: an item that the pipeline cannot use.
    """
    from crossmask.pipelines.inputs import PipelineInputError
    from crossmask.utils.errors import InputError

    numbers: list[int] = []

    def read() -> Iterator[Any]:
        for number, item in items:
            numbers.append(number)
            yield item

    try:
        for index, result in enumerate(results(read())):
            yield numbers[index], result
    except PipelineInputError as error:
        named = re.sub(r"^inputs\[(\d+)\]", lambda match: f"line {numbers[int(match[1])]}", str(error))
        raise InputError(named) from error


def each_line(lines: Iterable[str], results: Callable[[Iterator[str]], Any]) -> Iterator[Any]:
    """What a pipeline makes of each line, None for a blank one. Raises InputError, as `each_item`."""
    from crossmask.utils.text import is_blank

    read = 0

    def shown() -> Iterator[tuple[int, str]]:
        nonlocal read
        for read, line in enumerate(lines, start=1):
            if not is_blank(line):
                yield read, line

    written = 0
    for number, result in each_item(shown(), results):
        yield from repeat(None, number - written - 1)
        yield result
        written = number
    yield from repeat(None, read - written)


def read_items(path: str, wanted: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """The lines of a file, or of standard input for `-`, each a mapping in JSON, with its number; no blank lines.

    Args:
        wanted: what errors say that a line must be.
    """
    from crossmask.utils.errors import InputError

    for number, line in enumerate(read_input(path), start=1):
        if not line.strip():
            continue
        try:
            item = json.loads(line)
        except ValueError as error:
            raise InputError(f"line {number} must be JSON, {wanted}, got {line[:40]!r} ({error})") from None
        if not isinstance(item, dict):
            raise InputError(f"line {number} must be {wanted}, got {line[:40]!r}")
        yield number, item


def write_json(value: Any) -> None:
    """Write a value as one line of JSON to standard output."""
    print(json.dumps(value, ensure_ascii=False), flush=True)


def quieten() -> None:
    """Keep bars and reports of Transformers away: errors are raised, and results are what commands print."""
    from datasets import disable_progress_bars
    from transformers.utils import logging

    disable_progress_bars()
    logging.disable_progress_bar()
    logging.set_verbosity_error()


def load_pipeline(task: str, model: str, device: str | None, dtype: str, engine: str = "torch", **options: Any) -> Any:
    """A pipeline for a saved model, or for one that was exported to another engine, loaded with errors of one line.

    Args:
        engine: `auto` or one of those of `load_translator`; anything but `torch` is for pipelines that write texts.
    """
    from transformers import pipeline

    from crossmask.inference.loading import (
        check_kind,
        choose_dtype,
        load_config,
        load_model,
        load_tokenizer_or_processor,
    )
    from crossmask.pipelines.registration import auto_class_for
    from crossmask.utils.hardware import device_named

    quieten()
    make: Any = pipeline
    loaded: Any
    if engine != "torch" and (engine != "auto" or _is_exported(model)):
        from crossmask.serving import load_translator

        translator = load_translator(model, engine, device=device, dtype=dtype)
        loaded = translator.model
        return make(f"crossmask-{task}", model=loaded, tokenizer=translator.tokenizer, device=loaded.device, **options)
    on = device_named(device)
    config = load_config(model)
    auto_class = auto_class_for(task, config)
    check_kind(model, config, auto_class)
    tokenizer = load_tokenizer_or_processor(model, config)
    loaded = load_model(model, config, choose_dtype(dtype, on), auto_class=auto_class)
    return make(f"crossmask-{task}", model=loaded, tokenizer=tokenizer, device=on, **options)


def _is_exported(model: str) -> bool:
    from pathlib import Path

    from crossmask.serving.manifest import read_manifest

    return read_manifest(Path(model)) is not None
