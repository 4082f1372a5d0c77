"""The console script `crossmask`."""

import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated, Any

import typer

from . import (
    answer,
    audit,
    classify,
    evaluate,
    explore,
    export,
    extract,
    label,
    latency,
    mask,
    push,
    recipes,
    serve,
    stream,
    texts,
    train,
    tune,
)  # fmt: skip
from .command import PROGRAM

INPUT_ERROR = 2
INTERRUPTED = 130
# `typer` has its own copy of `click` in newer versions, whose errors all derive from this class.
UsageError: Any = next(base for base in typer.BadParameter.__mro__ if base.__name__ == "ClickException")

app = typer.Typer(
    name=PROGRAM,
    help="Train, use and examine encoder-decoders whose attention masks you can program.",
    epilog="Results are on standard output, progress is on standard error. "
    "Exit status: 0 done, 1 a leak was found, 2 the input cannot be used.",
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)
MODULES = (
    train, tune, recipes, texts, answer, classify, label, stream, serve, evaluate, latency, mask, audit, explore,
    extract, export, push,
)  # fmt: skip
for module in MODULES:
    module.register(app)


@app.callback(invoke_without_command=True)
def top(
    context: typer.Context,
    show_version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False,
) -> int:
    """Train, use and examine encoder-decoders whose attention masks you can program."""
    if show_version:
        print(f"{PROGRAM} {_version()}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        print(context.get_help())
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line, and return its exit status."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    for number, word in enumerate(words, start=1):
        try:
            word.encode()
        except UnicodeEncodeError as error:
            found = word[error.start]
            return _complain(
                f"argument {number} of the command line must be valid Unicode, got {found!r}; type it again"
            )
    try:
        status = app(args=words, prog_name=PROGRAM, standalone_mode=False)
    except UsageError as error:
        context = getattr(error, "ctx", None)
        program = PROGRAM if context is None else context.command_path
        return _complain(f"{error.format_message().rstrip('.')}; see {program} --help", program)
    except typer.Exit as error:
        return error.exit_code
    except (typer.Abort, KeyboardInterrupt):
        return _complain("interrupted", status=INTERRUPTED)
    return status if isinstance(status, int) else 0


def _complain(reason: str, program: str = PROGRAM, status: int = INPUT_ERROR) -> int:
    line = " ".join(f"{program}: {reason}".split())
    print(line.encode(errors="backslashreplace").decode(), file=sys.stderr)
    return status


def _version() -> str:
    try:
        return version(PROGRAM)
    except PackageNotFoundError:  # a source tree that is not installed
        import crossmask

        return crossmask.__version__


def run() -> None:
    """The console script."""
    sys.exit(main())


if __name__ == "__main__":
    run()
