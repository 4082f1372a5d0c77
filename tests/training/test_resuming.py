"""A run that goes on from a checkpoint ends as one that nothing disturbed."""

import json
from pathlib import Path

import pytest
from training_jobs import SIZES, assert_goes_on, job_of, recipe_file, tiny_tokenizer, trained

from crossmask.tasks import get_task
from crossmask.training.build_model import build_model
from crossmask.training.continuation import settings_of
from crossmask.training.parsing import parse_run
from crossmask.training.run import PreparedRun, prepare_tokenizer
from crossmask.training.timing import Stopwatch, stopwatch_of
from crossmask.utils.errors import InputError


@pytest.fixture
def start(tmp_path) -> Path:
    """A folder with a model to fine-tune and its tokenizer."""
    tokenizer = tiny_tokenizer()
    run = parse_run([recipe_file(tmp_path)], command="c")
    recipe = run.recipe
    build_model(recipe.model, recipe.data.limits, get_task("translation"), tokenizer).save_pretrained(
        tmp_path / "start"
    )
    tokenizer.save_pretrained(tmp_path / "start")
    return tmp_path / "start"


@pytest.mark.parametrize("given", ["tokenizer", "model_name_or_path", None])
def test_a_run_goes_on_with_its_tokenizer_wherever_that_is_from(start, tmp_path, given):
    changes = dict.fromkeys(("model", "tokenizer")) if given == "model_name_or_path" else {}
    recipe = recipe_file(tmp_path, **changes)
    options = [f"--{given}", str(start)] if given else []
    assert_goes_on(recipe, 2, *options)


def test_a_run_that_begins_leaves_the_folder_alone(tmp_path):
    """A finished model there keeps its own tokenizer until the new run is finished as well."""
    job_of(recipe_file(tmp_path))
    assert [path.name for path in (tmp_path / "run").iterdir()] in ([], [".lock"])


def test_a_checkpoint_without_a_tokenizer_is_named(tmp_path):
    recipe = parse_run([recipe_file(tmp_path)], command="c").recipe
    (tmp_path / "checkpoint-2").mkdir()
    with pytest.raises(OSError, match=r"resume_from_checkpoint: no tokenizer in '.*checkpoint-2'") as error:
        prepare_tokenizer(recipe, None, [], tmp_path / "checkpoint-2")
    assert "\n" not in str(error.value)


# The loss falls, so that it is never greater: the run stops after three evaluations.
STOPPING = {
    "early_stopping_patience": 2, "metric_for_best_model": "loss", "greater_is_better": True, "max_steps": 12,
    "eval_strategy": "steps", "eval_steps": 2,
}  # fmt: skip
STREAM = {
    "batching": "stream", "stream_buffer": 20, "max_steps": 3, "source_row_length": 32, "target_row_length": 32,
    "max_source_length": 32, "max_target_length": 32,
}  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "checkpoint", "last"),
    [
        (STOPPING, 4, 6),
        (STOPPING, 6, 6),
        ({"max_steps": 3}, 3, 3),
        ({"max_steps": -1, "num_train_epochs": 0.2, "save_strategy": "epoch", "save_steps": 500}, 3, 3),
        (STREAM, 3, 3),
    ],
    ids=["before early stopping", "after early stopping", "after max_steps", "after part of an epoch", "of a stream"],
)
def test_a_resumed_run_ends_where_the_whole_one_does(tmp_path, changes, checkpoint, last):
    assert assert_goes_on(recipe_file(tmp_path, **changes), checkpoint) == last


def test_more_steps_may_be_asked_for(tmp_path):
    recipe = recipe_file(tmp_path, max_steps=2)
    trained(job_of(recipe))
    steps, _ = trained(job_of(recipe, "--resume_from_checkpoint", "last", "--max_steps", "4"))
    assert steps == 4


def test_the_seconds_before_a_checkpoint_count(tmp_path):
    recipe = recipe_file(tmp_path)
    job = job_of(recipe)
    trained(job)
    assert 0 < stopwatch_of(job.trainer).seconds() < 500
    path = job.folder / "checkpoint-2" / "trainer_state.json"
    state = json.loads(path.read_text())
    assert 0 < state["stateful_callbacks"]["Stopwatch"]["args"]["before"] < stopwatch_of(job.trainer).seconds()
    state["stateful_callbacks"]["Stopwatch"]["args"]["before"] = 1000.0
    path.write_text(json.dumps(state))
    again = job_of(recipe, "--resume_from_checkpoint", str(path.parent))
    trained(again)
    assert 1000 < stopwatch_of(again.trainer).seconds() < 1500


def test_a_checkpoint_need_not_know_what_is_counted_now(tmp_path):
    recipe = recipe_file(tmp_path, eval_strategy="steps", eval_steps=2)
    job = job_of(recipe)
    trained(job)
    path = job.folder / "checkpoint-2" / "trainer_state.json"
    state = json.loads(path.read_text())
    del state["stateful_callbacks"]["Stopwatch"]
    path.write_text(json.dumps(state))
    options = ["--early_stopping_patience", "1", "--metric_for_best_model", "loss", "--greater_is_better", "true"]
    steps, _ = trained(job_of(recipe, "--resume_from_checkpoint", str(path.parent), *options))
    assert steps == 4


