"""Columns of a record, read with errors that name the column and the record."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..utils.errors import InputError


def column(record: Mapping[str, Any], name: str, fix: str) -> Any:
    """`record[name]`; ValueError that names the column, the record's columns and how to fix it if it is not there."""
    if name not in record:
        columns = ", ".join(repr(key) for key in record) or "none"
        raise InputError(f"the record must have a column {name!r}, got {columns}; {fix}")
    return record[name]


def text_column(record: Mapping[str, Any], name: str, fix: str) -> str:
    """`record[name]`, which must be text with more in it than whitespace; ValueError if not."""
    return check_text(column(record, name, fix), name, record)


def check_columns(source_column: str, target_column: str) -> None:
    """Refuse one column for both sides, as when one of two swapped names is forgotten.

    Raises:
        InputError: they are the same.
    """
    if source_column == target_column:
        raise InputError(f"source_column and target_column must differ, got {source_column!r} for both")


def check_text(value: Any, name: str, record: Mapping[str, Any]) -> str:
    """`value`, from column `name` of `record`, if it is text with more in it than whitespace; ValueError if not."""
    if not isinstance(value, str):
        kind = type(value).__name__
        raise InputError(f"column {name!r} must hold text, got {kind} in the record {excerpt(record)}")
    if not value.strip():
        raise InputError(f"column {name!r} must not be empty in the record {excerpt(record)}; drop or fill such rows")
    return value


def group_of(record: Mapping[str, Any], group_column: str | None) -> str | None:
    """What `group_column` holds, as text; if that is None, what a column `group` holds where there is one."""
    if group_column is None:
        value = record.get("group")
    else:
        value = column(
            record, group_column, "name one of them in report_by or the task option group_column, or leave both out"
        )
    if value is not None and (not isinstance(value, str | int) or value == ""):
        raise InputError(f"the group must be a name or a number, got {value!r} in the record {excerpt(record)}")
    return None if value is None else str(value)


def excerpt(record: Mapping[str, Any], width: int = 160) -> str:
    """The record on one line, cut to `width` characters."""
    text = repr(dict(record))
    return text if len(text) <= width else text[: width - 3] + "..."
