"""Datasets of the Hugging Face Hub."""

from collections.abc import Iterator
from typing import Any

from datasets import Dataset, IterableDataset, load_dataset

from .records import Columns, as_text, look_up, to_dataset
from .registry import register_format


def read_hub(
    *,
    name: str,
    split: str = "train",
    subset: str | None = None,
    revision: str | None = None,
    columns: Columns | None = None,
) -> Iterator[dict[str, Any]]:
    """The records of `hub`, one by one, fetched as they are read."""
    yield from _mapped(_load(name, subset, split, revision, streaming=True), name, split, columns)


@register_format("hub", read_hub)
def load_hub(
    *,
    name: str,
    split: str = "train",
    subset: str | None = None,
    revision: str | None = None,
    columns: Columns | None = None,
) -> Dataset:
    """A dataset of the Hugging Face Hub (or a local folder of the same make), through `datasets.load_dataset`.

    `columns` is as in `jsonl`; without it the dataset's own columns are kept.
    """
    loaded = _load(name, subset, split, revision, streaming=False)
    if columns is None:
        return loaded
    return to_dataset(list(_mapped(loaded, name, split, columns)), columns, f"dataset {name}, split {split}")


def _load(
    name: str, subset: str | None, split: str, revision: str | None, streaming: bool
) -> Dataset | IterableDataset:
    try:
        return load_dataset(name, subset, split=split, revision=revision, streaming=streaming)
    except OSError as error:
        reason = str(error).split("\n")[0]
        raise OSError(
            f"cannot load the dataset {name!r} from the Hub: {reason}: check the name and the network"
        ) from None


def _mapped(
    loaded: Dataset | IterableDataset, name: str, split: str, columns: Columns | None
) -> Iterator[dict[str, Any]]:
    for index, record in enumerate(loaded):
        if columns is None:
            yield record
            continue
        place = f"dataset {name}, split {split}, row {index}"
        yield {key: as_text(look_up(record, str(at), place), place, str(at)) for key, at in columns.items()}
