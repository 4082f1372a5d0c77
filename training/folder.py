"""A run's output folder: checked before anything is computed, filled so that a reader never sees half a file."""

import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from ..utils.errors import InputError

FINISHED = "metrics.json"  # written last


def prepare_folder(folder: Path, resume: str | None) -> Path | None:
    """Make the output folder, and find the checkpoint to go on from.

    Args:
        resume: `"last"` (or `"true"`) for the last whole checkpoint in the folder, a checkpoint's path, or None.

    Raises:
        OSError: the folder cannot be written.
        ValueError: there is nothing to resume, or an unfinished run would be lost.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OSError(
            f"the output folder {folder} cannot be written: {error.strerror}; choose another --output_dir"
        ) from error
    if resume and resume.lower() not in ("last", "true"):
        if not is_whole(Path(resume)):
            raise InputError(f"{resume} is no whole checkpoint: it lacks a readable trainer_state.json")
        return Path(resume)
    checkpoints = whole_checkpoints(folder)
    if resume and not checkpoints:
        raise InputError(f"{folder} holds no whole checkpoint to resume from; leave --resume_from_checkpoint out")
    if checkpoints and not resume:
        raise InputError(
            f"{folder} holds {checkpoints[-1].name} of an unfinished run: go on with --resume_from_checkpoint last, "
            "delete the folder, or choose another --output_dir"
        )
    return checkpoints[-1] if checkpoints else None


def whole_checkpoints(folder: Path) -> list[Path]:
    """The checkpoints whose writing was finished, oldest first."""
    numbered = [(int(m[1]), path) for path in folder.iterdir() if (m := re.fullmatch(r"checkpoint-(\d+)", path.name))]
    return [path for _, path in sorted(numbered) if is_whole(path)]


def is_whole(checkpoint: Path) -> bool:
    # Trainer writes this file after all others.
    try:
        json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return True


@contextmanager
def staged(folder: Path) -> Iterator[Path]:
    """A place beside `folder`'s files to write new ones to; they replace the old ones when all are written."""
    with tempfile.TemporaryDirectory(prefix=".staged-", dir=folder) as place:
        yield Path(place)
        names = sorted(path.name for path in Path(place).iterdir())
        for name in sorted(names, key=lambda name: name == FINISHED):
            os.replace(Path(place, name), folder / name)


@contextmanager
def full_disk_as_oserror(folder: Path) -> Iterator[None]:
    """Name the folder and the mend where safetensors or torch cannot write; neither says so by an OSError.

    Raises:
        OSError: instead.
    """
    try:
        yield
    except (SafetensorError, RuntimeError) as error:
        text = str(error)
        if not isinstance(error, SafetensorError) and "inline_container" not in text and "write failed" not in text:
            raise
        raise OSError(
            f"{folder} could not be written ({text.splitlines()[0]}); what was saved before is whole: free space, "
            "then go on with --resume_from_checkpoint last"
        ) from error


def remove_checkpoints(folder: Path) -> None:
    """Delete the checkpoints of a run that is finished: they only served to resume it."""
    for path in folder.glob("checkpoint-*"):
        shutil.rmtree(path)
