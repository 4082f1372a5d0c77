"""Values that a recipe gives, held against what is declared for them."""

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

    A whole number is a number too, true and false are none; text is not a list of letters, and a path is not empty.

    Raises:
        ValueError: with the name, the value and what was expected.
    """
    if not _is_of(value, declared):
        expected = " or ".join(_in_words(declared))
        quotes = "; put it in quotes" if expected == "text" and isinstance(value, bool | int | float | dict) else ""
        raise InputError(f"{name} is {value!r}: expected {expected}{quotes}")


def check_choice(name: str, value: Any, choices: Iterable[str]) -> None:
    """Refuse what is none of the choices.

    Raises:
        ValueError: with the choices, and the nearest of them where one is near.
    """
    choices = list(choices)
    if value not in choices:
        fix = f"; {near}" if (near := did_you_mean(value, choices)) else ""
        raise InputError(f"{name} is {value!r}: expected one of {', '.join(map(str, choices))}{fix}")


def did_you_mean(value: Any, known: Sequence[str]) -> str:
    """The question that names the nearest of what is known, or nothing where none is near."""
    near = difflib.get_close_matches(str(value), known, n=1)
    return f"did you mean {near[0]!r}?" if near else ""


def _is_of(value: Any, declared: Any) -> bool:
    kind, inner = get_origin(declared) or declared, get_args(declared)
    if kind in (Union, UnionType):
        return any(_is_of(value, one) for one in _ways(inner))
    if kind is Literal:
        return any(value == one and type(value) is type(one) for one in inner)
    if kind is Any:
        return True
    if kind in (int, float):
        return isinstance(value, int if kind is int else int | float) and not isinstance(value, bool)
    if kind is Path:
        return isinstance(value, Path) or (isinstance(value, str) and value != "")
    if not isinstance(value, kind) or (kind is Sequence and isinstance(value, str)):
        return False
    if kind in (dict, Mapping):
        return all(_is_of(part, one) for pair in value.items() for part, one in zip(pair, inner, strict=False))
    return all(_is_of(item, one) for one in inner for item in value)


def _in_words(declared: Any) -> list[str]:
    """What was expected, every way of it; null, which stands for a field left out, is none."""
    kind, inner = get_origin(declared) or declared, get_args(declared)
    if kind in (Union, UnionType):
        return [words for one in _ways(inner) for words in _in_words(one)]
    if kind is Literal:
        return [f"one of {', '.join(map(str, inner))}"]
    if kind not in _WORDS:
        return []
    items = [" or ".join(_in_words(one)) for one in inner]
    if kind in (dict, Mapping):
        return [_WORDS[kind] + (f" from {items[0]} to {items[1]}" if all(items) and items else "")]
    return [_WORDS[kind] + (f", each item {items[0]}" if items else "")]


def _ways(inner: tuple[Any, ...]) -> list[Any]:
    """The members of a union; text that stands beside a path is one."""
    return [one for one in inner if not (one is str and Path in inner)]
