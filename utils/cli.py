"""The command lines: an error of the input becomes one line, any other exception keeps its traceback."""

import os
import select
import signal
import sys
from collections.abc import Callable, Sequence

from huggingface_hub.errors import StrictDataclassError

from .errors import errors_of_input
from .text import check_unicode

INPUT_ERROR = 2
INTERRUPTED = 128 + signal.SIGINT
_LONGEST_WORD = 1000  # of a message; the rest of a number of 5,000 digits is of no use
PIPE_CLOSED = 128 + signal.SIGPIPE


def run_command(prog: str, command: Callable[[], None], arguments: Sequence[str] | None = None) -> int:
    """Run a command, and return its exit status.

    For an error of the input, the line `prog: message` is printed on standard error, and the status is 2. Such errors
    are those of `errors_of_input()`, and what a strict config raises for a field. Ctrl-C ends the command with 130. If
    the reader of a pipe closes it, the command ends without a message. Any other exception is a bug, and is raised.

    Args:
        arguments: of the command; the process's own arguments if None.
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


def complain(prog: str, reason: object, status: int = INPUT_ERROR) -> int:
    """Print why a command ends, on one line, and return the status."""
    print(f"{prog}: {_one_line(reason)}", file=sys.stderr)
    return status


def _one_line(reason: object) -> str:
    words = str(reason).split()
    return " ".join(word if len(word) <= _LONGEST_WORD else f"{word[:_LONGEST_WORD]}..." for word in words)


def _stdout_is_closed() -> bool:
    """Whether the reader of standard output has closed it; further output is then discarded."""
    try:
        output = sys.stdout.fileno()
    except OSError:  # a stream that is not a file
        return False
    watch = select.poll()
    watch.register(output, 0)
    closed = any(event & select.POLLERR for _, event in watch.poll(0))
    if closed:
        # The interpreter flushes once more at its exit, which would be an error.
        os.dup2(os.open(os.devnull, os.O_WRONLY), output)
    return closed
