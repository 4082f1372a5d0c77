"""From values in a file to records of text: every fault names the place."""

import math
import reprlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from datasets import Dataset, Features, List, Value

from ...utils.errors import InputError
from ...utils.text import check_unicode

Columns = Mapping[str, str | int]
Text = str | list[str]


def look_up(record: Any, key: str, place: str) -> Any:
    """`record[key]`, with dots into nested objects."""
    value = record
    for name in [key] if isinstance(record, Mapping) and key in record else key.split("."):
        if not isinstance(value, Mapping) or value.get(name) is None:
            text = f"it is {reprlib.repr(value):.60}"  # however deep it is
            has = f"it has {', '.join(map(str, value))}" if isinstance(value, Mapping) else text
            raise InputError(f"{place}: no column {key!r}: {has}")
        value = value[name]
    return value


def list_of(record: Any, key: str, place: str) -> list[Any]:
    """`record[key]`, which has to be a list."""
    value = look_up(record, key, place)
    if not isinstance(value, list):
        raise InputError(f"{place}: {key!r} is {type(value).__name__}: expected a list")
    return value


def as_text(value: Any, place: str, key: str) -> Text:
    """The value of a key as text, or as the list of text that it is; numbers become text."""
    if isinstance(value, bool) or not isinstance(value, str | int | float | list):
        raise InputError(f"{place}: {key!r} is {type(value).__name__}: expected text, a number or a list of text")
    if isinstance(value, list):
        if not all(isinstance(item, str) for item in value):
            raise InputError(f"{place}: {key!r} is a list of something else than text: expected a list of text")
        for item in value:
            check_unicode(item, f"{place}: {key!r}")
        return value
    if isinstance(value, float) and not math.isfinite(value):
        raise InputError(f"{place}: {key!r} is {value}: expected text, a finite number or a list of text")
    if isinstance(value, str):
        check_unicode(value, f"{place}: {key!r}")
    return str(value)


def to_dataset(rows: Sequence[Mapping[str, Text]], columns: Iterable[str], path: Any) -> Dataset:
    """The records as columns of text or of lists of text; `path` names them where there is none."""
    if not rows:
        raise InputError(f"{path} has no records: expected at least one")
    features = {}
    for name in columns:
        kinds = {isinstance(row[name], list) for row in rows}
        if len(kinds) > 1:
            raise InputError(
                f"{path}: column {name!r} is text in some records and a list in others: make it one of them"
            )
        features[name] = List(Value("string")) if kinds == {True} else Value("string")
    return Dataset.from_dict({name: [row[name] for row in rows] for name in features}, features=Features(features))
