"""Reading text files, plain or gzip, line by line: every fault names the file and the line."""

import gzip
import json
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

from ..utils.errors import InputError

_GZIP_MAGIC = b"\x1f\x8b"


def read_lines(path: str | Path) -> Iterator[str]:
    """The lines of a UTF-8 file without their line ends, of which only LF and CR LF count as such.

    Raises:
        OSError: no such file, not readable, or broken gzip.
        ValueError: not UTF-8, or nothing in the file.
    """
    yield from decode_lines(_raw_lines(Path(path)), path)


def decode_lines(lines: Iterable[bytes], path: str | Path) -> Iterator[str]:
    """Lines as an open file gives them, decoded as `read_lines` does; `path` is their name in errors."""
    number = 0
    for number, raw in enumerate(lines, start=1):
        try:
            text = raw.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise InputError(
                f"{path}, line {number}: not UTF-8 (byte 0x{raw[error.start]:02x} at column {error.start + 1}): "
                "convert the file to UTF-8"
            ) from None
        yield text.removesuffix("\n").removesuffix("\r")
    if number == 0:
        raise InputError(f"{path} is empty: expected at least one line")


def read_json(path: str | Path) -> Any:
    """The one JSON value that a whole file holds."""
    return parse_json("\n".join(read_lines(path)), path, 1)


def parse_json(text: str, path: str | Path, line: int) -> Any:
    """The value of a JSON text that starts on `line` of a file."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(
            f"{path}, line {line + error.lineno - 1}, column {error.colno}: not JSON: {error.msg}"
        ) from None


def _raw_lines(path: Path) -> Iterator[bytes]:
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise FileNotFoundError(f"{path} {what}: expected a text file, plain or gzip")
    number = 0
    with path.open("rb") as file:
        compressed = file.read(2) == _GZIP_MAGIC
        file.seek(0)
        stream = cast(BinaryIO, gzip.GzipFile(fileobj=file)) if compressed else file
        try:
            for line in stream:
                number += 1
                yield line
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise OSError(
                f"{path}, line {number + 1}: broken gzip file ({error}): fetch or compress it again"
            ) from None
