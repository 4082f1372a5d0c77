"""SimulEval drives the agent, and finds the latency that we find."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from streaming_cases import REFERENCES, TEXTS, tiny

import crossmask
from crossmask.streaming.latency import Latency
from crossmask.streaming.text import translate

pytestmark = pytest.mark.slow
AGENT = Path(crossmask.__file__).parent / "streaming" / "simuleval_agent.py"


@pytest.mark.parametrize(
    "how", [["--agent", str(AGENT)], ["--agent-class", "crossmask.streaming.simuleval_agent.CrossMaskAgent"]]
)
def test_the_agent(how, tmp_path):
    pytest.importorskip("simuleval.cli", reason="SimulEval is not at installed")
    model, tokenizer = tiny()
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    (tmp_path / "s.txt").write_text("\n".join(TEXTS) + "\n")
    (tmp_path / "t.txt").write_text("\n".join(REFERENCES) + "\n")
    start = [sys.executable, "-c", "from simuleval.cli import main; main()"]
    command = [*start, *how, "--model", str(tmp_path), "--cross-mask", "wait_k(2)"]
    command += ["--source", str(tmp_path / "s.txt"), "--target", str(tmp_path / "t.txt"), "--no-progress-bar"]
    command += ["--latency-metrics", "AL", "LAAL", "DAL", "--output", str(tmp_path / "out")]
    path = os.pathsep.join([str(Path(crossmask.__file__).parents[1]), *sys.path])
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path})
    assert done.returncode == 0, done.stderr[-2000:]
    log = [json.loads(line) for line in (tmp_path / "out" / "instances.log").read_text().splitlines()]
    ours = list(translate(model, tokenizer, TEXTS, cross_mask="wait_k(2)"))
    assert [entry["prediction"] for entry in log] == [translation.text for translation in ours]
    assert [entry["delays"] for entry in log] == [translation.delays for translation in ours]
    latency = Latency.of([t.delays for t in ours], [t.source_length for t in ours], REFERENCES)
    header, values = (line.split("\t") for line in (tmp_path / "out" / "scores.tsv").read_text().splitlines()[:2])
    scores = dict(zip(header, values, strict=False))
    for name in ("AL", "LAAL", "DAL"):
        assert float(scores[name]) == pytest.approx(getattr(latency, name), abs=1e-3)
