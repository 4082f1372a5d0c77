"""An optimizer that trains other weights than are evaluated (Defazio et al. 2024): those are saved and tested."""

from pathlib import Path

import pytest
import torch
from training_jobs import assert_goes_on, job_of, recipe_file, trained

from crossmask.training import run

FIELDS = {"optim": "schedule_free_adamw", "learning_rate": 0.02, "warmup_steps": 2, "max_steps": 5}


def averages(groups: list[dict]) -> bool:
    """Whether the model has the weights that are evaluated, not those that are trained."""
    return not any(group["train_mode"] for group in groups)


@pytest.mark.parametrize("warm_up", [2, 0.3])
def test_the_optimizer_has_the_warm_up_itself(tmp_path, warm_up):
    job = job_of(recipe_file(tmp_path, **{**FIELDS, "warmup_steps": warm_up}))
    trained(job)
    (group, *_) = job.trainer.optimizer.param_groups
    assert (group["warmup_steps"], group["lr"]) == (2, 0.02)


def test_a_run_goes_on_to_the_bit(tmp_path):
    assert assert_goes_on(recipe_file(tmp_path, **FIELDS), 2) == 5


def test_its_averages_are_evaluated_tested_and_saved(tmp_path, monkeypatch):
    evaluation = {
        "eval_strategy": "steps",
        "eval_steps": 2,
        "metric_for_best_model": "loss",
        "greater_is_better": True,
    }
    job = job_of(recipe_file(tmp_path, **FIELDS, **evaluation, load_best_model_at_end=True))
    kind, averaged, weights = type(job.trainer.task), [], {}
    evaluate = kind.evaluate_batch

    def record(task, model, *args, **kwargs):
        averaged.append(averages(job.trainer.optimizer.param_groups))
        weights.setdefault(job.trainer.state.global_step, {k: v.clone() for k, v in model.state_dict().items()})
        return evaluate(task, model, *args, **kwargs)

    monkeypatch.setattr(kind, "evaluate_batch", record)
    run.execute(job)
    assert len(averaged) > 2
    assert all(averaged)
    assert Path(job.trainer.state.best_model_checkpoint).name == "checkpoint-2"
    torch.testing.assert_close(job.trainer.model.state_dict(), weights[2], rtol=0, atol=0)


def test_a_checkpoint_without_an_evaluation_has_them_too(tmp_path):
    job = job_of(recipe_file(tmp_path, **FIELDS))
    trained(job)
    assert averages(torch.load(job.folder / "checkpoint-2" / "optimizer.pt", weights_only=True)["param_groups"])


def test_adapters_are_merged_with_them(tmp_path, monkeypatch):
    adapters = {"r": 2, "target_modules": ["q_proj"]}
    job = job_of(recipe_file(tmp_path, **{**FIELDS, "save_strategy": "no", "lora": adapters}))
    merge, merged = run.merge_adapters, []

    def record(model):
        merged.append(averages(job.trainer.optimizer.param_groups))
        merge(model)

    monkeypatch.setattr(run, "merge_adapters", record)
    run.execute(job)
    assert merged == [True]
