"""When a run was good, and that runs are kept."""

import json
import math
import re
import time

import pytest
from training_jobs import recipe_file

from benchmarks import recipe_runs
from benchmarks.recipe_runs import TIMED_STEPS, Finished, measure_step, train
from benchmarks.time_to_quality import BART, CROSSMASK, R_DROP, VARIANTS, main, mean_and_each, row_of, until
from crossmask.training.parsing import parse_run

EVALUATIONS = [
    {"step": 80, "eval_sacrebleu": 29.9, "training_seconds": 70.0},
    {"step": 160, "eval_sacrebleu": 30.0, "training_seconds": 150.0},
    {"step": 240, "eval_sacrebleu": 29.0, "training_seconds": 220.0},
]


def test_the_first_evaluation_that_has_the_score_counts():
    assert until(EVALUATIONS, 30.0, "training_seconds") == 150.0
    assert until(EVALUATIONS, 30.1, "training_seconds") == math.inf


def test_a_row_has_the_mean_and_each_seed():
    assert mean_and_each([1.5]) == "1.5"
    assert mean_and_each([1.0, 2.0]) == "1.5 (1.0, 2.0)"
    assert mean_and_each([1.0, math.inf]) == "1.0, never"
    assert mean_and_each([1.0, 2.0], digits=2) == "1.50 (1.00, 2.00)"
    evaluations = [{**entry, "training_cpu_seconds": 60.0 * entry["step"] / 80} for entry in EVALUATIONS]
    row = row_of("crossmask", [Finished([], {"sacrebleu": 31.25})], [evaluations])
    assert row == ["crossmask", "0.75", "2.0", "2.5", *["never"] * 4, "30.0", "31.2"]


def test_the_mean_of_checkpoints_is_left_out():
    mean = {"step": 240, "eval_sacrebleu": 31.0}
    finished = Finished([{"step": 80, "loss": 2.0}, *EVALUATIONS, mean], {})
    assert finished.evaluations("eval_sacrebleu") == EVALUATIONS


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_is_a_recipe_that_can_be_read(variant):
    recipe, changed = VARIANTS[variant]
    assert recipe in (CROSSMASK, R_DROP, BART)
    run = parse_run([recipe, *changed, "--average_checkpoints", "null"], command="c")
    assert run.recipe.optimization.average_checkpoints is None


def test_a_finished_run_is_kept_and_an_interrupted_one_goes_on(tmp_path, monkeypatch):
    commands, recipe = [], tmp_path / "recipe.yaml"
    recipe.write_text("task: translation\n")

    def pretend(command, **options):
        commands.append(command)
        assert options["env"]["OMP_NUM_THREADS"] == "1"
        (tmp_path / "log.jsonl").write_text(json.dumps(EVALUATIONS[0]) + "\n")
        (tmp_path / "metrics.json").write_text('{"sacrebleu": 12.5}')

    monkeypatch.setattr(recipe_runs.subprocess, "run", pretend)
    (tmp_path / "checkpoint-80").mkdir()
    first = train(tmp_path, str(recipe), ["--seed", "3"])
    assert commands[0][1:3] == ["train.py", str(recipe)]
    assert commands[0][-4:] == ["--seed", "3", "--resume_from_checkpoint", "last"]
    recipe.write_text("# a comment\ntask: translation\n")
    assert train(tmp_path, str(recipe), ["--seed", "3"]) == first
    assert len(commands) == 1
    assert first.metrics["sacrebleu"] == 12.5
    with pytest.raises(SystemExit, match="must be of a run with the same recipe and options"):
        train(tmp_path, str(recipe), ["--seed", "3", "--train.limit", "128"])
    recipe.write_text("task: translation\nseed: 2\n")
    with pytest.raises(SystemExit, match="must be of a run with the same recipe and options"):
        train(tmp_path, str(recipe), ["--seed", "3"])
    (tmp_path / recipe_runs.COMMAND).unlink()  # a run that somebody made by hand
    with pytest.raises(SystemExit, match="must be of a run with the same recipe and options"):
        train(tmp_path, str(recipe), ["--seed", "3"])


def test_a_profile_has_the_time_and_the_products_of_a_step(tmp_path):
    before = time.process_time()
    step = measure_step(recipe_file(tmp_path, average_checkpoints=2), [])
    assert 0 < step.seconds < (time.process_time() - before) / TIMED_STEPS
    assert list(step.operations.values()) == sorted(step.operations.values(), reverse=True)
    assert step.operations["aten::mm"] > 0


@pytest.mark.parametrize("words", [["--profile", "--seeds", "3"], ["--quick", "--epochs", "2"]], ids=str)
def test_an_option_that_would_not_count_is_refused(words, capsys):
    with pytest.raises(SystemExit):
        main(words)
    assert f"{words[1]} must be left out with {words[0]}" in capsys.readouterr().err


def test_a_quick_profile_has_a_page_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setattr("benchmarks.time_to_quality.profiles", lambda options: "a table")
    monkeypatch.chdir(tmp_path)
    main(["--quick", "--profile"])
    assert "a table" in (tmp_path / "runs" / "benchmarks" / "quick" / "time_to_quality_profile.md").read_text()


@pytest.mark.slow
def test_a_quick_run_trains_every_variant_and_writes_table_and_picture(tmp_path, tiny_multi30k):
    page = tmp_path / "page.md"
    main(["--quick", "--runs", str(tmp_path / "runs"), "--output", str(page)])
    for variant in VARIANTS:
        assert re.search(rf"^\| {re.escape(variant)} \| [\d.]+ \|( never \|){{6}}", page.read_text(), re.MULTILINE), (
            variant
        )
    assert page.with_suffix(".png").exists()
