"""A model whose weights are spread over two processes computes the same."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from small_models import small_model

pytest.importorskip("transformers.distributed")
TESTS = Path(__file__).parents[1]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "fields"),
    [("tp", {"embedding_size": 8}), ("tp", {"cross_attention_score": "additive"}), ("fsdp", {})],
)
def test_two_processes_compute_what_one_does(kind, fields, tmp_path):
    small_model(**fields).save_pretrained(tmp_path)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    run = subprocess.run(
        [*command, str(TESTS / "parallel_worker.py"), str(tmp_path), kind],
        env={**os.environ, "PYTHONPATH": str(TESTS), "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert run.returncode == 0, run.stderr[-4000:]
    differences = [float(number) for number in re.findall(r"difference (\S+)", run.stdout)]
    assert len(differences) == 2
    assert max(differences) < 1e-4
