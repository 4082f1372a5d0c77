"""Datasets of the Hugging Face Hub."""

import errno
import os
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
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
_LIBRARY_ERRORS = (
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


@register_format("hub")
def read_hub(
    *,
    name: str,
    split: str = "train",
    subset: str | None = None,
    data_files: str | None = None,
    revision: str | None = None,
    columns: Columns | None = None,
) -> "HubRecords":
    """A dataset of the Hugging Face Hub (or a local folder of the same form), through `datasets.load_dataset`.

    `columns` is as in `jsonl`; without it the dataset's own columns are kept. `data_files`, a pattern of paths in the
    dataset, reads those files alone as the split, so that no others are fetched.
    """
    return HubRecords(name, split, subset, data_files, revision, columns)


@dataclass(frozen=True)
class HubRecords:
    """What `read_hub` gives: records, fetched as they are read, or loaded whole through the cache of `datasets`."""

    name: str
    split: str
    subset: str | None
    data_files: str | None
    revision: str | None
    columns: Columns | None

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return self._map(self._load(streaming=True))

    def to_dataset(self) -> Dataset:
        """All records; without `columns` the dataset itself, with the types of its columns."""
        loaded = self._load(streaming=False)
        return loaded if self.columns is None else to_dataset(self._map(loaded), self._origin)

    @property
    def _origin(self) -> str:
        return f"dataset {self.name}, split {self.split}"

    def _load(self, streaming: bool) -> Dataset | IterableDataset:
        check_not_a_missing_path(self.name, "a folder of data files")
        files = None if self.data_files is None else {self.split: self.data_files}
        with _naming(f"the dataset {self.name!r}", self.name):
            return load_dataset(
                self.name,
                self.subset,
                data_files=files,
                split=self.split,
                revision=self.revision,
                streaming=streaming,
            )

    def _map(self, loaded: Dataset | IterableDataset) -> Iterator[dict[str, Any]]:
        records = iter(loaded)
        for index in count():
            place = f"{self._origin}, row {index}"
            with _naming(place, self.name):
                record = next(records, None)
            if record is None:
                return
            if self.columns is None:
                yield record
            else:
                yield {
                    column: as_text(look_up(record, str(key), place), place, str(key))
                    for column, key in self.columns.items()
                }


@contextmanager
def _naming(place: str, name: str) -> Iterator[None]:
    """Name the dataset in errors of the library.

    Raises:
        OSError: it cannot be fetched, or the disk of the cache is full. InputError: it cannot be read.
    """
    try:
        yield
    except _LIBRARY_ERRORS as error:
        cause = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        reason = (str(cause).strip() or type(cause).__name__).split("\n")[0]
        if isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT):
            folder = str(datasets.config.HF_DATASETS_CACHE)
            raise OSError(cause.errno, f"no space left for {place}; free space", folder) from error
        if isinstance(error, OSError) and not os.path.exists(name):
            raise OSError(f"cannot load {place} from the Hub: {reason}; check the name and the network") from None
        raise InputError(f"cannot read {place}: {reason}") from error
