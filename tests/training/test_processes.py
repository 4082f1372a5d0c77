"""Two processes train what one does on the same global batches, and either goes on where the other stopped."""

from pathlib import Path

import pytest
import torch
from training_jobs import final_weights, run_job, run_jobs, tiny_trainer

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
def test_weights_spread_over_two_processes_train_as_whole_ones_do(tmp_path):
    settings = {"batching": "packed", "max_steps": 3, "evaluate": True}
    tiny_trainer(tmp_path, "packed").save_model(str(tmp_path / "start"))
    alone = run_job(str(tmp_path / "alone"), accumulation=2, **settings)
    job = {"folder": str(tmp_path / "spread"), "start": str(tmp_path / "start"), **settings}
    for result in run_jobs({"spread": job}, tmp_path, processes=2):
        assert result["spread"]["held"] < 0.6 * alone["held"]
        assert result["spread"]["losses"] == pytest.approx(alone["losses"], rel=1e-4)
        assert result["spread"]["norms"] == pytest.approx(alone["norms"], rel=1e-3)
        assert result["spread"]["metrics"] == pytest.approx(alone["metrics"], rel=1e-4)
    same_weights(tmp_path, "alone", "spread")
