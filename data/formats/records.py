"""From values in a file to records of text: every error names the place."""

import math
import reprlib
from collections.abc import Iterable, Mapping
from typing import Any

from datasets import Dataset, Features, List, Value

from ...utils.errors import InputError
from ...utils.text import check_unicode

Columns = Mapping[str, str | int]
Text = str | list[str]
Record = Mapping[str, Any]


def look_up(record: Any, key: str, place: str) -> Any:
    """`record[key]`, with dots into nested objects; `place` names the record in errors.

    Raises:
        InputError: there is no such value, or null.
    """
    value = record
    for name in [key] if isinstance(record, Mapping) and key in record else key.split("."):
        if not isinstance(value, Mapping):
            shown = f"{reprlib.repr(value):.60}"  # short, however deep it is nested
            raise InputError(
                f"{place}: {key!r} must be in an object, got {shown}; write {{...}} or map another column"
            )
        if name not in value:
            known = ", ".join(map(str, value)) or "none"
            raise InputError(f"{place}: must have column {key!r}, got {known}; add it or map another")
        if value[name] is None:
            raise InputError(f"{place}: {key!r} must have a value, got null; fill it in or leave the record out")
        value = value[name]
    return value


def list_of(record: Any, key: str, place: str) -> list[Any]:
    """`record[key]`, which has to be a list."""
    value = look_up(record, key, place)
    if not isinstance(value, list):
        raise InputError(f"{place}: {key!r} must be a list, got {type(value).__name__}; write [...]")
    return value


def as_text(value: Any, place: str, key: str) -> Text:
    """The value of a key as text, or as the list of text that it is; numbers become text.

    Raises:
        InputError: another value, or text that is not valid Unicode.
    """
    if isinstance(value, bool) or not isinstance(value, str | int | float | list):
        raise InputError(
            f"{place}: {key!r} must be text, a number or a list of text, got {type(value).__name__}; "
            "map another column"
        )
    if isinstance(value, list):
        for item in value:
            if not isinstance(item, str):
                raise InputError(
                    f"{place}: each item of {key!r} must be text, got {type(item).__name__}; put it in quotes"
                )
            check_unicode(item, f"{place}: {key!r}")
        return value
    if isinstance(value, float) and not math.isfinite(value):
        raise InputError(
            f"{place}: {key!r} must be a finite number, text or a list of text, got {value}; leave it out"
        )
    if isinstance(value, str):
        check_unicode(value, f"{place}: {key!r}")
    return str(value)


def text_of(record: Any, key: str, place: str) -> str:
    """`record[key]` as text, which must not be a list."""
    text = as_text(look_up(record, key, place), place, key)
    if isinstance(text, list):
        raise InputError(f"{place}: {key!r} must be one text, got a list of {len(text)}; give one of them")
    return text


def to_dataset(records: Iterable[Record], origin: str) -> Dataset:
    """The records as columns, those of the first record: of text, of lists of text or of whole numbers, or of these by
    name; `origin` names them in errors.

    Raises:
        InputError: no records, other columns in one of them, or a column that is not the same throughout.
    """
    rows = list(records)
    if not rows:
        raise InputError(f"{origin} must have at least one record, got none; give a file that has some")
    for number, row in enumerate(rows, start=1):
        if row.keys() != rows[0].keys():
            raise InputError(
                f"record {number} of {origin} must have the columns of the first, {', '.join(rows[0])}, "
                f"got {', '.join(row)}; give all records the same columns"
            )
    features = {name: _feature_of([row[name] for row in rows], name, origin) for name in rows[0]}
    return Dataset.from_dict({name: [row[name] for row in rows] for name in features}, features=Features(features))


def _feature_of(values: list[Any], name: str, origin: str) -> Value | List | dict[str, Any]:
    if all(isinstance(value, str) for value in values):
        return Value("string")
    if all(isinstance(value, list) for value in values):
        items = [item for value in values for item in value]
        return List(Value("int64" if items and all(type(item) is int for item in items) else "string"))
    if all(isinstance(value, dict) and value.keys() == values[0].keys() for value in values):
        return {key: _feature_of([value[key] for value in values], f"{name}.{key}", origin) for key in values[0]}
    types = " and ".join(sorted({type(value).__name__ for value in values}))
    raise InputError(
        f"{origin}: column {name!r} must be text in all records, or a list of text in all, got {types}; convert it"
    )
