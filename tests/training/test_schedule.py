"""A schedule of the learning rate that fails or makes no sense is refused before the first step."""

import logging
import math

import pytest
from training_jobs import job_of, recipe_file, trained

from crossmask.utils.errors import InputError

BELOW = "one number, less than learning_rate"
WRONG = [
    ("polynomial", {"power": -1}, "it fails at step 12 of 12|must be from 0 to learning_rate"),
    ("polynomial", {"power": "two"}, "unsupported operand"),
    ("polynomial", {"lr_end": 0.5}, "must be smaller than initial lr"),
    ("polynomial", {"lr_end": -0.5}, "the rate is -.*, where it must be from 0 to learning_rate"),
    ("inverse_sqrt", {"timescale": -5}, "where it must be from 0 to learning_rate"),
    ("inverse_sqrt", {"timescale": 0}, "it fails at step 2 of 12"),
    ("cosine", {"num_cycles": "two"}, "it fails at step 2 of 12"),
    ("cosine", {"num_cycles": math.nan}, "num_cycles must be a finite number"),
    ("cosine_with_min_lr", {"min_lr": 1000}, "where it must be from 0 to learning_rate"),
    ("cosine_with_min_lr", {"min_lr_rate": 5}, "where it must be from 0 to learning_rate"),
    ("cosine_with_min_lr", {"min_lr": -1}, "the rate is 0 long before the end, from step 3 of 12 on"),
    (
        "warmup_stable_decay",
        {"num_decay_steps": -20},
        "num_decay_steps must be a positive whole number of steps, or a share of",
    ),
    ("warmup_stable_decay", {"num_decay_steps": 1.5}, "or a share of them below 1, got 1.5"),
    ("warmup_stable_decay", {"num_decay_steps": 0.0}, "or a share of them below 1, got 0.0"),
    (
        "warmup_stable_decay",
        {"num_decay_steps": 0.95},
        r"warmup_steps \(2\) and lr_scheduler_kwargs \({'num_decay_steps': 0.95}, 11 steps\) must be at most "
        "the run's 12 steps together; lower one, or train for longer",
    ),
    ("warmup_stable_decay", {"num_decay_steps": 0}, "num_decay_steps must be a positive whole number of steps, or a"),
    ("warmup_stable_decay", {"num_decay_steps": 4, "min_lr_ratio": 1}, "the rate stays what it is: set lr_scheduler_"),
    ("warmup_stable_decay", {"num_decay_steps": 4, "num_cycles": 0}, "the rate stays what it is: set lr_scheduler_"),
    ("warmup_stable_decay", {"num_decay_steps": 4, "num_stable_steps": 0.2}, "whole number of steps, got 0.2"),
    ("warmup_stable_decay", {"num_decay_steps": 4, "num_stable_steps": 2}, "the rate is 0 long before the end"),
    ("reduce_lr_on_plateau", {"patience": "x"}, "patience must be a whole number of evaluations, got 'x'"),
    ("reduce_lr_on_plateau", {"patience": -5}, "patience must be a whole number of evaluations, got -5"),
    ("reduce_lr_on_plateau", {"factor": -3.0}, "factor must be more than 0 and less than 1, got -3.0"),
    ("reduce_lr_on_plateau", {"factor": 1}, "factor must be more than 0 and less than 1, got 1"),
    ("reduce_lr_on_plateau", {"min_lr": 0.1}, f"min_lr must be {BELOW} .0.01., got 0.1; set it"),
    ("greedy", {"min_lr": [0.1]}, rf"min_lr must be {BELOW} .0.01., got \[0.1\]; set it"),
    ("greedy", {"min_lr": [0.001]}, rf"min_lr must be {BELOW} .0.01., got \[0.001\]; set it"),
    ("greedy", {"max_lr": 0.001}, "max_lr must be one number, at least learning_rate .0.01., got 0.001; set it"),
    ("greedy", {"mode": "min"}, "mode must be max for eval_sacrebleu, got min; leave it out"),
    ("reduce_lr_on_plateau", {"threshold": "x"}, "unsupported operand"),
]
RIGHT = [
    ("linear", {}),
    ("cosine", {"num_cycles": 1.5}),
    ("cosine_with_restarts", {"num_cycles": 3}),
    ("polynomial", {"power": 2.0, "lr_end": 0.001}),
    ("inverse_sqrt", {"timescale": 4}),
    ("cosine_with_min_lr", {"min_lr": 0.001}),
    ("cosine_warmup_with_min_lr", {"min_lr_rate": 0.1, "warmup_lr_rate": 0.2}),
    ("warmup_stable_decay", {"num_decay_steps": 4}),
    ("warmup_stable_decay", {"num_decay_steps": 4, "num_stable_steps": 2, "min_lr_ratio": 0.1}),
    ("warmup_stable_decay", {"num_decay_steps": 0.4}),
    ("warmup_stable_decay", {"num_decay_steps": 0.834}),  # of 12 steps, after 2 of warm-up
    ("reduce_lr_on_plateau", {"patience": 2}),
    ("greedy", {}),
]


