"""One boundary for every command: what the input is to blame for is one line, a bug of ours keeps its traceback."""

import argparse
import math
import os
import select
import signal
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

from huggingface_hub.errors import StrictDataclassError

from .errors import errors_of_input
from .text import check_unicode

FAULT_OF_INPUT = 2
INTERRUPTED = 128 + signal.SIGINT
_LONGEST_WORD = 1000  # of a message: the rest of a number of 5,000 digits tells nobody anything
PIPE_CLOSED = 128 + signal.SIGPIPE


class Parser(argparse.ArgumentParser):
    """Prints what is wrong with the arguments on one line, without the usage."""

    def error(self, message: str) -> NoReturn:
        self.exit(FAULT_OF_INPUT, f"{self.prog}: {_one_line(message)}; see {self.prog} --help\n")


def run_command(prog: str, command: Callable[[], None], arguments: Sequence[str] | None = None) -> int:
    """Run a command, and return its exit status.

    Errors of the input are `errors_of_input()`, and what a strict config raises for a field: one line,
    `prog: message`, on standard error, and status 2. Ctrl-C ends the command with 130, and a reader that closed the
    pipe ends it quietly. Any other exception is a bug and passes.

    Args:
        arguments: what the command was given; the process's own arguments if None.
    """
    try:
        for number, argument in enumerate(sys.argv[1:] if arguments is None else arguments, start=1):
            check_unicode(argument, f"argument {number} of the command line")
        command()
        sys.stdout.flush()
    except KeyboardInterrupt:
        return complain(prog, "interrupted", INTERRUPTED)
    except StrictDataclassError as error:
        return complain(prog, error.__cause__ or error)
    except errors_of_input() as error:
        return PIPE_CLOSED if isinstance(error, BrokenPipeError) and _stdout_is_closed() else complain(prog, error)
    return 0


def complain(prog: str, reason: object, status: int = FAULT_OF_INPUT) -> int:
    """Print why a command ends, on one line, and return the status."""
    print(f"{prog}: {_one_line(reason)}", file=sys.stderr)
    return status


def _one_line(reason: object) -> str:
    words = str(reason).split()
    return " ".join(word if len(word) <= _LONGEST_WORD else f"{word[:_LONGEST_WORD]}..." for word in words)


def _stdout_is_closed() -> bool:
    """Whether nobody reads standard output any more; what was meant for it is then thrown away."""
    try:
        output = sys.stdout.fileno()
    except OSError:  # a stream that is not a file
        return False
    watch = select.poll()
    watch.register(output, 0)
    closed = any(event & select.POLLERR for _, event in watch.poll(0))
    if closed:
        # The interpreter flushes once more at its exit, and would complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), output)
    return closed


def whole_number(lowest: int) -> Callable[[str], int]:
    """The type of an argument that is a whole number of at least `lowest`."""

    def read(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = None
        if value is None or value < lowest:
            raise argparse.ArgumentTypeError(f"must be a whole number of at least {lowest}, got {text[:20]!r}")
        return value

    return read


def finite_number(above: float = -math.inf) -> Callable[[str], float]:
    """The type of an argument that is a finite number, larger than `above`."""

    def read(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not math.isfinite(value) or value <= above:
            bound = "" if above == -math.inf else f" above {above}"
            raise argparse.ArgumentTypeError(f"must be a finite number{bound}, got {text[:20]!r}")
        return value

    return read
