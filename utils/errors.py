"""Errors whose cause is the input, as opposed to a bug."""


class InputError(ValueError):
    """The input cannot be used. The message is one line, `X must be ..., got Y; do Z`, with its place in a file.

    Commands print the line and exit with 2; any other exception keeps its traceback (`utils/cli.py`).
    """


class InputTypeError(InputError, TypeError):
    """The input is of a type that cannot be used."""


class MissingLibraryError(ImportError):
    """A library that an optional feature needs is not installed. The message says how to install it."""


_errors_of_input: list[type[Exception]] = [InputError, MissingLibraryError, OSError]


def count_as_error_of_input(error: type[Exception]) -> None:
    """Let commands print errors of another class as one line, as they print `InputError`.

    `masks/` has an error class of its own, since its files are copied beside saved models without this module.
    """
    if error not in _errors_of_input:
        _errors_of_input.append(error)


def errors_of_input() -> tuple[type[Exception], ...]:
    """The classes of errors whose cause is the input or the machine: a file, a disk, a network."""
    return tuple(_errors_of_input)
