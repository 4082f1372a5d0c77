"""Pairs of text: line-aligned files, tab-separated values, JSON lines."""

from datasets import Dataset

from ..reading import parse_json, read_lines
from .records import Columns, as_text, look_up, to_dataset
from .registry import register_format


@register_format("lines")
def load_lines(*, source: str, target: str, group: str | None = None) -> Dataset:
    """Line-aligned text: line i of `source` belongs to line i of `target`. Empty lines are kept.

    `group` is what the column of that name holds in every row.
    """
    sides = {"source": list(read_lines(source)), "target": list(read_lines(target))}
    counts = [len(lines) for lines in sides.values()]
    if counts[0] != counts[1]:
        raise ValueError(
            f"{source} has {counts[0]} lines and {target} has {counts[1]}: expected as many, line i for line i"
        )
    if group is not None:
        sides["group"] = [group] * counts[0]
    return Dataset.from_dict(sides)


@register_format("tsv")
def load_tsv(*, path: str, columns: Columns | None = None) -> Dataset:
    """Tab-separated values, without quoting.

    `columns` maps a record's columns to the file's: to numbers, counted from 0, in a file without a header, or to the
    names in its first line. Without it the first two are `source` and `target`.
    """
    columns = dict(columns or {"source": 0, "target": 1})
    lines = enumerate(read_lines(path), start=1)
    if not all(isinstance(at, int) for at in columns.values()):
        header = next(lines)[1].split("\t")
        columns = {name: _header_index(path, header, at) for name, at in columns.items()}
    rows = []
    for number, line in lines:
        fields = line.split("\t")
        for name, at in columns.items():
            if int(at) >= len(fields):
                raise ValueError(
                    f"{path}, line {number}: no column {int(at)} for {name!r}, the line has {len(fields)} "
                    "tab-separated columns: complete the line, or map other columns"
                )
        rows.append({name: fields[int(at)] for name, at in columns.items()})
    return to_dataset(rows, columns, path)


def _header_index(path: str, header: list[str], at: str | int) -> int:
    if isinstance(at, int):
        return at
    if at not in header:
        raise ValueError(f"{path}, line 1: no column {at!r} in the header: it has {', '.join(header)}")
    return header.index(at)


@register_format("jsonl")
def load_jsonl(*, path: str, columns: Columns | None = None) -> Dataset:
    """JSON lines: one object a line.

    `columns` maps a record's columns to keys of the objects, with dots into nested ones (`translation.en`). Without it
    they are `source` and `target`. Values are text, numbers (taken as text) or lists of text.
    """
    columns = dict(columns or {"source": "source", "target": "target"})
    rows = []
    for number, line in enumerate(read_lines(path), start=1):
        place = f"{path}, line {number}"
        record = parse_json(line, path, number)
        rows.append(
            {name: as_text(look_up(record, str(key), place), place, str(key)) for name, key in columns.items()}
        )
    return to_dataset(rows, columns, path)
