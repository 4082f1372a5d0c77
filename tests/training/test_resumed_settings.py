"""What a run that goes on takes from its checkpoint, what from the recipe, and what it refuses."""

import json
import shutil
from pathlib import Path

import pytest
from training_jobs import job_of, recipe_file, trained

from crossmask.training.continuation import SettingsRecord
from crossmask.training.run import execute
from crossmask.training.run_directory import recorded
from crossmask.utils.errors import InputError

EVERY_TWO = {"eval_strategy": "steps", "eval_steps": 2}
LOSS = {"metric_for_best_model": "loss", "greater_is_better": False}


def log_of(job, *names: str) -> list[tuple]:
    """The steps whose entries in the log have all of these, with their values."""
    return [
        (entry["step"], *(entry[name] for name in names))
        for entry in job.trainer.state.log_history
        if all(name in entry for name in names)
    ]


def resumed(recipe: str, step: int | str, *options: str):
    folder = Path(recipe).parent / "run"
    checkpoint = "last" if step == "last" else str(folder / f"checkpoint-{step}")
    return job_of(recipe, "--resume_from_checkpoint", checkpoint, *options)


@pytest.mark.parametrize("step", [2, 4, 6])
def test_the_log_is_that_of_a_run_without_a_break(tmp_path, step):
    recipe = recipe_file(tmp_path, max_steps=8, logging_steps=3, **EVERY_TWO)
    whole = job_of(recipe)
    trained(whole)
    again = resumed(recipe, step)
    trained(again)
    for names in (("loss", "grad_norm", "learning_rate"), ("eval_loss", "eval_sacrebleu")):
        assert log_of(again, *names) == log_of(whole, *names)
        assert len(log_of(whole, *names)) > 2


@pytest.mark.parametrize("step", [7, 14, 21])
def test_an_evaluation_at_the_end_of_an_epoch_is_not_lost(tmp_path, step):
    """A checkpoint of an epoch's last step is saved before that epoch is evaluated."""
    recipe = recipe_file(
        tmp_path, max_steps=35, save_steps=7, eval_strategy="epoch", early_stopping_patience=9, logging_steps=5, **LOSS
    )
    whole = job_of(recipe)
    trained(whole)
    again = resumed(recipe, step)
    trained(again)
    assert log_of(again, "eval_loss") == log_of(whole, "eval_loss")
    assert log_of(again, "loss") == log_of(whole, "loss")
    assert [evaluated for evaluated, _ in log_of(whole, "eval_loss")] == [14, 28, 35]


def test_the_mean_loss_at_the_end_is_that_of_the_steps_after_the_checkpoint(tmp_path):
    recipe = recipe_file(tmp_path, max_steps=6, logging_steps=1)
    whole = job_of(recipe)
    trained(whole)
    losses = [loss for _, loss in log_of(whole, "loss")]
    recipe = recipe_file(tmp_path, max_steps=6, logging_steps=4)
    again = resumed(recipe, 2)
    trained(again)
    assert log_of(again, "train_loss")[0][1] == pytest.approx(sum(losses[2:]) / 4)


def test_a_checkpoint_is_not_evaluated_once_more(tmp_path):
    """An evaluation that cannot be better than itself would count towards early stopping."""
    recipe = recipe_file(tmp_path, eval_on_start=True, early_stopping_patience=1, max_steps=8, **LOSS, **EVERY_TWO)
    whole = job_of(recipe)
    trained(whole)
    again = resumed(recipe, 2)
    trained(again)
    assert log_of(again, "eval_loss") == log_of(whole, "eval_loss")


def test_intervals_are_those_that_are_asked_for_now(tmp_path):
    trained(job_of(recipe_file(tmp_path, max_steps=4, logging_steps=2, **EVERY_TWO)))
    again = resumed(recipe_file(tmp_path, max_steps=9, logging_steps=3, eval_strategy="steps", eval_steps=3), 4)
    trained(again)
    assert [step for step, _ in log_of(again, "eval_loss")] == [2, 4, 6, 9]
    assert [step for step, _ in log_of(again, "loss")][-2:] == [6, 9]


def test_more_patience_lets_a_run_go_on_that_had_stopped(tmp_path):
    worse = {"metric_for_best_model": "loss", "greater_is_better": True, **EVERY_TWO, "max_steps": 8}
    steps, _ = trained(job_of(recipe_file(tmp_path, early_stopping_patience=1, **worse)))
    assert steps == 4
    steps, _ = trained(resumed(recipe_file(tmp_path, early_stopping_patience=2, **worse), "last"))
    assert steps == 6


