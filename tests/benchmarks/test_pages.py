"""Every benchmark runs with tiny sizes, prints its page and writes it."""

import re
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import pytest

from benchmarks import __main__ as all_benchmarks
from benchmarks.harness import growth_table, interleave, medians, table

FOLDER = Path(all_benchmarks.__file__).parent
# By benchmark: arguments beside --quick, and a line that its page has to have.
RUNS = {
    "bridge": (
        ["--threads", "1"],
        r"every layer, trained encoder \| [\d,]+ \| \d+ ms \([\d.]+\) \|",
    ),
    "attached": ([], r"(?s)\| `full\(\)` \|( [\d.]+ \|){8}.*\| packed rows \| eager \| [\d,]+ \| [\d.]+ \| [\d.]+ \|"),
    "generation": (["--threads", "1"], r"\| crossmask \| [\d.]+ \([\d.]+\) \|"),
    "long_sources": ([], r"\| 256 \| \d+ ms \(x\d+\.\d\d\) \|"),
    "long_sources, one layer": (["--encoder-layer"], r"blockwise, forward and backward \| sdpa, forward \|"),
    "long_sources, documents": (
        ["--documents", "--families", "crossmask", "LongT5"],
        r"\| crossmask \| bfloat16 \| yes \| 256 \| [\d,]+ \| [\d,]+ \|",
    ),
    "masks": ([], r"\| `causal\(\)` \| 50\.2% \| [\d.]+% \| \d+ ms \| \d+ ms \| [\d.]+ \|"),
    "memory": (["--threads", "1"], r"\| bfloat16 \| crossmask \| [\d.]+ \| \d+ \| [\d.]+ \|"),
    "packed_rows": ([], r"\| 2 \| \d+ ms \(x\d+\.\d\d\) \|"),
    "serving": (["--engines", "ctranslate2"], r"\| CTranslate2, int8 \| [\d.]+ \([\d.]+\) \|"),
    "serving_load": ([], r"\| torch \| 8 \| [\d.]+ \([\d.]+\) \|( [\d,]+ \|){3}"),
    "streams": ([], r"\| [\d,]+ \| [\d,]+ \| 0\.9\d+ \| 0\.9\d+ \| [\d,]+ \|"),
    "streams, of text": (["--text"], r"\| [\d,]+ \| [\d,]+ \| 0\.\d+ \| 0\.\d+ \| [\d,]+ \|"),
}


@pytest.mark.parametrize("name", RUNS)
def test_a_quick_run_prints_its_page_and_writes_it(name, tmp_path, capfd):
    arguments, line = RUNS[name]
    if name == "serving":
        pytest.importorskip("ctranslate2")
    page = tmp_path / "new" / "page.md"
    import_module(f"benchmarks.{name.split(',')[0]}").main(["--quick", *arguments, "--output", str(page)])
    text = page.read_text()
    assert text.startswith("# ")
    assert text.strip() in capfd.readouterr().out
    assert [entry.name for entry in page.parent.iterdir()] == ["page.md"]
    assert re.search(line, text), text


@pytest.mark.parametrize(
    ("name", "words", "message"),
    [
        ("long_sources", ["--flex"], "--flex must be left out without --encoder-layer"),
        ("long_sources", ["--dropout", "0.3"], "--dropout must be left out without --documents"),
        ("long_sources", ["--encoder-layer", "--targets", "7"], "--targets must be left out with --encoder-layer"),
        ("long_sources", ["--encoder-layer", "--documents"], "not allowed with argument --encoder-layer"),
        ("attached", ["--quick", "--batch-sizes", "3"], "--batch-sizes must be left out with --quick"),
        ("memory", ["--quick", "--tokens", "5"], "--tokens must be left out with --quick"),
    ],
    ids=str,
)
def test_an_option_that_nothing_would_read_is_refused(name, words, message, capsys):
    with pytest.raises(SystemExit):
        import_module(f"benchmarks.{name}").main(words)
    assert message in capsys.readouterr().err


def test_every_benchmark_has_a_quick_run_here_and_most_run_together():
    scripts = {path.stem for path in FOLDER.glob("*.py") if "def main(" in path.read_text()} - {"__main__"}
    # Those of warm starts train whole models, on models that somebody has; engines are extras.
    assert {name.split(",")[0] for name in RUNS} | {"time_to_quality", "training", "warm_starts"} == scripts
    assert {*all_benchmarks.NAMES, "serving", "serving_load", "streams", "time_to_quality", "warm_starts"} == scripts


def test_a_quick_run_of_all_keeps_the_page_of_a_whole_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(all_benchmarks, "NAMES", ("masks",))
    monkeypatch.setattr(all_benchmarks.subprocess, "run", lambda command, **_: SimpleNamespace(stdout=command[-1]))
    all_benchmarks.main([])
    all_benchmarks.main(["--quick"])
    assert Path("runs/benchmarks/all.md").read_text() == "cpu\n"
    assert Path("runs/benchmarks/quick/all.md").read_text() == "--quick\n"


def test_subjects_take_turns_and_the_first_turns_are_not_counted():
    calls = []
    runs = {name: lambda turn, name=name: calls.append((name, turn)) for name in "ab"}
    times = interleave(runs, repeats=2, warm_up=1)
    assert calls == [("a", 0), ("b", 0), ("a", 1), ("b", 1), ("a", 2), ("b", 2)]
    assert [len(seconds) for seconds in times.values()] == [2, 2]
    assert medians({"a": [3.0, 1.0, 2.0]}) == {"a": 2.0}


def test_tables():
    assert table(["a", "b"], [["x", 1]]) == "| a | b |\n| --- | ---: |\n| x | 1 |"
    times = {("s", 1): 0.010, ("s", 2): 0.021}
    assert growth_table("rows", [1, 2], {"s": "name"}, times).splitlines()[2:] == [
        "| 1 | 10 ms |",
        "| 2 | 21 ms (x2.10) |",
    ]
