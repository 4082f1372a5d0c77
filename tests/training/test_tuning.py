"""`crossmask tune` on a tiny recipe: what it leaves behind, and that it goes on after a kill."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from training_jobs import recipe_file

from crossmask.cli.main import main
from crossmask.data.recipes import FOLDER
from crossmask.training.search_space import parse_space

GOOD, BAD, INFINITE = 0.1, 1e-6, 1e30
SETTINGS = {
    "metric_for_best_model": "eval_loss",
    "greater_is_better": False,
    "load_best_model_at_end": True,
    "eval_strategy": "steps",
    "eval_steps": 2,
}


def tiny_recipe(folder: Path, **changes) -> str:
    return recipe_file(folder, **{**SETTINGS, **changes})


def trials_of(folder: Path) -> list:
    optuna = pytest.importorskip("optuna")
    return optuna.load_study(study_name="tune", storage=f"sqlite:///{folder / 'study.db'}").get_trials()


def states(folder: Path) -> list[str]:
    return [trial.state.name for trial in trials_of(folder)]


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    """A study of which trials are complete, pruned, diverged and failed."""
    pytest.importorskip("optuna")
    folder = tmp_path_factory.mktemp("searched")
    space = {
        "learning_rate": {"choices": [GOOD, BAD, INFINITE]},
        "model.num_attention_heads": [2, 1],
        "model.num_key_value_heads": [1, 2],  # 1 head alone has no 2 key/value heads
    }
    recipe = tiny_recipe(folder, search=space, seed=167)
    output = folder / "study"
    arguments = ["tune", recipe, "--trials", "6", "--prune-after", "1", "--output", str(output), "--max_steps", "6"]
    assert main([*arguments, "--quiet"]) == 0
    return output


def test_every_trial_has_an_end(searched):
    trials = trials_of(searched)
    of = {name: [trial for trial in trials if trial.state.name == name] for name in ("COMPLETE", "PRUNED", "FAIL")}
    assert sum(map(len, of.values())) == 6
    assert {trial.params["learning_rate"] for trial in of["COMPLETE"]} >= {GOOD}
    assert {trial.params["learning_rate"] for trial in of["PRUNED"]} >= {BAD, INFINITE}
    diverged = [trial for trial in of["PRUNED"] if trial.params["learning_rate"] == INFINITE]
    assert all("is not finite" in t.user_attrs["reason"] or "in step" in t.user_attrs["reason"] for t in diverged)
    by_median = [trial for trial in of["PRUNED"] if trial.params["learning_rate"] == BAD]
    assert by_median
    assert all(len(trial.intermediate_values) < 3 for trial in by_median)
    for trial in of["FAIL"]:
        assert (trial.params["model.num_attention_heads"], trial.params["model.num_key_value_heads"]) == (1, 2)
        assert "num_attention_heads" in trial.user_attrs["reason"]
    assert of["FAIL"]
    best = min(of["COMPLETE"], key=lambda trial: trial.value)
    assert [path.parent.name for path in searched.glob("trials/*/checkpoint-6")] == [f"{best.number:04}"]
    values = [json.loads(line) for line in (searched / f"trials/{best.number:04}/log.jsonl").read_text().splitlines()]
    assert best.value == min(entry["eval_loss"] for entry in values if "eval_loss" in entry)


def test_the_table_and_the_figure(searched):
    table = (searched / "trials.md").read_text()
    rows = [line for line in table.splitlines() if line.startswith("| ") and line[2].isdigit()]
    assert len(rows) == 6
    losses = [float(row.split(" | ")[1]) for row in rows if row.rstrip(" |").split(" | ")[-1].isdigit()]
    assert losses == sorted(losses)
    assert "pruned" in table
    assert (searched / "importances.png").read_bytes().startswith(b"\x89PNG")


def test_the_winning_recipe_trains_and_its_trial_can_be_finished(searched, tmp_path, capsys):
    winner, best = searched / "tiny-tuned.yaml", next(searched.glob("trials/*/checkpoint-6")).parent
    recipe = yaml.safe_load(winner.read_text())
    assert recipe["learning_rate"] == GOOD
    assert recipe["max_steps"] == 6  # the command line's
    assert "search" not in recipe
    assert "# Trial" in winner.read_text()
    assert main(["train", str(winner), "--output_dir", str(tmp_path / "anew")]) == 0
    # Without training it again.
    finish = ["--output_dir", str(best), "--resume_from_checkpoint", "last"]
    assert main(["train", str(winner), *finish]) == 0
    anew, finished = (json.loads((place / "metrics.json").read_text()) for place in (tmp_path / "anew", best))
    assert anew["loss"] == pytest.approx(finished["loss"], rel=1e-4)


@pytest.fixture
def recipe(tmp_path):
    return tiny_recipe(tmp_path, search={"learning_rate": {"low": 0.01, "high": 0.1}})


SLOW = """
import time
from crossmask.training import tuning_trials
train, calls = tuning_trials.train, []
def slow(*arguments):
    calls.append(arguments)
    time.sleep(600 * (len(calls) > 1))
    return train(*arguments)
