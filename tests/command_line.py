"""A subcommand of the command line as a function, in this process."""

from collections.abc import Callable, Sequence

from crossmask.cli.main import main


def command(name: str) -> Callable[[Sequence[str]], int]:
    """What runs `crossmask NAME ARGUMENTS`, and returns the exit status."""
    return lambda arguments: main([name, *arguments])
