"""Measurements in processes of their own."""

import signal
from concurrent.futures.process import BrokenProcessPool

import pytest

from benchmarks.harness import in_own_processes

CALLS = [(0,), (signal.SIGKILL,), (0,)]  # 0 is no signal


def test_a_call_that_is_killed_leaves_the_others_theirs():
    found = in_own_processes(signal.raise_signal, CALLS, killed="none")
    assert found == [None, "none", None]


def test_a_killed_call_is_an_error_where_no_result_stands_for_it():
    with pytest.raises(BrokenProcessPool):
        in_own_processes(signal.raise_signal, CALLS)
