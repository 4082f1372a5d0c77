"""Memory that the C library keeps to itself after it was freed.

Batches have tensors of many sizes. On CPU they lie in glibc's heap. What is free between them stays with the process,
which grows although no more is in use. Transformers' `torch_empty_cache_steps` is for accelerators alone.
"""

import ctypes
import sys
from typing import Any

from transformers import TrainerCallback


def trim_heap() -> bool:
    """Give pages of the heap that nothing uses back to the system. False where the C library cannot."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    return trim is not None and bool(trim(0))


class TrimsHeap(TrainerCallback):
    """Trims the heap after every evaluation."""

    def on_evaluate(self, *args: Any, **kwargs: Any) -> None:
        trim_heap()
