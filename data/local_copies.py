"""Local copies of datasets, in one folder: the data directory."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..utils.errors import InputError
from .formats import files_of, path_options

DATA_VARIABLE = "CROSSMASK_DATA"


def data_directory(data_dir: str | Path | None = None) -> Path | None:
    """The folder with local copies of datasets: `data_dir`, else that of `CROSSMASK_DATA`, else None.

    Raises:
        ValueError: it does not exist.
    """
    name, path = ("data_dir", data_dir) if data_dir else (DATA_VARIABLE, os.environ.get(DATA_VARIABLE))
    if not path:
        return None
    folder = Path(path).expanduser()
    if not folder.is_dir():
        raise InputError(
            f"{name} must be a folder that holds copies of datasets, got {str(path)!r}, which does not exist; "
            "correct it, or leave it out to read from the Hub"
        )
    return folder


def options_of_copy(
    format_name: str, options: Mapping[str, Any], data_dir: str | Path | None = None
) -> dict[str, Any] | None:
    """The options of a source, its paths inside the data directory; None where the directory has none of the files.

    Raises:
        ValueError: the format reads no files, the data directory does not exist, or it has only some of the files.
    """
    files = files_of(format_name, options)
    if not files:
        raise InputError(f"local must have a format that reads files, such as lines, got {format_name}; give one")
    folder = data_directory(data_dir)
    if folder is None:
        return None
    missing = [file for file in files if not (folder / file).exists()]
    if len(missing) == len(files):
        return None
    if missing:
        raise InputError(
            f"the data directory {folder} must have all files of a dataset or none, and {missing[0]} is missing; "
            "complete the copy, or remove it to read from the Hub"
        )
    inside = {
        name: str(folder / value) if isinstance(value, str | Path) else [str(folder / file) for file in value]
        for name, value in options.items()
        if name in path_options(format_name)
    }
    return {**options, **inside}
