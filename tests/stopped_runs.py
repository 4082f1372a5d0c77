"""Runs over files of lines that are stopped as by Ctrl-C."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from crossmask.inference.files import LineTranslator


@contextmanager
def stopped_at(portion_number: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Within it a run is stopped before this portion, counted from 0."""
    portion = LineTranslator.portion

    def stop(self, lines, number, bar):
        if number == portion_number:
            raise KeyboardInterrupt
        return portion(self, lines, number, bar)

    with monkeypatch.context() as patch:
        patch.setattr(LineTranslator, "portion", stop)
        yield
