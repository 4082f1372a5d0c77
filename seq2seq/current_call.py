"""The call that runs in a thread, for modules that their model hands nothing on to."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

import torch

Call = TypeVar("Call")


class CurrentCall(Generic[Call]):
    """The call that runs in this thread; None outside of one."""

    def __init__(self) -> None:
        self.threads = threading.local()
        self.traced: Call | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), ()  # a copy begins outside of any call

    @property
    def now(self) -> Call | None:
        # A compiler follows an attribute, but no thread's own; what it compiles does not read either any more.
        if torch.compiler.is_compiling():
            return self.traced
        return getattr(self.threads, "call", None)

    @contextmanager
    def of(self, call: Call | None) -> Iterator[None]:
        """Inside, `call` is the one that runs."""
        before = self.now
        self.set(call)
        try:
            yield
        finally:
            self.set(before)

    def set(self, call: Call | None) -> None:
        if torch.compiler.is_compiling():
            self.traced = call
        else:
            self.threads.call = call