@pytest.mark.parametrize("name", ["reduce_lr_on_plateau", "greedy"])
def test_options_of_a_schedule_by_the_metric_are_those_that_are_asked_for_now(tmp_path, name):
    settings = {"lr_scheduler_type": name, **EVERY_TWO}
    trained(job_of(recipe_file(tmp_path, lr_scheduler_kwargs={"factor": 0.5, "patience": 1}, **settings)))
    again = resumed(recipe_file(tmp_path, lr_scheduler_kwargs={"factor": 0.25, "patience": 7}, **settings), 2)
    trained(again)
    schedule = again.trainer.lr_scheduler
    assert (schedule.factor, schedule.patience) == (0.25, 7)


@pytest.mark.parametrize(("before", "now", "averaged"), [(4, 2, 2), (2, 4, 4), (None, 3, 2), (4, None, None)])
def test_a_greedy_schedule_averages_the_metric_over_the_window_of_now(tmp_path, before, now, averaged):
    """Two evaluations are before the checkpoint, and two after it."""

    def recipe(window):
        options = {} if window is None else {"smooth": True, "window_size": window}
        kind = {"lr_scheduler_type": "greedy", "lr_scheduler_kwargs": options}
        return recipe_file(tmp_path, max_steps=8, **kind, **EVERY_TWO, **LOSS)

    trained(job_of(recipe(before)))
    again = resumed(recipe(now), 4)
    trained(again)
    schedule = again.trainer.lr_scheduler
    assert schedule.smooth == (now is not None)
    if averaged is not None:
        metrics = [value for _, value in log_of(again, "eval_loss")][-averaged:]
        assert schedule._streaming_avg.values == pytest.approx(metrics)
        assert schedule._streaming_avg.sum == pytest.approx(sum(metrics))


@pytest.mark.parametrize("name", ["reduce_lr_on_plateau", "greedy"])
def test_a_schedule_by_the_metric_goes_on_where_it_was(tmp_path, name):
    options = {"lr_scheduler_type": name, "lr_scheduler_kwargs": {"factor": 0.5, "patience": 0}, "max_steps": 8}
    recipe = recipe_file(tmp_path, logging_steps=1, **options, **EVERY_TWO, **LOSS)
    whole = job_of(recipe)
    trained(whole)
    again = resumed(recipe, 4)
    trained(again)
    assert log_of(again, "learning_rate", "loss") == log_of(whole, "learning_rate", "loss")
    for job in (whole, again):
        job.trainer.lr_scheduler.optimizer = job.trainer.lr_scheduler._streaming_avg = None
    kept, expected = (vars(job.trainer.lr_scheduler) for job in (again, whole))
    assert {name: kept[name] for name in expected} == expected


def test_only_what_is_saved_can_be_the_best(tmp_path):
    """The best of all evaluations may be of a step that no checkpoint has."""
    settings = {"eval_strategy": "steps", "eval_steps": 1, "save_steps": 2, "load_best_model_at_end": True}
    job = job_of(recipe_file(tmp_path, metric_for_best_model="loss", greater_is_better=False, **settings))
    losses = iter([4.0, 3.0, 1.0, 2.0])
    evaluate = job.trainer._evaluate

    def scripted(*args, **kwargs):
        return {**evaluate(*args, **kwargs), "eval_loss": next(losses)}

    job.trainer._evaluate = scripted
    trained(job)
    assert job.trainer.state.best_metric == 2.0
    assert Path(job.trainer.state.best_model_checkpoint).name == "checkpoint-4"


def test_of_equal_metrics_the_last_is_the_best(tmp_path):
    """sacreBLEU stays at 0 while the loss falls."""
    settings = {"eval_strategy": "steps", "eval_steps": 1, "save_steps": 1, "load_best_model_at_end": True}
    job = job_of(recipe_file(tmp_path, save_total_limit=None, **settings))
    scores, evaluate = iter([0.0, 0.0, 0.0, -1.0]), job.trainer._evaluate
    job.trainer._evaluate = lambda *args, **kwargs: {**evaluate(*args, **kwargs), "eval_sacrebleu": next(scores)}
    trained(job)
    assert job.trainer.state.best_metric == 0.0
    assert Path(job.trainer.state.best_model_checkpoint).name == "checkpoint-3"


