"""One export of the trained model for each engine: a graph takes long to write."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock
from trained_models import exported, trained_model


@pytest.fixture(scope="session")
def export_trained(tmp_path_factory) -> Callable[[str, Path], Path]:
    """Writes the trained model's export for an engine to a new folder: a copy of one that all processes share."""
    own = tmp_path_factory.getbasetemp()
    shared = own.parent if "PYTEST_XDIST_WORKER" in os.environ else own

    def write(engine: str, folder: Path) -> Path:
        first = shared / f"exported-{engine}"
        with FileLock(f"{first}.lock"):
            if not first.exists():
                exported(trained_model(), engine, first)
        return Path(shutil.copytree(first, folder))

    return write
