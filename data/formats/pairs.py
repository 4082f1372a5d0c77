"""Pairs of text: parallel files, tab-separated values, JSON lines."""

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

from ...utils.errors import InputError
from ..text_files import parse_json, read_lines
from .records import Columns, Text, as_text, look_up
from .registry import register_format

logger = logging.getLogger(__name__)
Files = str | Path | Sequence[str | Path]


@register_format("lines")
def read_parallel_lines(*, source: Files, target: Files, group: str | None = None) -> Iterator[dict[str, Text]]:
    """Parallel text: line i of `source` belongs to line i of `target`. Empty lines are kept.

    Each side is a file or a list of files; those of a list follow one another. `group` is what the column of that name
    holds in every record.
    """
    extra = {} if group is None else {"group": group}
    for source_file, target_file in _pairs_of_files(source, target):
        counts = [0, 0]
        for pair in zip_longest(read_lines(source_file), read_lines(target_file)):
            counts = [count + (line is not None) for count, line in zip(counts, pair, strict=True)]
            if counts[0] == counts[1]:
                yield {"source": pair[0], "target": pair[1], **extra}
        if counts[0] != counts[1]:
            raise InputError(
                f"{source_file} and {target_file} must have the same number of lines, got {counts[0]} and "
                f"{counts[1]}; align them line by line"
            )


def _pairs_of_files(source: Files, target: Files) -> list[tuple[str | Path, str | Path]]:
    sides = [[side] if isinstance(side, str | Path) else list(side) for side in (source, target)]
    if len(sides[0]) != len(sides[1]) or not sides[0]:
        raise InputError(
            f"source and target must have the same number of files, one or more, got {len(sides[0])} and "
            f"{len(sides[1])}; give a file of each side"
        )
    return list(zip(*sides, strict=True))


@register_format("tsv")
def read_tsv(*, path: str | Path, columns: Columns | None = None) -> Iterator[dict[str, Text]]:
    """Tab-separated values, without quoting.

    `columns` maps a record's columns to the file's: to numbers, counted from 0, in a file without a header, or to the
    names in its first line. Without it the first two are `source` and `target`.
    """
    columns = dict(columns or {"source": 0, "target": 1})
    for name, column in columns.items():
        if isinstance(column, int) and column < 0:
            raise InputError(f"columns.{name} must be 0 or more, or a name in the header, got {column}; count from 0")
    lines = enumerate(read_lines(path), start=1)
    if all(isinstance(column, int) for column in columns.values()):
        indices = {name: int(column) for name, column in columns.items()}
    else:
        header = next(lines)[1].split("\t")
        indices = {name: _index_in(header, column, path) for name, column in columns.items()}
    for number, line in lines:
        fields = line.split("\t")
        for name, index in indices.items():
            if index >= len(fields):
                raise InputError(
                    f"{path}, line {number}: must have column {index} for {name!r}, got {len(fields)} tab-separated "
                    "columns; complete the line, or map other columns"
                )
        yield {name: fields[index] for name, index in indices.items()}


def _index_in(header: list[str], column: str | int, path: str | Path) -> int:
    if isinstance(column, int):
        return column
    if column not in header:
        raise InputError(
            f"{path}, line 1: the header must have column {column!r}, got {', '.join(header)}; map one of these"
        )
    return header.index(column)


@register_format("jsonl")
def read_jsonl(*, path: str | Path, columns: Columns | None = None) -> Iterator[dict[str, Any]]:
    """JSON lines: one object a line.

    `columns` maps a record's columns to keys of the objects, with dots into nested ones (`translation.en`). Without it
    they are the keys that all objects have with such values, and a warning names others; `source` and `target` in any
    case where the first object has both. Values are text, numbers (taken as text), lists of text, or objects of lists,
    such as the `answers` of SQuAD.
    """
    objects: Iterable[tuple[str, Any]] = _objects(path)
    if not columns:
        objects = list(objects)  # a pipe is read once
        columns = {name: name for name in _common_keys(path, objects)}
    for place, record in objects:
        yield {name: _value(look_up(record, str(key), place), place, str(key)) for name, key in columns.items()}


def _objects(path: str | Path) -> Iterator[tuple[str, Any]]:
    """What the lines hold, each with its place."""
    for number, line in enumerate(read_lines(path), start=1):
        yield f"{path}, line {number}", parse_json(line, path, number)


def _common_keys(path: str | Path, objects: Iterable[tuple[str, Any]]) -> list[str]:
    """The keys whose values all objects have in a form that records take.

    Raises:
        InputError: an object without `source` or `target`, or with another value, where the first has both.
    """
    common: list[str] | None = None
    needed: list[str] = []
    for place, record in objects:
        if common is None and isinstance(record, Mapping):
            common = list(record)
            needed = ["source", "target"] if {"source", "target"} <= record.keys() else []
        for name in needed:
            as_text(look_up(record, name, place), place, name)
        if common is None or not isinstance(record, Mapping):
            raise InputError(f"{place}: must be an object, got {str(record)[:40]}; write {{...}}")
        for name in [name for name in common if not _is_usable(record.get(name))]:
            common.remove(name)
            logger.warning("%s has no text in %r: no record has this column; map columns to keep it", place, name)
    if common == []:
        raise InputError(f"{path} must have a key with text that all lines have, got none; map columns")
    return common or []


def _is_usable(value: Any) -> bool:
    is_list = isinstance(value, list) and all(isinstance(one, str) for one in value)
    return type(value) in (str, int, float) or is_list or _has_lists(value)


def _has_lists(value: Any) -> bool:
    """Whether a value is an object of lists, each of texts or of whole numbers."""
    lists = list(value.values()) if isinstance(value, Mapping) else []
    kinds = [{type(one) for one in each} if isinstance(each, list) else {object} for each in lists]
    return bool(lists) and all(kind <= {str} or kind <= {int} for kind in kinds)


def _value(value: Any, place: str, key: str) -> Any:
    return value if _has_lists(value) else as_text(value, place, key)
