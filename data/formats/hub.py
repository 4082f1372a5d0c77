"""Datasets of the Hugging Face Hub."""

from datasets import Dataset, load_dataset

from .records import Columns, as_text, look_up, to_dataset
from .registry import register_format


@register_format("hub")
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
    try:
        loaded = load_dataset(name, subset, split=split, revision=revision)
    except OSError as error:
        reason = str(error).split("\n")[0]
        raise OSError(
            f"cannot load the dataset {name!r} from the Hub: {reason}: check the name and the network"
        ) from None
    if columns is None:
        return loaded
    rows = []
    for index, record in enumerate(loaded):
        place = f"dataset {name}, split {split}, row {index}"
        rows.append({key: as_text(look_up(record, str(at), place), place, str(at)) for key, at in columns.items()})
    return to_dataset(rows, columns, f"dataset {name}, split {split}")
