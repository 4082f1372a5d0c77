"""Checks of values from a recipe or a command line against declared types."""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

from .errors import InputError

_WORDS = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    Path: "a path",
    str: "text",
    dict: "a mapping",
    Mapping: "a mapping",
    list: "a list",
    Sequence: "a list",
}


def check_type(name: str, value: Any, declared: Any) -> None:
    """Refuse a value that is not of its declared type.

    A whole number is accepted as a number; true and false are not. Text is not a list of letters. A path is not empty.

    Raises:
        InputError: with the name, the value and what was expected.
    """
    if not _matches(value, declared):
        expected = " or ".join(_describe(declared))
        fix = "; put it in quotes" if expected == "text" and isinstance(value, bool | int | float | dict) else ""
        raise InputError(f"{name} must be {expected}, got {value!r}{fix}")


def check_choice(name: str, value: Any, choices: Iterable[str]) -> None:
    """Refuse a value that is none of the choices.

    Raises:
        InputError: with the choices, and the nearest of them where one is near.
    """
    choices = list(choices)
    if value not in choices:
        fix = f"; {near}" if (near := did_you_mean(value, choices)) else ""
        raise InputError(f"{name} must be one of {', '.join(map(str, choices))}, got {value!r}{fix}")


def did_you_mean(value: Any, known: Sequence[str]) -> str:
    """A question with the nearest of the known names, or "" where none is near."""
    near = difflib.get_close_matches(str(value)[:80], known, n=1)  # quick for a text of any length
    return f"did you mean {near[0]!r}?" if near else ""


def _matches(value: Any, declared: Any) -> bool:
    kind, arguments = get_origin(declared) or declared, get_args(declared)
    if kind in (Union, UnionType):
        return any(_matches(value, member) for member in _members(arguments))
    if kind is Literal:
        return any(value == literal and type(value) is type(literal) for literal in arguments)
    if kind is Any:
        return True
    if kind in (int, float):
        return isinstance(value, int if kind is int else int | float) and not isinstance(value, bool)
    if kind is Path:
        return isinstance(value, Path) or (isinstance(value, str) and value != "")
    if not isinstance(value, kind) or (kind is Sequence and isinstance(value, str)):
        return False
    if kind in (dict, Mapping):
        return all(
            _matches(part, type_) for pair in value.items() for part, type_ in zip(pair, arguments, strict=False)
        )
    return all(_matches(item, type_) for type_ in arguments for item in value)


def _describe(declared: Any) -> list[str]:
    """The alternatives that a type allows, in words; without None, which stands for a field that is left out."""
    kind, arguments = get_origin(declared) or declared, get_args(declared)
    if kind in (Union, UnionType):
        return [words for member in _members(arguments) for words in _describe(member)]
    if kind is Literal:
        return [f"one of {', '.join(map(str, arguments))}" if len(arguments) > 1 else str(arguments[0])]
    if kind not in _WORDS:
        return []
    items = [" or ".join(_describe(argument)) for argument in arguments]
    if kind in (dict, Mapping):
        return [_WORDS[kind] + (f" from {items[0]} to {items[1]}" if all(items) and items else "")]
    return [_WORDS[kind] + (f", each item {items[0]}" if any(items) else "")]


def _members(arguments: tuple[Any, ...]) -> list[Any]:
    """The members of a union; where a path is one, text stands for a path and is left out."""
    return [member for member in arguments if not (member is str and Path in arguments)]
