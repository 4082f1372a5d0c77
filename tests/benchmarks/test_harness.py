"""Measurements in processes of their own, and where pages are written."""

import platform
import signal
from argparse import ArgumentParser
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import pytest

from benchmarks.harness import RESULTS, add_page_options, in_own_processes, peak, start_peak

MIB = 2**20
CALLS = [(0,), (signal.SIGKILL,), (0,)]  # 0 is no signal


def test_a_call_that_is_killed_leaves_the_others_theirs():
    found = in_own_processes(signal.raise_signal, CALLS, killed="none")
    assert found == [None, "none", None]


def test_a_killed_call_is_an_error_where_no_result_stands_for_it():
    with pytest.raises(BrokenProcessPool):
        in_own_processes(signal.raise_signal, CALLS)


def test_a_quick_run_overwrites_nothing_by_default():
    def parse(*words):
        parser = ArgumentParser()
        parser.add_argument("--runs", type=Path, default=Path("runs/many"))
        add_page_options(parser, "page")
        return parser.parse_args(words)

    given = parse()
    assert (given.quick, given.output, given.runs) == (False, RESULTS / "page.md", Path("runs/many"))
    given = parse("--quick")
    assert (given.quick, given.output, given.runs) == (True, RESULTS / "quick" / "page.md", Path("runs/quick/many"))
    for words in (["--quick", "--output", "here.md"], ["--output", "here.md", "--quick"]):
        assert parse(*words).output == Path("here.md")


def _rises() -> tuple[int, int]:
    rises = []
    for size in (256, 64):
        before = start_peak()
        bytearray(b"1") * (size * MIB)
        rises.append(peak() - before)
    return rises[0], rises[1]


@pytest.mark.skipif(platform.system() != "Linux", reason="other systems cannot forget a peak")
def test_a_rise_of_the_peak_is_told_after_a_higher_one():
    ((first, second),) = in_own_processes(_rises, [()])
    assert first == pytest.approx(256 * MIB, rel=0.1)
    assert second == pytest.approx(64 * MIB, rel=0.1)
