"""`crossmask translate` as a process: a second one on its output, and one that is killed."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from streaming_cases import TEXTS, tiny

from crossmask import translate_batch

PORTION = 40
RUN = f"""
import sys
from crossmask.inference import files
from crossmask.cli.main import main
files.PORTION = {PORTION}
sys.exit(main(["translate", *sys.argv[1:], "--device", "cpu", "--dtype", "float32", "--quiet"]))
"""


def start(*arguments: str) -> subprocess.Popen:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-c", RUN, *arguments], env=environment, stderr=subprocess.PIPE, text=True
    )


def first_part(parts: Path, process: subprocess.Popen) -> Path:
    end = time.monotonic() + 300
    while not (found := list(parts.glob("000000-*"))):
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < end
        time.sleep(0.001)
    return found[0]


@pytest.mark.slow
def test_a_process_that_is_killed_leaves_what_it_wrote_and_nobody_else_writes_beside_it(tmp_path):
    model, tokenizer = tiny()
    for part in (model, tokenizer):
        part.save_pretrained(tmp_path / "model")
    lines = [TEXTS[number % len(TEXTS)] for number in range(60 * PORTION)]
    (tmp_path / "lines.txt").write_text("\n".join(lines))
    output = tmp_path / "out.txt"
    arguments = [str(tmp_path / "model"), str(tmp_path / "lines.txt"), "--output", str(output)]
    process = start(*arguments)
    try:
        part = first_part(tmp_path / "out.txt.parts", process)
        process.send_signal(signal.SIGSTOP)  # it is there, and does nothing
        second = start(*arguments)
        assert "out.txt must not be in use by another run" in second.communicate()[1]
        assert second.returncode == 2
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert not output.exists()
    assert len(list(part.parent.glob("0000*"))) < 60
    part.write_text("as it was\n" * PORTION)
    third = start(*arguments)
    assert third.communicate()[1] == ""
    assert third.returncode == 0
    written = output.read_text().splitlines()
    assert written[:PORTION] == ["as it was"] * PORTION  # not translated again
    wanted = translate_batch(model, tokenizer, list(TEXTS), progress=False)
    assert written[PORTION:] == [wanted[number % len(TEXTS)] for number in range(PORTION, len(lines))]
    assert not part.parent.exists()
