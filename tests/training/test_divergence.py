"""A run that diverges ends at once, with what to do, and loses nothing."""

from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file
from training_jobs import job_of, recipe_file, trained

from crossmask.tasks.base import BatchResult
from crossmask.tasks.text_to_text import TextToText
from crossmask.training.divergence import SKIPPED_IN_A_ROW, DivergedError, check_step
from crossmask.training.run import PreparedRun, execute
from crossmask.utils.errors import InputError

pytestmark = pytest.mark.usefixtures("without_drawing")
EVERY_TWO = {"eval_strategy": "steps", "eval_steps": 2, "max_steps": 8, "load_best_model_at_end": True}
NAN = float("nan")


def spoil(job: PreparedRun, step: int, value: float, monkeypatch) -> None:
    """Makes the loss of a step `value`, as a model that has diverged does."""
    compute = job.trainer.compute_loss

    def compute_loss(*args, **kwargs):
        loss = compute(*args, **kwargs)
        return loss * value if job.trainer.state.global_step + 1 == step else loss

    monkeypatch.setattr(job.trainer, "compute_loss", compute_loss)


@pytest.mark.parametrize("value", [NAN, float("inf")])
@pytest.mark.parametrize("settings", [{}, {"bf16": True}, {"gradient_accumulation_steps": 2}], ids=str)
def test_a_loss_that_is_not_finite_ends_the_run(tmp_path, monkeypatch, value, settings):
    job = job_of(recipe_file(tmp_path, **EVERY_TWO, **settings))
    spoil(job, 5, value, monkeypatch)
    with pytest.raises(DivergedError) as error:
        execute(job)
    text = str(error.value)
    assert text.startswith(
        f"the loss is {value} in step 5 at learning rate 0.1; lower learning_rate (0.1), lower max_grad_norm (1), or "
    )
    assert "raise warmup_steps (0)" in text
    best = job.trainer.state.best_model_checkpoint
    assert f"the best checkpoint, {best}, is whole: go on from it with --resume_from_checkpoint {best}" in text
    assert "\n" not in text
    assert isinstance(error.value, InputError)
    assert {path.name for path in job.folder.iterdir()} <= {".lock", "checkpoint-2", "checkpoint-4"}
    assert all(torch.isfinite(one).all() for one in job.trainer.model.parameters())


def test_both_rates_of_muon_are_named(tmp_path, monkeypatch):
    job = job_of(recipe_file(tmp_path, **EVERY_TWO, optim="muon", optim_args="learning_rate=0.2", learning_rate=0.1))
    spoil(job, 3, NAN, monkeypatch)
    expected = (
        r"in step 3 at learning rates 0.1, 0.2; lower learning_rate \(0.1\) and that in optim_args \(0.2\), lower"
    )
    with pytest.raises(DivergedError, match=expected):
        job.trainer.train()


def test_the_run_goes_on_from_the_checkpoint_at_another_rate(tmp_path, monkeypatch):
    recipe = recipe_file(tmp_path, **{**EVERY_TWO, "load_best_model_at_end": False})
    job = job_of(recipe)
    spoil(job, 5, NAN, monkeypatch)
    with pytest.raises(DivergedError, match="--resume_from_checkpoint"):
        execute(job)
    checkpoint = job.folder / "checkpoint-4"
    assert all(torch.isfinite(one).all() for one in load_file(checkpoint / "model.safetensors").values())
    again = job_of(recipe, "--resume_from_checkpoint", str(checkpoint), "--learning_rate", "0.025")
    assert trained(again)[0] == 8
    rates = [entry["learning_rate"] for entry in again.trainer.state.log_history if "learning_rate" in entry]
    assert rates[0] == 0.1
    assert again.trainer.optimizer.param_groups[0]["lr"] == 0.025


def test_a_schedule_goes_on_at_another_rate_in_proportion(tmp_path):
    recipe = recipe_file(tmp_path, lr_scheduler_type="linear", logging_steps=1)
    trained(job_of(recipe))
    options = ["--resume_from_checkpoint", str(tmp_path / "run" / "checkpoint-2"), "--learning_rate", "0.05"]
    again = job_of(recipe, *options)
    trained(again)
    rates = [entry["learning_rate"] for entry in again.trainer.state.log_history if "learning_rate" in entry]
    assert rates[-2:] == pytest.approx([0.025, 0.0125])


@pytest.mark.parametrize("schedule", ["reduce_lr_on_plateau", "greedy"])
def test_a_schedule_that_looks_at_scores_goes_on_at_another_rate_too(tmp_path, schedule):
    settings = {"min_lr": 0.0, "max_lr": 1.0} if schedule == "greedy" else {}
    recipe = recipe_file(
        tmp_path, **EVERY_TWO, lr_scheduler_type=schedule, lr_scheduler_kwargs=settings, logging_steps=1
    )
    trained(job_of(recipe))
    options = ["--resume_from_checkpoint", str(tmp_path / "run" / "checkpoint-4"), "--learning_rate", "0.025"]
    again = job_of(recipe, *options)
    trained(again)
    rates = [entry["learning_rate"] for entry in again.trainer.state.log_history if "learning_rate" in entry]
    assert rates[3] == pytest.approx(0.1, rel=0.1)
    assert rates[4:] == pytest.approx([rate / 4 for rate in rates[:1] * len(rates[4:])], rel=0.2)


def test_a_gradient_that_is_not_finite_ends_the_run(tmp_path):
    job = job_of(recipe_file(tmp_path, **EVERY_TWO))
    next(job.trainer.model.parameters()).register_hook(lambda gradient: gradient * float("inf"))
    with pytest.raises(DivergedError, match=r"the gradient norm is (inf|nan) in step 1 .*no checkpoint was saved"):
        execute(job)


def test_an_evaluation_loss_that_is_not_finite_ends_the_run(tmp_path, monkeypatch):
    job = job_of(recipe_file(tmp_path, **EVERY_TWO))
    sums = torch.tensor([NAN, 1.0], dtype=torch.float64, device=job.trainer.args.device)
    result = BatchResult(sums, None)
    monkeypatch.setattr(TextToText, "evaluate_batch", lambda *_: result)
    with pytest.raises(DivergedError, match=r"eval_loss is nan in step 2 at learning rate 0.1; lower learning_rate"):
        execute(job)
    assert not list(job.folder.glob("checkpoint-*"))


def test_steps_that_the_gradient_scaler_skips_are_not_divergence():
    """In float16 a gradient is scaled by too much at first; the scaler skips such steps and lowers its factor."""
    state = SimpleNamespace(global_step=3, best_model_checkpoint=None)
    arguments = SimpleNamespace(
        output_dir="nowhere", learning_rate=0.1, max_grad_norm=1.0, warmup_steps=0, optim="sgd"
    )
    trainer = SimpleNamespace(
        accelerator=SimpleNamespace(scaler=object()), state=state, args=arguments, lr_scheduler=None
    )
    skipped = 0
    for _ in range(SKIPPED_IN_A_ROW):
        skipped = check_step(trainer, 1.0, float("inf"), skipped)
    assert check_step(trainer, 1.0, 1.0, skipped) == 0
    with pytest.raises(DivergedError, match="the gradient norm is inf in step 4"):
        check_step(trainer, 1.0, float("inf"), skipped)
    with pytest.raises(DivergedError, match="the loss is nan in step 4"):
        check_step(trainer, NAN, 1.0, 0)
