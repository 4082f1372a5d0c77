"""Errors whose cause is the input, as opposed to a bug."""


class InputError(ValueError):
    """What was given cannot be used. One line: what was given, where, what was expected, how to fix it.

    Commands print the line and exit with 2; any other exception keeps its traceback (`utils/cli.py`).
    """
