"""Values deep in the mappings and lists of a recipe, by names with dots: `model.dropout`, `train.0.repeat`."""

from collections.abc import Sequence
from typing import Any

from ..utils.errors import InputError


def unshared(value: Any) -> Any:
    """A copy in which every mapping and list is there once: YAML's aliases give one that is in several places."""
    if isinstance(value, dict):
        return {key: unshared(item) for key, item in value.items()}
    return [unshared(item) for item in value] if isinstance(value, list) else value


def put(values: dict[str, Any], path: Sequence[str], value: Any, label: str) -> None:
    """Set a value; a mapping that is not there is made.

    Args:
        label: what errors call it.

    Raises:
        InputError: a key of something that is not a mapping, or a place that a list does not have.
    """
    *outer, last = path
    inner: Any = values
    for key in outer:
        inner = inner[_position(label, key, inner)] if isinstance(inner, list) else inner.setdefault(key, {})
        if not isinstance(inner, dict | list):
            raise InputError(f"{label}: {key!r} is not a mapping in the recipe")
    inner[_position(label, last, inner) if isinstance(inner, list) else last] = value


def value_at(values: Any, path: Sequence[str], default: Any = None) -> Any:
    """The value there, or the default where there is none."""
    for key in path:
        if isinstance(values, dict) and key in values:
            values = values[key]
        elif isinstance(values, list) and key.isdecimal() and int(key) < len(values):
            values = values[int(key)]
        else:
            return default
    return values


def _position(label: str, key: str, items: list[Any]) -> int:
    if not key.isdecimal() or int(key) >= len(items):
        raise InputError(f"{label}: {key!r} where the recipe has a list of {len(items)}: count from 0")
    return int(key)
