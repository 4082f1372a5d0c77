"""Reading text files, plain or gzip, line by line: every error names the file and the line."""

import gzip
import json
import math
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, NoReturn, cast

import yaml

from ..utils.errors import InputError
from ..utils.text import check_unicode

_GZIP_MAGIC = b"\x1f\x8b"
LONGEST_LINE = 2**26  # bytes; a longer line is not text, and could fill the memory
LARGEST_DOCUMENT = 2**30  # bytes
_MOST_NODES = 10**6  # of a YAML value: by aliases a few lines can stand for any number

# What PyYAML raises for a text that it cannot read; for dates and numbers these are errors of Python.
YAML_FAULTS = (yaml.YAMLError, ValueError, ArithmeticError, LookupError, AttributeError, TypeError, RecursionError)


def read_lines(path: str | Path, longest: int = LONGEST_LINE) -> Iterator[str]:
    """The lines of a UTF-8 file without their line ends, LF or CR LF.

    Args:
        longest: the most bytes in a line.

    Raises:
        OSError: no such file, not readable, or broken gzip.
        InputError: not UTF-8, a NUL byte, a line that is too long, lines that end with CR alone, or an empty file.
    """
    yield from decode_lines(_raw_lines(Path(path), longest), path)


def decode_lines(lines: Iterable[bytes], path: str | Path, keep_ends: bool = False) -> Iterator[str]:
    """Lines as an open file gives them, decoded as `read_lines` does.

    Args:
        path: their name in errors.
        keep_ends: keep line ends, all as LF.
    """
    number = 0
    for number, raw in enumerate(lines, start=1):
        place = f"{path}, line {number}"
        try:
            text = raw.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise InputError(
                f"{place}: must be UTF-8, got byte 0x{raw[error.start]:02x} at column {error.start + 1}; convert the "
                "file to UTF-8"
            ) from None
        if "\0" in text:
            column = text.index("\0") + 1
            raise InputError(f"{place}: must be text, got a NUL byte at column {column}; convert the file to UTF-8")
        if number == 1 and not text.endswith("\n") and "\r" in text[:-1]:
            raise InputError(f"{place}: lines must end with LF, got CR alone; convert the line ends")
        line = text.removesuffix("\n").removesuffix("\r")
        yield f"{line}\n" if keep_ends and text.endswith("\n") else line
    if number == 0:
        raise InputError(f"{path} must have at least one line, got an empty file; give another")


def read_text(path: str | Path) -> str:
    """All of a UTF-8 file, with LF for its line ends; raises what `read_lines` does."""
    return "".join(decode_lines(_raw_lines(Path(path), LARGEST_DOCUMENT), path, keep_ends=True))


def read_json(path: str | Path) -> Any:
    """The one JSON value that a whole file holds."""
    return parse_json(read_text(path), path, 1)


def parse_json(text: str, path: str | Path, line: int) -> Any:
    """The value of a JSON text that starts on `line` of a file.

    Raises:
        InputError: not JSON, or JSON that does not stand for a value: NaN, numbers out of range, nesting too deep.
    """
    place = f"{path}, line {line}"
    try:
        return json.loads(text, parse_constant=_refuse_constant, parse_float=_finite)
    except json.JSONDecodeError as error:
        raise InputError(
            f"{path}, line {line + error.lineno - 1}, column {error.colno}: must be valid JSON: {error.msg}"
        ) from None
    except RecursionError:
        raise InputError(f"{place}: must be valid JSON: nested too deep; write it flat") from None
    except ValueError as error:
        raise InputError(f"{place}: must be valid JSON: {error}") from None


def read_yaml(path: str | Path) -> Any:
    """The value of a YAML file; raises what `read_lines` and `parse_yaml` do."""
    return parse_yaml(read_text(path), path)


class _UniqueKeys(yaml.SafeLoader):
    """Refuses a key that a mapping has twice, as YAML does; PyYAML silently takes the last one."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._checked: set[yaml.MappingNode] = set()

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        if node not in self._checked:  # before keys are merged into it by `<<`
            self._checked.add(node)
            seen = set()
            for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
                if (key.tag, key.value) in seen:
                    raise yaml.MarkedYAMLError(
                        problem=f"the key {key.value[:40]!r} is given twice; leave one out",
                        problem_mark=key.start_mark,
                    )
                seen.add((key.tag, key.value))
        super().flatten_mapping(node)


def parse_yaml(text: str, path: str | Path) -> Any:
    """The value of a YAML text; `path` is its name in errors.

    Raises:
        InputError: not YAML, a mapping with a key twice, or a value that contains itself, is nested too deep, or
            becomes too large by its aliases.
    """
    try:
        value = yaml.load(text, _UniqueKeys)
        _count_nodes(value, {}, str(path))
        return value
    except InputError:
        raise
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"{path}, line {mark.line + 1}, column {mark.column + 1}" if mark else f"{path}"
        raise InputError(f"{place}: must be valid YAML: {error.problem or error.context}") from error
    except YAML_FAULTS as error:
        reason = "nested too deep" if isinstance(error, RecursionError) else " ".join(str(error).split())
        raise InputError(f"{path}: must be valid YAML: {reason}") from error


def _count_nodes(value: Any, counted: dict[int, int], path: str) -> int:
    """The number of values in a value, where an alias counts each time; checks all text in it."""
    if isinstance(value, str):
        check_unicode(value, f"{path}: {value[:20]!a}")
    if not isinstance(value, dict | list | set):
        return 1
    if id(value) not in counted:
        counted[id(value)] = -1  # until it is known
        inner = [*value, *value.values()] if isinstance(value, dict) else value
        counted[id(value)] = 1 + sum(_count_nodes(item, counted, path) for item in inner)
    count = counted[id(value)]
    if count < 0:
        raise InputError(f"{path}: a value must not contain itself, got an alias to it; write the value out")
    if count > _MOST_NODES:
        raise InputError(f"{path} must have at most {_MOST_NODES:,} values, got more by its aliases; write them out")
    return count


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number in JSON; leave it out or write null")


def _finite(text: str) -> float:
    if math.isinf(number := float(text)):
        raise ValueError(f"the number {text[:20]} is out of range")
    return number


def bounded_lines(stream: BinaryIO, path: str | Path, longest: int = LONGEST_LINE) -> Iterator[bytes]:
    """The lines of an open file, none of more than `longest` bytes; `path` is its name in errors.

    Raises:
        InputError: a line is longer.
    """
    number = 0
    while line := stream.readline(longest + 1):
        number += 1
        if len(line) > longest:
            raise InputError(
                f"{path}, line {number}: must have at most {longest:,} bytes, got more; give text with line ends"
            )
        yield line


def _raw_lines(path: Path, longest: int) -> Iterator[bytes]:
    if not path.is_file():
        kind = "a folder" if path.is_dir() else "a special file" if path.exists() else "a path that does not exist"
        raise FileNotFoundError(f"{path} must be a text file, plain or gzip, got {kind}; correct the path")
    number = 0
    with path.open("rb") as file:
        try:
            compressed = file.read(2) == _GZIP_MAGIC
            file.seek(0)
            stream = cast(BinaryIO, gzip.GzipFile(fileobj=file)) if compressed else file
            for line in bounded_lines(stream, path, longest):
                number += 1
                yield line
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise OSError(
                f"{path}, line {number + 1}: must be a whole gzip file: {error}; fetch or compress it again"
            ) from None
        except OSError as error:
            raise OSError(f"{path}, line {number + 1}: {error.strerror or error}") from error
