"""A run's output folder: checked before anything is computed, filled so that a reader never sees half a file."""

import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from safetensors import SafetensorError

from ..utils.errors import InputError

FINISHED = "metrics.json"  # written last
RESULTS = (FINISHED, "model.safetensors", "config.json")  # by which a finished model is known
STATE = "trainer_state.json"  # of a checkpoint, written last
LOCK = ".lock"
STAGED = ".staged-"
# What a run may write under other names than the one before it.
VARYING = ("model*.safetensors*", "alignment_*.png", "learning_curve.png")


def make_folder(folder: Path) -> None:
    """Make an output folder, and see that it can be written.

    Raises:
        OSError: it cannot.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OSError(
            f"the output folder {folder} cannot be written: {error.strerror}; choose another --output_dir"
        ) from error


def prepare_folder(folder: Path, resume: str | None, overwrite: bool = False) -> Path | None:
    """Make the output folder, and find the checkpoint to go on from.

    Args:
        resume: `"last"` (or `"true"`) for the last whole checkpoint in the folder, a checkpoint's path, or None.
        overwrite: whether a run that is there may be replaced.

    Raises:
        OSError: the folder cannot be written.
        ValueError: there is nothing to resume, or a run that is there would be lost.
    """
    make_folder(folder)
    checkpoint, checkpoints = checkpoint_to_resume(folder, resume), whole_checkpoints(folder)
    if resume and checkpoint is None:
        if not _is_last(resume):
            raise InputError(f"{resume} is not a whole checkpoint: it lacks a readable trainer_state.json")
        if found := _result_in(folder):
            raise InputError(
                f"{folder} holds a finished model ({found}) and no checkpoint to resume from: train on with "
                f"model_name_or_path: {folder} in another --output_dir, or replace it with --overwrite alone"
            )
        raise InputError(f"{folder} holds no whole checkpoint to resume from; leave --resume_from_checkpoint out")
    goes_on_here = lies_in(folder, checkpoint)
    if overwrite and goes_on_here:
        raise InputError(
            f"overwrite starts anew and --resume_from_checkpoint {resume} goes on with what is in {folder}: leave one "
            "of the two out"
        )
    if overwrite or goes_on_here:
        return checkpoint
    if checkpoints:
        raise InputError(
            f"{folder} holds {checkpoints[-1].name} of an unfinished run: go on with --resume_from_checkpoint last, "
            "start anew with --overwrite, or choose another --output_dir"
        )
    if found := _result_in(folder):
        raise InputError(
            f"{folder} holds a finished model ({found}): replace it with --overwrite, or choose another --output_dir"
        )
    return checkpoint


def checkpoint_to_resume(folder: Path, resume: str | None) -> Path | None:
    """The whole checkpoint that a run in `folder` goes on from; None where it starts anew, or there is none."""
    if not resume:
        return None
    if not _is_last(resume):
        return Path(resume) if is_whole(Path(resume)) else None
    checkpoints = whole_checkpoints(folder) if folder.is_dir() else []
    return checkpoints[-1] if checkpoints else None


def _result_in(folder: Path) -> str | None:
    """The name of what a finished run left, if one did."""
    return next((name for name in RESULTS if (folder / name).exists()), None)


def _is_last(resume: str) -> bool:
    return resume.lower() in ("last", "true")


def lock_folder(folder: Path) -> FileLock:
    """Keep other processes from running in an output folder, until the lock is released or this process ends.

    What killed runs left half-written in the folder is removed: whoever holds the lock knows that they are gone.

    Raises:
        ValueError: another run is using it. OSError: it cannot be written.
    """
    make_folder(folder)
    lock = FileLock(folder.resolve() / LOCK, is_singleton=True, thread_local=False)
    try:
        lock.acquire(blocking=False)
    except Timeout as error:
        raise InputError(
            f"another run is using {folder} now: wait for its end, or choose another --output_dir"
        ) from error
    if lock.lock_counter == 1:
        for path in folder.glob(f"{STAGED}*"):
            shutil.rmtree(path)
    return lock


def whole_checkpoints(folder: Path) -> list[Path]:
    """The checkpoints whose writing was finished, oldest first."""
    return [path for path in _checkpoints(folder) if is_whole(path)]


def _checkpoints(folder: Path) -> list[Path]:
    """All checkpoints, oldest first."""
    return sorted((path for path in folder.iterdir() if re.fullmatch(r"checkpoint-\d+", path.name)), key=_step_of)


def lies_in(folder: Path, checkpoint: Path | None) -> bool:
    """Whether a run in `folder` goes on from a checkpoint of its own."""
    return checkpoint is not None and checkpoint.resolve().parent == folder.resolve()


def _step_of(checkpoint: Path) -> int:
    return int(checkpoint.name.rpartition("-")[2])


def is_whole(checkpoint: Path) -> bool:
    return state_of_trainer(checkpoint) is not None


def state_of_trainer(checkpoint: Path) -> dict[str, Any] | None:
    """What Trainer wrote of its state into a checkpoint; None where that cannot be read."""
    try:
        state = json.loads((checkpoint / STATE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return state if isinstance(state, dict) else None


def recorded(checkpoint: Path, callback: type, argument: str) -> Any:
    """An argument of a callback that was saved with a checkpoint; None where it says nothing of it."""
    state: Any = state_of_trainer(checkpoint)
    try:
        return state["stateful_callbacks"][callback.__name__]["args"][argument]
    except (KeyError, TypeError):
        return None


@contextmanager
def staged(folder: Path) -> Iterator[Path]:
    """A place beside `folder`'s files to write new ones to; they replace the old ones when all are written."""
    with tempfile.TemporaryDirectory(prefix=STAGED, dir=folder) as place:
        yield Path(place)
        names = sorted(path.name for path in Path(place).iterdir())
        if FINISHED in names:
            # The folder holds no finished run while it holds files of two.
            (folder / FINISHED).unlink(missing_ok=True)
            for path in {path for pattern in VARYING for path in folder.glob(pattern)}:
                if path.name not in names:
                    path.unlink()
        for name in sorted(names, key=lambda name: name == FINISHED):
            os.replace(Path(place, name), folder / name)


@contextmanager
def full_disk_as_oserror(folder: Path) -> Iterator[None]:
    """Name the folder and how to fix it where safetensors or torch cannot write; neither says so by an OSError.

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


def remove_checkpoints(folder: Path, after: Path | None = None) -> None:
    """Delete the checkpoints of a run that is finished, or is replaced: they only serve to resume it.

    The last comes first, and is no checkpoint any more as soon as that begins: if the deletion is cut off, a run that
    goes on from an earlier one comes to the same end.

    Args:
        after: the checkpoint in `folder` that the run goes on from: only later ones are deleted.
    """
    for path in reversed(_checkpoints(folder)):
        if after is None or _step_of(path) > _step_of(after):
            (path / STATE).unlink(missing_ok=True)
            shutil.rmtree(path)
