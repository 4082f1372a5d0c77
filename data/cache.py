"""Where `datasets` writes what it derives from a dataset."""

from contextlib import AbstractContextManager
from pathlib import Path

from datasets import Dataset, config

from ..utils.disk import naming_full_disks


def naming_cache(dataset: Dataset) -> AbstractContextManager[None]:
    """Name the cache's folder in the error where its disk is full, while something is derived from a dataset."""
    files = dataset.cache_files
    folder = Path(files[0]["filename"]).parent if files else Path(config.HF_DATASETS_CACHE)
    return naming_full_disks(folder, "free space there, or set HF_DATASETS_CACHE to another folder")