def test_weights_alone_are_no_checkpoint_to_go_on_from(tmp_path):
    recipe = recipe_file(tmp_path, save_only_model=True)
    trained(job_of(recipe))
    message = r"checkpoint-4 must have the optimizer's state, got weights alone .save_only_model.: begin another run"
    with pytest.raises(InputError, match=message):
        resumed(recipe, "last")


@pytest.mark.parametrize(("before", "after"), [("reduce_lr_on_plateau", "linear"), ("cosine", "greedy")])
def test_a_schedule_of_another_kind_is_refused(tmp_path, before, after):
    trained(job_of(recipe_file(tmp_path, lr_scheduler_type=before, **EVERY_TWO)))
    recipe = recipe_file(tmp_path, lr_scheduler_type=after, **EVERY_TWO)
    with pytest.raises(InputError, match=r"lr_scheduler_type, which was .*, is another than .*: put it back"):
        resumed(recipe, "last")


def test_schedules_of_steps_may_be_exchanged(tmp_path):
    trained(job_of(recipe_file(tmp_path, lr_scheduler_type="linear")))
    steps, _ = trained(resumed(recipe_file(tmp_path, lr_scheduler_type="cosine", max_steps=6), "last"))
    assert steps == 6


def test_fewer_epochs_than_were_trained_are_refused(tmp_path):
    epochs = {"max_steps": -1, "save_strategy": "epoch", "save_steps": 500}
    trained(job_of(recipe_file(tmp_path, num_train_epochs=0.4, **epochs)))
    job = resumed(recipe_file(tmp_path, num_train_epochs=0.2, **epochs), "last")
    with pytest.raises(InputError, match="must have at least its 6 steps, got 3; raise num_train_epochs"):
        execute(job)


def test_processes_and_accumulation_count_together(tmp_path, caplog):
    """Their product is what a step of the optimizer sees."""
    recipe = recipe_file(tmp_path, gradient_accumulation_steps=2, max_steps=2)
    job = job_of(recipe)
    trained(job)
    path = job.folder / "checkpoint-2" / "trainer_state.json"
    settings = recorded(path.parent, SettingsRecord, "settings")
    assert settings["gradient_accumulation_steps"] == "2"
    state = json.loads(path.read_text())
    state["stateful_callbacks"]["SettingsRecord"]["args"]["settings"]["gradient_accumulation_steps"] = "4"
    path.write_text(json.dumps(state))
    job.lock.release(force=True)
    resumed(recipe, "last").lock.release(force=True)
    assert "was trained with another gradient_accumulation_steps" in caplog.text
    caplog.clear()
    resumed(recipe_file(tmp_path, gradient_accumulation_steps=4, max_steps=2), "last")
    assert "was trained with another" not in caplog.text


BEST = {"load_best_model_at_end": True, "metric_for_best_model": "loss", "greater_is_better": True, **EVERY_TWO}


def test_a_folder_that_was_moved_keeps_its_best_checkpoint(tmp_path):
    job = job_of(recipe_file(tmp_path, **BEST))
    trained(job)
    assert Path(job.trainer.state.best_model_checkpoint).name == "checkpoint-2"
    job.lock.release(force=True)
    (tmp_path / "run").rename(tmp_path / "moved")
    again = job_of(
        recipe_file(tmp_path, **BEST), "--output_dir", str(tmp_path / "moved"), "--resume_from_checkpoint", "last"
    )
    _, weights = trained(again)
    assert again.trainer.state.best_model_checkpoint == str(tmp_path / "moved" / "checkpoint-2")
    assert all((weights[name] == one).all() for name, one in job.trainer.model.state_dict().items())


def test_a_best_checkpoint_that_is_gone_is_not_replaced_by_the_last(tmp_path):
    recipe = recipe_file(tmp_path, **BEST)
    trained(job_of(recipe))
    shutil.rmtree(tmp_path / "run" / "checkpoint-2")
    job = resumed(recipe, "last")
    with pytest.raises(InputError, match=r"checkpoint-2, the best checkpoint of a run that is at its end, must be"):
        execute(job)


def test_later_checkpoints_go_where_a_run_goes_on_from_an_earlier_one(tmp_path):
    """Otherwise `last`, and an average of the last ones, would take those of the run that was left."""
    recipe = recipe_file(tmp_path, max_steps=6)
    trained(job_of(recipe))
    job = resumed(recipe, 2, "--max_steps", "2")
    names = []
    train = job.trainer.train

    def watched(*args, **kwargs):
        names.extend(path.name for path in job.folder.glob("checkpoint-*"))
        return train(*args, **kwargs)

    job.trainer.train = watched
    execute(job)
    assert names == ["checkpoint-2"]
