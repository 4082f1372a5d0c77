"""Several processes that work on one search. Needs the tune extra."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing import connection, get_context, parent_process
from typing import Any

import torch

from ..utils.cli import run_command
from ..utils.errors import InputError
from .tuning import Tuning
from .tuning_trials import work


def run_workers(tuning: Tuning) -> None:
    """Run trials until there are enough, in this process or in `tuning.workers` others.

    Raises:
        InputError: a worker ended before there were enough.
    """
    _ = tuning.study  # of this recipe, before anything starts
    if tuning.workers == 1:
        work(tuning)
        return
    context, started = get_context("spawn"), []
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    # What a study has opened does not go to another process.
    plain = replace(tuning)
    for worker in range(tuning.workers):
        with environment(environment_of(worker, tuning.workers, gpus, os.cpu_count() or 1)):
            process = context.Process(target=_work, args=(plain,))
            process.start()
        started.append(process)
    try:
        for process in started:
            process.join()
    finally:
        for process in started:
            process.terminate()
    if any(process.exitcode for process in started):
        codes = ", ".join(str(process.exitcode) for process in started)
        raise InputError(f"all workers must end with status 0, got {codes}; give the same command to continue")


def environment_of(worker: int, workers: int, gpus: int, cores: int) -> dict[str, str]:
    """What a worker finds in its environment: its part of the cores, and one GPU where there are several."""
    found = {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(max(1, cores // workers)))}
    if gpus > 1:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(gpus)))).split(",")
        found["CUDA_VISIBLE_DEVICES"] = visible[worker % len(visible)]
    return found


@contextmanager
def environment(changes: dict[str, str]) -> Iterator[None]:
    """Other environment variables for the time of a block."""
    before = dict(os.environ)
    os.environ.update(changes)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _work(tuning: Tuning) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    sys.exit(run_command("crossmask tune", lambda: work(tuning), []))


def _end_with_parent() -> None:
    """End this process as soon as its parent has ended, killed or not."""
    parent: Any = parent_process()
    connection.wait([parent.sentinel])
    os.kill(os.getpid(), signal.SIGKILL)