KEPT = [
    ({"model": {**SIZES, "hidden_size": 32}}, "hidden_size is 32 and was 16"),
    ({"model": {**SIZES, "decoder_layers": 2}}, "decoder_layers is 2 and was 1"),
    ({"model": {**SIZES, "tie_word_embeddings": False}}, "tie_word_embeddings is False and was"),
    ({"optim": "adamw_torch"}, "optim, which was sgd, is another than"),
    ({"tokenizer": {"vocab_size": 270}}, "tokenizer is another than"),
]


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory) -> Path:
    """The folder of a run that got to a checkpoint."""
    folder = tmp_path_factory.mktemp("interrupted")
    trained(job_of(recipe_file(folder, max_steps=2)))
    return folder


def resumed(folder: Path, **changes) -> PreparedRun:
    job = job_of(recipe_file(folder, **changes), "--resume_from_checkpoint", "last")
    job.lock.release(force=True)
    return job


@pytest.mark.parametrize(("changes", "message"), KEPT, ids=str)
def test_what_a_checkpoint_does_not_fit_is_refused(interrupted, changes, message):
    with pytest.raises(InputError, match=rf"{message}.*put (it|that) back, or train anew") as error:
        resumed(interrupted, **changes)
    assert "\n" not in str(error.value)


def test_fewer_steps_than_were_taken_are_refused(interrupted):
    with pytest.raises(
        InputError, match=r"max_steps must be at least 2, the steps of .*checkpoint-2, got 1; raise it"
    ):
        resumed(interrupted, max_steps=1)
    resumed(interrupted, max_steps=2)


def test_another_order_of_the_data_is_warned_of(interrupted, caplog):
    resumed(interrupted)
    assert "was trained with another" not in caplog.text
    resumed(interrupted, seed=7, per_device_train_batch_size=2)
    assert "was trained with another seed, per_device_train_batch_size: the run does not see" in caplog.text


def test_a_checkpoint_holds_no_secrets(tmp_path):
    recipe = recipe_file(tmp_path, task_options={"group_column": "hf_abcDEF123456789"})
    run = parse_run([recipe], command="c")
    other = parse_run([recipe, "--task_options.group_column", "hf_zyxWVU987654321"], command="c")
    recorded = settings_of(run.recipe, run.arguments)
    assert "hf_abc" not in str(recorded)
    assert recorded == settings_of(other.recipe, other.arguments)


@pytest.mark.parametrize(
    ("changes", "name", "value"),
    [
        ({"weight_decay": 0.25}, "weight_decay", 0.25),
        ({"optim_args": "momentum=0.5"}, "momentum", 0.5),
        ({"learning_rate": 0.5}, "lr", 0.5),
    ],
    ids=str,
)
def test_an_optimizer_goes_on_with_the_settings_that_are_asked_for(tmp_path, changes, name, value):
    trained(job_of(recipe_file(tmp_path, max_steps=2)))
    job = resumed(tmp_path, max_steps=3, **changes)
    trained(job)
    assert job.trainer.optimizer.param_groups[0][name] == value


def test_the_log_has_the_seconds_of_training_without_evaluations(tmp_path, monkeypatch):
    clock = [0.0]

    def now():
        clock[0] += 0.001
        return clock[0], clock[0]

    monkeypatch.setattr(Stopwatch, "_now", staticmethod(now))
    recipe = recipe_file(tmp_path, eval_strategy="steps", eval_steps=2, logging_steps=1)
    job = job_of(recipe)
    evaluate = type(job.trainer).evaluation_loop

    def slowly(*args, **kwargs):
        clock[0] += 1000
        return evaluate(*args, **kwargs)

    monkeypatch.setattr(type(job.trainer), "evaluation_loop", slowly)
    trained(job)
    log = job.trainer.state.log_history
    for name in ("training_seconds", "training_cpu_seconds"):
        times = [entry[name] for entry in log]
        assert times == sorted(times)
        assert times[0] > 0
    first = next(number for number, entry in enumerate(log) if "eval_loss" in entry)
    before, evaluation, after = log[first - 1 : first + 2]
    assert evaluation["training_seconds"] == pytest.approx(before["training_seconds"], abs=1)
    assert after["training_seconds"] < evaluation["training_seconds"] + 1
    again = job_of(recipe, "--resume_from_checkpoint", str(job.folder / "checkpoint-2"))
    trained(again)
    resumed = again.trainer.state.log_history
    assert [entry["training_seconds"] for entry in resumed[:3]] == [entry["training_seconds"] for entry in log[:3]]
    assert resumed[3]["training_seconds"] > resumed[2]["training_seconds"]
