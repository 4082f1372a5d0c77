"""Datasets of the Hugging Face Hub."""

import errno
import os
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import datasets
import pyarrow
import yaml
from datasets import Dataset, IterableDataset, load_dataset
from datasets.exceptions import DatasetsError

from ...utils.errors import InputError
from ...utils.hub_names import check_not_a_missing_path
from .records import Columns, as_text, look_up, to_dataset
from .registry import register_format

# What `datasets` and the readers behind it raise for files that they cannot read.
_FAULTS = (
    DatasetsError,
    OSError,
    ValueError,
    TypeError,
    LookupError,
    EOFError,
    RecursionError,
    pyarrow.ArrowException,
    yaml.YAMLError,
    zipfile.BadZipFile,
    zlib.error,
)


def read_hub(
    *,
    name: str,
    split: str = "train",
    subset: str | None = None,
    data_files: str | None = None,
    revision: str | None = None,
    columns: Columns | None = None,
) -> Iterator[dict[str, Any]]:
    """The records of `hub`, one by one, fetched as they are read."""
    yield from _mapped(_load(name, subset, data_files, split, revision, streaming=True), name, split, columns)


@register_format("hub", read_hub)
def load_hub(
    *,
    name: str,
    split: str = "train",
    subset: str | None = None,
    data_files: str | None = None,
    revision: str | None = None,
    columns: Columns | None = None,
) -> Dataset:
    """A dataset of the Hugging Face Hub (or a local folder of the same make), through `datasets.load_dataset`.

    `columns` is as in `jsonl`; without it the dataset's own columns are kept. `data_files`, a pattern of paths in the
    dataset, reads those files alone as the split, so that no others are fetched.
    """
    loaded = _load(name, subset, data_files, split, revision, streaming=False)
    if columns is None:
        return loaded
    return to_dataset(list(_mapped(loaded, name, split, columns)), columns, f"dataset {name}, split {split}")


def _load(
    name: str, subset: str | None, data_files: str | None, split: str, revision: str | None, streaming: bool
) -> Dataset | IterableDataset:
    check_not_a_missing_path(name, "a folder of data files")
    with _naming(f"the dataset {name!r}", name):
        files = None if data_files is None else {split: data_files}
        return load_dataset(name, subset, data_files=files, split=split, revision=revision, streaming=streaming)


def _mapped(
    loaded: Dataset | IterableDataset, name: str, split: str, columns: Columns | None
) -> Iterator[dict[str, Any]]:
    records = iter(loaded)
    index = 0
    while True:
        place = f"dataset {name}, split {split}, row {index}"
        with _naming(place, name):
            record = next(records, None)
        if record is None:
            return
        if columns is not None:
            record = {key: as_text(look_up(record, str(at), place), place, str(at)) for key, at in columns.items()}
        yield record
        index += 1


@contextmanager
def _naming(place: str, name: str) -> Iterator[None]:
    """Say of which dataset the library speaks.

    Raises:
        OSError: it cannot be fetched, or the disk of the cache is full. InputError: it cannot be read.
    """
    try:
        yield
    except _FAULTS as error:
        cause = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        reason = (str(cause).strip() or type(cause).__name__).split("\n")[0]
        if isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT):
            folder = str(datasets.config.HF_DATASETS_CACHE)
            raise OSError(cause.errno, f"no space left for {place}; free space", folder) from error
        if isinstance(error, OSError) and not os.path.exists(name):
            raise OSError(f"cannot load {place} from the Hub: {reason}: check the name and the network") from None
        raise InputError(f"cannot read {place}: {reason}") from error