tuning_trials.train = slow
"""


def run_tune(*arguments: str, before: str = "") -> subprocess.Popen:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OMP_NUM_THREADS": "1"}
    code = f"{before}\nimport sys; from crossmask.cli.main import main; sys.exit(main(sys.argv[1:]))"
    return subprocess.Popen([sys.executable, "-c", code, "tune", *arguments, "--quiet"], env=environment)


def wait_for(path: Path, process: subprocess.Popen) -> None:
    end = time.monotonic() + 300
    while not path.exists():
        assert process.poll() is None, "it ended before"
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_search_that_was_killed_goes_on(recipe, tmp_path, capsys):
    pytest.importorskip("optuna")
    output = tmp_path / "study"
    arguments = [recipe, "--trials", "3", "--output", str(output)]
    process = run_tune(*arguments, before=SLOW)  # whose second trial does not end by itself
    try:
        wait_for(output / "trials" / "0001" / "output.txt", process)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    assert states(output) == ["COMPLETE", "RUNNING"]
    before = trials_of(output)
    assert main(["tune", *arguments, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert states(output) == ["COMPLETE", "FAIL", "COMPLETE", "COMPLETE"]
    after = trials_of(output)
    assert after[0] == before[0]
    assert after[2].params == before[1].params  # tried again
    assert not (output / "trials" / "0001").exists()
    assert found["trials"] == 3
    assert yaml.safe_load(Path(found["recipe"]).read_text())["learning_rate"] == found["values"]["learning_rate"]
    assert "\n| 1 |" not in (output / "trials.md").read_text()
    # Nothing is left to do, and no other recipe goes into the folder.
    assert main(["tune", *arguments, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == found
    assert main(["tune", *arguments, "--seed", "7"]) == 2
    assert f"seed must be None, with which {output} was begun, got 7; put it back" in capsys.readouterr().err


def test_a_trial_that_is_killed_three_times_is_given_up(tmp_path):
    trials = pytest.importorskip("crossmask.training.tuning_trials", exc_type=ImportError)
    tuning, claimed = bare_tuning(tmp_path, {}), []
    for number in range(trials.ATTEMPTS):
        claimed.append(trials.claim(tuning))
        assert claimed[-1].number == number
        trials.release_folder(tuning, number)  # as the system does for a process that is killed
    assert trials.claim(tuning) is None
    assert states(tmp_path) == ["FAIL"] * trials.ATTEMPTS
    assert len({trial.params["learning_rate"] for trial in claimed}) == 1


def bare_tuning(folder: Path, recipe: dict, command: str = "crossmask tune"):
    """A search of a recipe that is never trained."""
    tuning = pytest.importorskip("crossmask.training.tuning", exc_type=ImportError)
    space = parse_space({"learning_rate": {"low": 0.1, "high": 0.2}})
    return tuning.Tuning(
        "x", recipe, space, command, folder, "eval_loss", False, 0, trials=1, prune_after=0, quiet=True
    )


def test_a_field_that_is_null_is_one_that_is_left_out(tmp_path):
    bare_tuning(tmp_path, {"model": None}).study  # noqa: B018
    assert bare_tuning(tmp_path, {}).study.get_trials() == []


def test_the_winning_recipe_can_be_read_whatever_the_command_was(tmp_path):
    tuning = bare_tuning(tmp_path, {"seed": 3}, "crossmask tune x.yaml --train '[\n{\u2028}\n]'")
    from crossmask.training.tuning_trials import claim, keep_best

    trial = claim(tuning)
    tuning.study.tell(trial, 0.5)
    keep_best(tuning)
    assert yaml.safe_load(tuning.winner.read_text()) == {"seed": 3, **trial.params}


@pytest.mark.slow
def test_workers_share_a_search_and_end_with_their_parent(recipe, tmp_path):
    output = tmp_path / "study"
    arguments = [recipe, "--trials", "4", "--workers", "2", "--output", str(output)]
    process = run_tune(*arguments)
    try:
        wait_for(output / "trials" / "0001" / "output.txt", process)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    time.sleep(2)  # the workers see it
    assert run_tune(*arguments).wait() == 0
    ended = states(output)
    assert ended.count("COMPLETE") == 4
    assert "RUNNING" not in ended
    assert len({trial.params["learning_rate"] for trial in trials_of(output) if trial.value is not None}) == 4


def test_a_worker_has_its_part_of_the_machine(monkeypatch):
    workers = pytest.importorskip("crossmask.training.tuning_workers", exc_type=ImportError)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5")
    assert workers.environment_of(3, 4, gpus=2, cores=8) == {"OMP_NUM_THREADS": "2", "CUDA_VISIBLE_DEVICES": "5"}
    assert workers.environment_of(0, 4, gpus=1, cores=2) == {"OMP_NUM_THREADS": "1"}


@pytest.mark.parametrize(
    ("search", "message"),
    [
        ({"lerning_rate": [1, 2]}, "search.lerning_rate cannot be 1: no field is named 'lerning_rate'"),
        ({"model.dropout": {"low": 0.0, "high": 2.0}}, "search.model.dropout cannot be 2.0: "),
        ({"model.hiden_size": [16, 32]}, "search.model.hiden_size cannot be 16: "),
        ({"learning_rate": {"low": -1.0, "high": 1.0}}, "search.learning_rate cannot be -1.0: learning_rate must be"),
        ({"lr_scheduler_type": ["cosine", "cosin"]}, "search.lr_scheduler_type cannot be 'cosin': "),
    ],
)
def test_a_space_is_tried_before_anything_is_trained(tmp_path, capsys, search, message):
    pytest.importorskip("optuna")
    output = tmp_path / "study"
    assert main(["tune", tiny_recipe(tmp_path, search=search), "--output", str(output)]) == 2
    error = capsys.readouterr().err.splitlines()
    assert [line for line in error if line.startswith("crossmask tune: ")] == error[-1:]
    assert message in error[-1]
    assert not output.exists()


@pytest.mark.parametrize(
    ("changes", "arguments", "message"),
    [
        ({}, [], "must have a search space to be tuned; add for instance search"),
        ({"search": {"learning_rate": [0.1, 0.2]}}, ["--output_dir", "x"], "--output_dir must be left out"),
        ({"search": {"learning_rate": [0.1, 0.2]}}, ["--output-dir=x"], "--output_dir must be left out"),
        ({"search": {"learning_rate": [0.1, 0.2]}}, ["--overwrite"], "--overwrite must be left out"),
        (
            {"search": {"learning_rate": [0.1, 0.2]}, "hub_token": "hf_" + "Ab3" * 9, "push_to_hub": True},
            [],
            "must be without secrets",
        ),
    ],
)
def test_recipes_that_cannot_be_tuned(tmp_path, capsys, changes, arguments, message):
    pytest.importorskip("optuna")
    assert main(["tune", tiny_recipe(tmp_path, **changes), *arguments]) == 2
    assert message in capsys.readouterr().err


def test_a_missing_optuna_is_named_with_the_command_that_installs_it(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("crossmask.cli.tune.find_spec", lambda name: None)
    assert main(["tune", "x.yaml"]) == 2
    assert "optuna must be installed to tune; run: pip install 'crossmask[tune]'" in capsys.readouterr().err


def test_the_spaces_of_packaged_recipes_fit():
    pytest.importorskip("optuna")
    from crossmask.training.tuning import check_space

    found = [path for path in sorted(FOLDER.glob("*.yaml")) if "search" in yaml.safe_load(path.read_text())]
    assert [path.stem for path in found] == ["multi30k-en-de", "sst2"]
    for path in found:
        recipe = yaml.safe_load(path.read_text())
        if "encoder_name_or_path" in recipe:  # of the Hub: fields of the trainer alone
            recipe["search"] = {name: one for name, one in recipe["search"].items() if not name.startswith("model.")}
            del recipe["encoder_name_or_path"], recipe["model"]
        check_space({**recipe, "report_to": []}, parse_space(recipe["search"], recipe.get))
