"""Formats by name, and the options that each takes."""

import inspect
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, get_args, get_type_hints

from datasets import Dataset

from ...utils.errors import InputError
from ...utils.type_checks import check_type

Loader = Callable[..., Dataset]
Reader = Callable[..., Iterator[dict[str, Any]]]

_FORMATS: dict[str, Loader] = {}
_READERS: dict[str, Reader] = {}


def register_format(name: str, reader: Reader | None = None) -> Callable[[Loader], Loader]:
    """Makes the decorated function the loader of `format: name`.

    `reader` takes the same options and gives the same records one by one, for data larger than memory.
    """

    def register(loader: Loader) -> Loader:
        _FORMATS[name] = loader
        if reader is not None:
            _READERS[name] = reader
        return loader

    return register


def get_format(name: str) -> Loader:
    """The loader of a format; raises ValueError for an unknown one."""
    if name not in _FORMATS:
        raise InputError(f"unknown data format {name!r}: expected one of {', '.join(sorted(_FORMATS))}")
    return _FORMATS[name]


def get_reader(name: str) -> Reader:
    """The reader of a format; raises ValueError for one that is read only as a whole."""
    if name not in _READERS:
        raise InputError(f"data format {name} is not read as a stream: expected one of {', '.join(sorted(_READERS))}")
    return _READERS[name]


def check_options(name: str, options: Mapping[str, Any]) -> None:
    """Raises ValueError where `options` are not what the format takes, or not of the types that it declares."""
    loader = get_format(name)
    parameters = inspect.signature(loader).parameters
    unknown = [key for key in options if key not in parameters]
    if unknown:
        raise InputError(f"data format {name} has no option {unknown[0]!r}: it takes {', '.join(parameters)}")
    missing = [key for key, given in parameters.items() if given.default is given.empty and key not in options]
    if missing:
        raise InputError(f"data format {name} needs the option {missing[0]!r}: it takes {', '.join(parameters)}")
    declared = get_type_hints(loader)
    for key, value in options.items():
        check_type(key, value, declared.get(key, Any))


def path_options(name: str) -> list[str]:
    """The options of a format that name files: those whose declared type has `Path` in it."""
    return [key for key, declared in get_type_hints(get_format(name)).items() if Path in get_args(declared)]
