"""Atomic writes: a reader sees a file's old content or its new one, never a part."""

import os
from pathlib import Path


def write_text(path: Path, text: str) -> None:
    """`write_bytes` of UTF-8."""
    write_bytes(path, text.encode("utf-8"))


def write_bytes(path: Path, data: bytes) -> None:
    """Write `data` to a temporary file, then move it to `path`. A file that has this content gets a new date only.

    The new date matters: Transformers uploads the files of a folder whose date changed while it saved.

    Raises:
        OSError: the folder cannot be created or written; the file at `path` is unchanged.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_file() and path.read_bytes() == data:
        os.utime(path)
        return
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(data)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
