"""Errors whose cause is the input, as opposed to a bug."""


class InputError(ValueError):
    """What was given cannot be used. One line: what was given, where, what was expected, how to fix it.

    Commands print the line and exit with 2; any other exception keeps its traceback (`utils/cli.py`).
    """


class InputTypeError(InputError, TypeError):
    """What was given is of a type that cannot be used."""


class MissingLibraryError(ImportError):
    """A library that an optional feature needs is not installed. The message says how to install it."""
