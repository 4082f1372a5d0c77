"""Where `datasets` writes what it derives from a dataset."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

from ..utils.disk import naming_full_disks

if TYPE_CHECKING:
    from datasets import Dataset  # takes a second to import, and `import crossmask` does not need it


def naming_cache(dataset: Dataset) -> AbstractContextManager[None]:
    """Name the cache's folder in the error where its disk is full, while something is derived from a dataset."""
    from datasets import config

    files = dataset.cache_files
    folder = Path(files[0]["filename"]).parent if files else Path(config.HF_DATASETS_CACHE)
    return naming_full_disks(folder, "free space there, or set HF_DATASETS_CACHE to another folder")
