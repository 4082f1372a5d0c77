"""bf16: auto computes in bfloat16 where the machine multiplies it natively, and says so."""

import json
import logging
from pathlib import Path

import pytest
import torch
import yaml
from training_jobs import NO_DATA, job_of, recipe_file, trained

from crossmask.training import precision
from crossmask.training.parsing import parse_run
from crossmask.training.precision import choose_precision, recorded_precision
from crossmask.training.run_arguments import RunArguments

RECIPES = sorted((Path(__file__).parents[2] / "recipes").glob("*.yaml"))


@pytest.fixture(params=[True, False], ids=["native", "emulated"])
def native(request, monkeypatch) -> bool:
    monkeypatch.setattr(precision, "multiplies_bfloat16", lambda _: request.param)
    return request.param


@pytest.mark.parametrize("where", ["recipe", "command line", "API"])
def test_auto_asks_the_machine(tmp_path, native, where):
    path = tmp_path / "auto.yaml"
    path.write_text(yaml.safe_dump(NO_DATA | ({"bf16": "auto"} if where == "recipe" else {})))
    if where == "API":
        arguments = RunArguments(str(tmp_path), bf16="auto", report_to="none")
    else:
        options = ["--bf16", "auto"] if where == "command line" else []
        arguments = parse_run([str(path), *options], command="c").arguments
    assert arguments.bf16 is native
    assert arguments.mixed_precision == ("bf16" if native else "no")
    assert arguments.precision.name == ("bfloat16" if native else "float32")


@pytest.mark.parametrize(("words", "expected"), [(["true"], True), (["false"], False), ([], True)])
def test_it_may_be_given_outright(tmp_path, words, expected):
    path = tmp_path / "outright.yaml"
    path.write_text(yaml.safe_dump(NO_DATA | {"bf16": "auto"}))
    assert parse_run([str(path), "--bf16", *words], command="c").arguments.bf16 is expected


def test_emulated_bfloat16_that_is_asked_for_outright_warns_once(native, caplog):
    with caplog.at_level(logging.WARNING):
        assert choose_precision(True, False, "cpu").name == "bfloat16"
        choose_precision("auto", False, "cpu")
        choose_precision(False, False, "cpu")
    assert len(caplog.records) == (0 if native else 1)
    assert native or "only emulates bfloat16 here" in caplog.text


def test_float16_is_not_bfloat16(native):
    assert choose_precision("auto", True, "cuda").name == "float16"


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_asks_the_machine(recipe):
    assert yaml.safe_load(recipe.read_text())["bf16"] == "auto"


def checkpoint_of(folder: Path, monkeypatch, native: bool) -> tuple[str, Path, dict[str, torch.Tensor]]:
    monkeypatch.setattr(precision, "multiplies_bfloat16", lambda _: native)
    recipe = recipe_file(folder, bf16="auto")
    return recipe, folder / "run" / "checkpoint-2", trained(job_of(recipe))[1]


@pytest.mark.parametrize("native", [True, False])
def test_a_run_goes_on_as_it_began_on_another_machine(tmp_path, monkeypatch, capsys, native):
    recipe, checkpoint, weights = checkpoint_of(tmp_path, monkeypatch, native)
    name, other = ("bfloat16", "float32") if native else ("float32", "bfloat16")
    assert recorded_precision(checkpoint) == name
    monkeypatch.setattr(precision, "multiplies_bfloat16", lambda _: not native)
    again = job_of(recipe, "--resume_from_checkpoint", str(checkpoint))
    assert f"training in {name} (bf16: auto, as {checkpoint} was trained; bf16: auto would choose {other}" in (
        capsys.readouterr().out
    )
    torch.testing.assert_close(trained(again)[1], weights, rtol=0, atol=0)
    assert recorded_precision(tmp_path / "run" / "checkpoint-4") == name


def test_another_precision_is_taken_and_said(tmp_path, monkeypatch, caplog):
    recipe, checkpoint, _ = checkpoint_of(tmp_path, monkeypatch, native=True)
    with caplog.at_level(logging.WARNING):
        again = job_of(recipe, "--resume_from_checkpoint", str(checkpoint), "--bf16", "false")
    assert f"{checkpoint} was trained in bfloat16 and goes on in float32" in caplog.text
    trained(again)
    assert recorded_precision(tmp_path / "run" / "checkpoint-4") == "float32"


def test_a_checkpoint_that_does_not_say_leaves_it_to_the_machine(tmp_path, native):
    (tmp_path / "trainer_state.json").write_text(json.dumps({"stateful_callbacks": {}}))
    assert recorded_precision(tmp_path) is None
    assert choose_precision("auto", False, "cpu", tmp_path).bf16 is native
