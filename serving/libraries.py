"""The optional libraries of exports and engines: imported when they are needed, with a clear error where they are not
installed."""

from importlib import import_module
from typing import Any

from ..utils.errors import MissingLibraryError


def require(name: str, extra: str, purpose: str) -> Any:
    """A module of an optional library.

    Args:
        name: of the module. extra: of this package, which installs it. purpose: what it is needed for.

    Raises:
        MissingLibraryError: it is not installed; the message has the command that installs it.
    """
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        library = name.partition(".")[0]
        if error.name is None or error.name.partition(".")[0] != library:
            raise  # something that the library itself lacks
        raise MissingLibraryError(
            f"{library} must be installed to {purpose}; run: pip install 'crossmask[{extra}]'"
        ) from error
