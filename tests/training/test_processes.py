"""Two processes train what one does on the same global batches, and either goes on where the other stopped."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from training_jobs import SIZES, corpus, final_weights, free_port, run_job, run_jobs, tiny_trainer
from transformers import AutoModelForSeq2SeqLM

pytestmark = pytest.mark.timeout(1800)  # all runs are made for the first test
BATCHINGS = ("packed", "buckets", "examples", "stream")
SAVING = {"save_strategy": "steps", "save_steps": 6, "save_total_limit": None}


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> dict[str, dict]:
    """Results by name: whole runs alone and by two processes, and those that go on where the others stopped."""
    folder = tmp_path_factory.mktemp("processes")
    results: dict = {"folder": folder}
    jobs: dict[str, dict] = {}
    for batching in BATCHINGS:
        alone = folder / f"{batching}-alone"
        settings = {"batching": batching, "evaluate": batching == "packed", **SAVING}
        results[alone.name] = run_job(str(alone), accumulation=2, **settings)
        both = {"folder": str(folder / f"{batching}-both"), **settings}
        resumed = {"folder": str(folder / f"{batching}-both-resumed"), "batching": batching}
        jobs |= {f"{batching}-both": both}
        jobs |= {f"{batching}-both-resumed": {**resumed, "resume": str(alone / "checkpoint-6")}}
    first, second = run_jobs(jobs, folder, processes=2)
    for name in jobs:
        results[name], results[f"{name}, second"] = first[name], second[name]
    for batching in BATCHINGS:
        checkpoint = folder / f"{batching}-both" / "checkpoint-6"
        again = folder / f"{batching}-alone-resumed"
        results[again.name] = run_job(str(again), batching=batching, accumulation=2, resume=str(checkpoint))
    return results


def same_weights(folder: Path, one: str, other: str) -> None:
    for (name, ours), theirs in zip(
        final_weights(folder / one).items(), final_weights(folder / other).values(), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("batching", BATCHINGS)
def test_two_processes_train_what_one_does(runs, batching):
    alone, both, second = (runs[f"{batching}-{name}"] for name in ("alone", "both", "both, second"))
    assert len(both["losses"]) == len(alone["losses"]) > 6
    assert both["losses"] == pytest.approx(alone["losses"], rel=1e-4)
    assert both["norms"] == pytest.approx(alone["norms"], rel=1e-3)
    assert both["fed"] + second["fed"] == alone["fed"]
    same_weights(runs["folder"], f"{batching}-alone", f"{batching}-both")


def test_two_processes_evaluate_as_one_does(runs):
    alone, both, second = (runs[f"packed-{name}"] for name in ("alone", "both", "both, second"))
    assert both["metrics"] == second["metrics"] == pytest.approx(alone["metrics"], rel=1e-4)
    assert both["predictions"] == second["predictions"] == alone["predictions"]


@pytest.mark.parametrize("batching", BATCHINGS)
@pytest.mark.parametrize("resumed", ["alone-resumed", "both-resumed"])
def test_a_run_goes_on_with_another_number_of_processes(runs, batching, resumed):
    alone, after = runs[f"{batching}-alone"], runs[f"{batching}-{resumed}"]
    assert len(after["losses"]) == len(alone["losses"])  # those before the checkpoint are its own
    assert after["losses"] == pytest.approx(alone["losses"], rel=1e-4)
    same_weights(runs["folder"], f"{batching}-alone", f"{batching}-{resumed}")


@pytest.mark.slow
@pytest.mark.parametrize(("r_drop", "is_taught"), [(None, False), (2.0, False), (2.0, True)])
def test_weights_spread_over_two_processes_train_as_whole_ones_do(tmp_path, r_drop, is_taught):
    tiny_trainer(tmp_path, "packed").save_model(str(tmp_path / "start"))
    teacher = teacher_in(tmp_path / "teacher") if is_taught else None
    settings = {"batching": "packed", "max_steps": 3, "evaluate": True, "r_drop": r_drop, "teacher": teacher}
    alone = run_job(str(tmp_path / "alone"), accumulation=2, **settings)
    job = {"folder": str(tmp_path / "spread"), "start": str(tmp_path / "start"), **settings}
    for result in run_jobs({"spread": job}, tmp_path, processes=2):
        assert result["spread"]["held"] < 0.6 * alone["held"]
        assert result["spread"]["losses"] == pytest.approx(alone["losses"], rel=1e-4)
        assert result["spread"]["norms"] == pytest.approx(alone["norms"], rel=1e-3)
        assert result["spread"]["metrics"] == pytest.approx(alone["metrics"], rel=1e-4)
    same_weights(tmp_path, "alone", "spread")


@pytest.mark.slow
@pytest.mark.parametrize(
    "given",
    [
        {"r_drop": 2.0},
        {"optim": "muon", "optim_args": "learning_rate=0.02, momentum=0.9", "learning_rate": 0.01},
        {"teacher": "teacher"},
    ],
    ids=lambda given: next(iter(given)),
)
def test_two_processes_train_in_other_ways_as_one_does(tmp_path, given):
    settings = {"batching": "packed", "max_steps": 3, **given}
    if "teacher" in given:
        settings["teacher"] = teacher_in(tmp_path / "teacher")
    alone = run_job(str(tmp_path / "alone"), accumulation=2, **settings)
    for result in run_jobs({"both": {"folder": str(tmp_path / "both"), **settings}}, tmp_path, processes=2):
        assert result["both"]["losses"] == pytest.approx(alone["losses"], rel=1e-4)
    same_weights(tmp_path, "alone", "both")


def teacher_in(folder: Path) -> str:
    """A folder with a model of other weights than those that are trained."""
    trainer = tiny_trainer(folder, "packed")
    with torch.no_grad():
        for parameter in trainer.model.parameters():
            parameter.mul_(1.5)
    trainer.save_model(str(folder))
    return str(folder)


LAUNCHERS = {
    "torchrun": ["torch.distributed.run", "--standalone", "--nproc-per-node", "2"],
    "accelerate": ["accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--main_process_port"],
}


@pytest.mark.slow
def test_launchers_run_the_main_job(tmp_path):
    lines = [f"{example.source}\t{example.target}\n" for example in corpus()]
    (tmp_path / "pairs.tsv").write_text("".join(lines))
    pairs = {"format": "tsv", "path": str(tmp_path / "pairs.tsv")}
    recipe = {
        "train": pairs, "validation": {**pairs, "limit": 4}, "test": {**pairs, "limit": 9}, "model": SIZES,
        "tokenizer": {"vocab_size": 280}, "batching": "packed", "source_row_length": 24, "target_row_length": 24,
        "per_device_train_batch_size": 2, "num_train_epochs": 1, "optim": "sgd", "learning_rate": 0.1,
        "generation": {"max_new_tokens": 4},
    }  # fmt: skip
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(recipe))
    losses = {}
    for name, launcher in {"alone": [], **LAUNCHERS}.items():
        start = ["-m", *launcher] + [free_port()] * (name == "accelerate") if launcher else []
        options = ["--output_dir", name, "--gradient_accumulation_steps", "1" if launcher else "2"]
        command = [sys.executable, *start, str(Path(__file__).parents[2] / "train.py"), "tiny.yaml", *options]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HOME": str(tmp_path / "home")}
        run = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert run.returncode == 0, run.stderr[-3000:]
        metrics = json.loads((tmp_path / name / "metrics.json").read_text())
        assert metrics["hardware"].startswith("2 processes, each on 1 CPU thread" if launcher else "1 CPU thread")
        losses[name] = metrics["loss"]
        AutoModelForSeq2SeqLM.from_pretrained(tmp_path / name)
    assert losses["torchrun"] == pytest.approx(losses["alone"], rel=1e-4)
    assert losses["accelerate"] == pytest.approx(losses["alone"], rel=1e-4)
