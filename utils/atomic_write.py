"""Writing files whole: a reader sees the old text or the new one, never half of it."""

import os
from pathlib import Path


def write_text(path: Path, text: str) -> None:
    """`write_bytes` of UTF-8."""
    write_bytes(path, text.encode("utf-8"))


def write_bytes(path: Path, data: bytes) -> None:
    """Write `data` beside `path`, then move it there. A file that holds it already is left, with a new date.

    The new date matters: Transformers uploads the files of a folder that became younger while it saved.

    Raises:
        OSError: the folder cannot be created or written; what was at `path` is whole.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_file() and path.read_bytes() == data:
        os.utime(path)
        return
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        beside.write_bytes(data)
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)
