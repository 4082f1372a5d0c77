"""Pairs of text: line-aligned files, tab-separated values, JSON lines."""

from collections.abc import Iterator, Sequence
from itertools import zip_longest
from pathlib import Path

from datasets import Dataset

from ...utils.errors import InputError
from ..text_files import parse_json, read_lines
from .records import Columns, Text, as_text, look_up, to_dataset
from .registry import register_format

Files = str | Path | Sequence[str | Path]


def read_aligned(*, source: Files, target: Files, group: str | None = None) -> Iterator[dict[str, Text]]:
    """The records of `lines`, one by one."""
    extra = {} if group is None else {"group": group}
    for source_file, target_file in _pairs_of_files(source, target):
        counts = [0, 0]
        for pair in zip_longest(read_lines(source_file), read_lines(target_file)):
            counts = [count + (line is not None) for count, line in zip(counts, pair, strict=True)]
            if counts[0] == counts[1]:
                yield {"source": pair[0], "target": pair[1], **extra}
        if counts[0] != counts[1]:
            raise InputError(
                f"{source_file} has {counts[0]} lines and {target_file} has {counts[1]}: expected the same number, "
                "line i for line i"
            )


@register_format("lines", read_aligned)
def load_lines(*, source: Files, target: Files, group: str | None = None) -> Dataset:
    """Line-aligned text: line i of `source` belongs to line i of `target`. Empty lines are kept.

    Each side is a file or a list of files; those of a list follow one another. `group` is what the column of that name
    holds in every row.
    """
    rows = list(read_aligned(source=source, target=target, group=group))
    return to_dataset(rows, rows[0], source)


def _pairs_of_files(source: Files, target: Files) -> list[tuple[str | Path, str | Path]]:
    sides = [[side] if isinstance(side, str | Path) else list(side) for side in (source, target)]
    if len(sides[0]) != len(sides[1]) or not sides[0]:
        raise InputError(
            f"source has {len(sides[0])} files and target has {len(sides[1])}: expected the same number, at least one"
        )
    return list(zip(*sides, strict=True))


def read_tsv(*, path: str | Path, columns: Columns | None = None) -> Iterator[dict[str, Text]]:
    """The records of `tsv`, one by one."""
    columns = dict(columns or {"source": 0, "target": 1})
    for name, at in columns.items():
        if isinstance(at, int) and at < 0:
            raise InputError(f"columns maps {name!r} to {at}: expected a number from 0 on, or a name in the header")
    lines = enumerate(read_lines(path), start=1)
    if not all(isinstance(at, int) for at in columns.values()):
        header = next(lines)[1].split("\t")
        columns = {name: _header_index(path, header, at) for name, at in columns.items()}
    for number, line in lines:
        fields = line.split("\t")
        for name, at in columns.items():
            if int(at) >= len(fields):
                raise InputError(
                    f"{path}, line {number}: no column {int(at)} for {name!r}, the line has {len(fields)} "
                    "tab-separated columns: complete the line, or map other columns"
                )
        yield {name: fields[int(at)] for name, at in columns.items()}


@register_format("tsv", read_tsv)
def load_tsv(*, path: str | Path, columns: Columns | None = None) -> Dataset:
    """Tab-separated values, without quoting.

    `columns` maps a record's columns to the file's: to numbers, counted from 0, in a file without a header, or to the
    names in its first line. Without it the first two are `source` and `target`.
    """
    return to_dataset(list(read_tsv(path=path, columns=columns)), columns or ("source", "target"), path)


def _header_index(path: str | Path, header: list[str], at: str | int) -> int:
    if isinstance(at, int):
        return at
    if at not in header:
        raise InputError(f"{path}, line 1: no column {at!r} in the header: it has {', '.join(header)}")
    return header.index(at)


def read_jsonl(*, path: str | Path, columns: Columns | None = None) -> Iterator[dict[str, Text]]:
    """The records of `jsonl`, one by one."""
    columns = dict(columns or {"source": "source", "target": "target"})
    for number, line in enumerate(read_lines(path), start=1):
        place = f"{path}, line {number}"
        record = parse_json(line, path, number)
        yield {name: as_text(look_up(record, str(key), place), place, str(key)) for name, key in columns.items()}


@register_format("jsonl", read_jsonl)
def load_jsonl(*, path: str | Path, columns: Columns | None = None) -> Dataset:
    """JSON lines: one object a line.

    `columns` maps a record's columns to keys of the objects, with dots into nested ones (`translation.en`). Without it
    they are `source` and `target`. Values are text, numbers (taken as text) or lists of text.
    """
    return to_dataset(list(read_jsonl(path=path, columns=columns)), columns or ("source", "target"), path)
