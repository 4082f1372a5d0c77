"""Formats by name: how each is read, and the options that it takes."""

import inspect
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol, get_args, get_type_hints, runtime_checkable

from datasets import Dataset

from ...utils.errors import InputError
from ...utils.type_checks import check_choice, check_type, did_you_mean
from .records import Record, to_dataset

Reader = Callable[..., Iterable[Record]]

_READERS: dict[str, Reader] = {}


@runtime_checkable
class LoadableRecords(Protocol):
    """Records that know a better way to become a `Dataset` than reading them all, such as a cache."""

    def to_dataset(self) -> Dataset: ...


def register_format(name: str) -> Callable[[Reader], Reader]:
    """Makes the decorated function the reader of `format: name`.

    Its keyword-only parameters are the options that a recipe may give, and their annotations the types that are
    accepted. It gives the records one by one, each a mapping from columns to text or lists of text.

    Raises:
        InputError: another function reads a format of that name.
        TypeError: a parameter that is not keyword-only.
    """

    def register(reader: Reader) -> Reader:
        known = _READERS.get(name)
        if known is not None and (known.__module__, known.__qualname__) != (reader.__module__, reader.__qualname__):
            raise InputError(
                f"the name of a data format must be new, got {name!r}, which {known.__module__}.{known.__qualname__} "
                "reads; choose another"
            )
        for parameter in inspect.signature(reader).parameters.values():
            if parameter.kind is not parameter.KEYWORD_ONLY:
                raise TypeError(
                    f"parameters of {reader.__qualname__} must be keyword-only, got {parameter.name}; put * before it"
                )
        _READERS[name] = reader
        return reader

    return register


def read_records(format_name: str, options: Mapping[str, Any]) -> Iterable[Record]:
    """The records of a format, one by one."""
    return _get_reader(format_name)(**options)


def load_records(format_name: str, options: Mapping[str, Any]) -> Dataset:
    """The records of a format, all of them, in columns of text or of lists of text."""
    records = read_records(format_name, options)
    if isinstance(records, LoadableRecords):
        return records.to_dataset()
    return to_dataset(records, ", ".join(files_of(format_name, options)) or f"data format {format_name}")


def check_options(format_name: str, options: Mapping[str, Any]) -> None:
    """Refuse options that a format does not take, or that are not of the types that it declares.

    Raises:
        InputError: with the option, what was given and what was expected.
    """
    reader = _get_reader(format_name)
    parameters = inspect.signature(reader).parameters
    for key in options:
        if key not in parameters:
            near = did_you_mean(key, list(parameters)) or "leave it out"
            raise InputError(
                f"options of data format {format_name} must be among {', '.join(parameters)}, got {key!r}; {near}"
            )
    for key, parameter in parameters.items():
        if parameter.default is parameter.empty and key not in options:
            raise InputError(
                f"data format {format_name} must have the option {key!r}, got {', '.join(options) or 'none'}; give it"
            )
    declared = get_type_hints(reader)
    for key, value in options.items():
        check_type(key, value, declared.get(key, Any))


def path_options(format_name: str) -> list[str]:
    """The options of a format that name files: those whose declared type has `Path` in it."""
    return [key for key, declared in get_type_hints(_get_reader(format_name)).items() if Path in get_args(declared)]


def files_of(format_name: str, options: Mapping[str, Any]) -> list[str]:
    """The files that the options of a format name."""
    values = [options[key] for key in path_options(format_name) if options.get(key) is not None]
    return [str(file) for value in values for file in ([value] if isinstance(value, str | Path) else value)]


def _get_reader(format_name: str) -> Reader:
    check_choice("data format", format_name, sorted(_READERS))
    return _READERS[format_name]