def _recipe(folder, name, options, **fields):
    by_metric = name in ("reduce_lr_on_plateau", "greedy")
    more = {"eval_strategy": "epoch"} if by_metric else {"warmup_steps": 2}
    fields = {"max_steps": 12, "learning_rate": 0.01, **more, **fields}
    return recipe_file(folder, lr_scheduler_type=name, lr_scheduler_kwargs=options, **fields)


@pytest.mark.parametrize(("name", "options", "message"), WRONG, ids=str)
def test_a_schedule_that_fails_or_makes_no_sense_is_refused(tmp_path, name, options, message):
    with pytest.raises(InputError, match=message) as error:
        job_of(_recipe(tmp_path, name, options))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("name", "options"), RIGHT, ids=str)
def test_others_are_taken(tmp_path, name, options):
    job_of(_recipe(tmp_path, name, options))


def test_a_decay_of_a_few_steps_is_found_in_a_run_of_thousands(tmp_path):
    job_of(_recipe(tmp_path, "warmup_stable_decay", {"num_decay_steps": 3}, max_steps=5000))


def test_json_of_the_command_line_is_held_to_the_same(tmp_path):
    recipe = _recipe(tmp_path, "cosine", {})
    with pytest.raises(InputError, match="num_cycles must be a finite number"):
        job_of(recipe, "--lr_scheduler_kwargs", '{"num_cycles": NaN}')


def test_a_run_of_epochs_is_refused_before_its_first_step(tmp_path):
    job = job_of(_recipe(tmp_path, "inverse_sqrt", {"timescale": -5}, max_steps=-1, num_train_epochs=3))
    with pytest.raises(InputError, match="at step 3 of 42, where it must be from 0 to learning_rate"):
        job.trainer.train()
    assert job.trainer.state.global_step == 0


@pytest.mark.parametrize(("length", "steps"), [(12, 3), (14, 3)])
def test_a_share_of_the_steps_is_one_of_each_run(tmp_path, length, steps):
    def rates(value: float) -> list[float]:
        options = {"num_decay_steps": value}
        job = job_of(
            _recipe(tmp_path, "warmup_stable_decay", options, max_steps=length, logging_steps=1), "--overwrite"
        )
        trained(job)
        assert job.trainer.args.lr_scheduler_kwargs == options
        return [entry["learning_rate"] for entry in job.trainer.state.log_history if "learning_rate" in entry]

    by_share = rates(0.25)
    assert by_share == rates(steps)
    assert by_share[2] == 0.01 > by_share[-1]


@pytest.mark.parametrize("optim", ["adamw_torch_fused", "muon"])
def test_an_absolute_rate_is_one_of_learning_rate_by_every_optimizer(tmp_path, optim):
    job = job_of(_recipe(tmp_path, "cosine_with_min_lr", {"min_lr": 0.004}, optim=optim, logging_steps=1))
    trained(job)
    rates = [entry["learning_rate"] for entry in job.trainer.state.log_history if "learning_rate" in entry]
    assert max(rates) == pytest.approx(0.01)
    assert 0.004 <= rates[-1] < 0.005


def test_a_default_that_does_not_fit_the_rate_is_named(tmp_path):
    with pytest.raises(InputError, match=rf"min_lr must be {BELOW} \(0.0001\), got 0.001, the default of greedy"):
        job_of(_recipe(tmp_path, "greedy", {}, learning_rate=1e-4))


@pytest.mark.parametrize(
    "rates",
    [
        {"optim": "muon", "optim_args": "learning_rate=0.05"},
        {"learning_rates": {"encoder.layers": 0.05}},
    ],
    ids=str,
)
def test_bounds_fit_the_rates_of_all_weights(tmp_path, rates):
    """Both bounds are absolute, and the optimizer has them for every group."""
    job = job_of(_recipe(tmp_path, "greedy", {"min_lr": 0.001, "max_lr": 0.02}, **rates))
    message = r"max_lr must be one number, at least a learning rate of the run \(0.05\), got 0.02; set it"
    with pytest.raises(InputError, match=message):
        job.trainer.train()


@pytest.mark.parametrize("name", ["reduce_lr_on_plateau", "greedy"])
@pytest.mark.parametrize(("metric", "mode"), [(None, "max"), ("loss", "min"), ("chrf", "max")])
def test_a_schedule_by_the_metric_knows_which_is_better(tmp_path, name, metric, mode):
    job = job_of(_recipe(tmp_path, name, {}, metric_for_best_model=metric))
    job.trainer.create_optimizer_and_scheduler(12)
    assert job.trainer.lr_scheduler.mode == mode


def test_evaluations_that_never_come_are_said(tmp_path, caplog):
    changes = {"eval_strategy": "steps", "eval_steps": 50, "load_best_model_at_end": False}
    with caplog.at_level(logging.WARNING):
        trained(job_of(_recipe(tmp_path, "linear", {}, **changes)))
    assert "eval_steps is 50 and the run has 12 steps" in caplog.text


def test_a_delay_as_long_as_the_run_is_said(tmp_path, caplog):
    changes = {"eval_strategy": "epoch", "eval_delay": 9, "load_best_model_at_end": False}
    job = job_of(_recipe(tmp_path, "linear", {}, max_steps=-1, num_train_epochs=3, **changes))
    with caplog.at_level(logging.WARNING):
        job.trainer.create_optimizer_and_scheduler(12)
    assert "eval_delay is 9 and the run has 3 epochs" in caplog.text
