"""What was freed between other tensors is given back to the system after an evaluation."""

import ctypes
import sys
from pathlib import Path

import pytest
import torch
from training_jobs import job_of, recipe_file

from crossmask.training.heap import TrimsHeap


def resident_size() -> int:
    """Bytes of this process in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


@pytest.mark.skipif(sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="needs glibc")
def test_freed_tensors_between_others_leave_memory():
    tensors = [torch.ones(2**14) for _ in range(2000)]  # 64 KiB each, which lie in the heap
    kept, full = tensors[::100], resident_size()
    del tensors
    TrimsHeap().on_evaluate(None, None, None)
    assert full - resident_size() > 90 * 2**20
    assert len(kept) == 20


def test_every_run_has_it(tmp_path):
    callbacks = job_of(recipe_file(tmp_path)).trainer.callback_handler.callbacks
    assert sum(isinstance(one, TrimsHeap) for one in callbacks) == 1
