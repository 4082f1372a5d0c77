"""`train.py` from end to end, on a tiny model in this process: what is left in the output folder, what is refused."""

import functools
import json
import pickle
import shlex
from pathlib import Path

import pytest
import yaml
from training_jobs import job_of, recipe_file, run_main

from crossmask.modeling.crossmask import CrossMaskForConditionalGeneration
from crossmask.tasks.text_to_text import TextToText
from crossmask.training.parsing import parse_run
from crossmask.training.run import execute
from crossmask.training.run_arguments import RunArguments
from crossmask.training.run_directory import whole_checkpoints
from crossmask.utils.errors import InputError

pytestmark = pytest.mark.usefixtures("without_drawing")
TOKEN = "hf_SecretToken0123456789"
PASSWORD = "correct horse battery"
QUICK = {"max_steps": 2, "eval_strategy": "steps", "eval_steps": 2, "report_to": "tensorboard"}


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_no_secret_is_left_anywhere(tmp_path, capfd, monkeypatch):
    """In no file, checkpoints, logs and pickles included, and on no line that is printed."""
    monkeypatch.setattr("crossmask.training.run.remove_checkpoints", lambda _: None)
    monkeypatch.setattr("crossmask.training.run.push_folder", lambda *_, **__: None)
    url = "https://me:PassOfUrl123@host.example/x"
    recipe = recipe_file(
        tmp_path, **QUICK, summary=f"Made with {TOKEN} from {url}.", hub_token=TOKEN, push_to_hub=True
    )
    with Path(recipe).open("a") as file:
        file.write(f"# my token is {TOKEN}\n")
    options = ["--hub_token", TOKEN + "B", "--lr_scheduler_kwargs", json.dumps({"password": PASSWORD})]
    status, line, printed = run_main(capfd, recipe, *options)
    assert status == 2  # the schedule takes no password
    assert "lr_scheduler_kwargs" in line
    assert PASSWORD not in printed
    status, _, printed = run_main(capfd, recipe, *options[:2])
    assert status == 0
    files = contents(tmp_path / "run")
    assert {"metrics.json", "README.md", "checkpoint-2/training_args.bin"} <= set(files)
    assert any("tfevents" in name for name in files)
    assert "--hub_token '***'" in json.loads(files["metrics.json"])["command"]
    for secret in ("SecretToken", "PassOfUrl123"):
        assert not [name for name, text in files.items() if secret.encode() in text]
        assert secret not in printed


def test_what_is_kept_of_a_command_has_no_secret(tmp_path):
    """Whatever is written later, by us or by Trainer, is written of these."""
    recipe = recipe_file(tmp_path, **QUICK, hub_token=TOKEN, push_to_hub=True, run_name=None)
    argv = [recipe, "--hub_token", "short1", "--task_options.password", PASSWORD]
    job = parse_run(argv, command=shlex.join(["python", "train.py", *argv]))
    assert job.token == "short1"
    assert job.arguments.hub_token is None
    assert TOKEN not in job.recipe_text
    assert yaml.safe_load(job.recipe_text)["hub_token"] == "***"
    assert job.command == f"python train.py {recipe} --hub_token '***' --task_options.password '***'"
    pickled = pickle.dumps(job.arguments)
    assert not any(secret.encode() in pickled for secret in (TOKEN, "short1", PASSWORD))
    assert not any(secret in repr(job.secrets) for secret in (TOKEN, PASSWORD))


def test_a_secret_in_what_is_wrong_is_not_printed(tmp_path, capfd):
    recipe = recipe_file(tmp_path, **QUICK)
    for argv in (
        ["--train.token", TOKEN],
        ["--train.path", f"https://me:PassOfUrl123@host.example/{TOKEN}"],
        ["--seed", TOKEN],
        ["--model.password", PASSWORD],
        ["--report_to", TOKEN],
    ):
        status, _, printed = run_main(capfd, recipe, *argv)
        assert status == 2
        assert not any(secret in printed for secret in ("SecretToken", "PassOfUrl123", PASSWORD))


def test_a_finished_run_is_replaced_only_if_that_is_asked_for(tmp_path, capfd):
    recipe = recipe_file(tmp_path, **QUICK)
    assert run_main(capfd, recipe)[0] == 0
    before = contents(tmp_path / "run")
    status, line, _ = run_main(capfd, recipe)
    assert status == 2
    assert "holds a finished model (metrics.json): replace it with --overwrite, or choose another --output_dir" in line
    assert contents(tmp_path / "run") == before
    assert run_main(capfd, recipe, "--overwrite", "--train.path", "nowhere.tsv")[0] == 2
    assert run_main(capfd, recipe, "--overwrite", "--learning_rate", "1e30", "--max_steps", "4")[0] == 2  # it diverges
    kept = contents(tmp_path / "run")
    assert {name: kept.get(name) for name in before} == before
    for path in whole_checkpoints(tmp_path / "run"):
        assert path.name != "checkpoint-4"
    assert run_main(capfd, recipe, "--overwrite", "--seed", "7")[0] == 0
    after = contents(tmp_path / "run")
    assert json.loads(after["metrics.json"])["seed"] == 7
    assert after["model.safetensors"] != before["model.safetensors"]
    assert not [name for name in after if name.startswith(("checkpoint", ".staged"))]


def test_what_was_chosen_is_printed_and_recorded(tmp_path, capfd):
    status, _, printed = run_main(capfd, recipe_file(tmp_path, **QUICK, bf16="auto"))
    assert status == 0
    found = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert f"training in {found['dtype']} ({found['dtype_reason']})" in printed
    assert f"in {found['dtype']}." in (tmp_path / "run" / "README.md").read_text()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"metric_for_best_model": "bleu"}, "metric_for_best_model must be one of loss, sacrebleu, "),
        ({"metric_for_best_model": "eval_chrff"}, "metric_for_best_model must be one of loss, "),
        ({"metric_for_best_model": "sacrebleu_de"}, "metric_for_best_model must be one of loss, "),
        ({"per_device_eval_batch_size": 4}, "per_device_eval_batch_size must be left out, got 4; set eval_tokens"),
    ],
    ids=str,
)
def test_what_cannot_be_done_is_said_before_training(tmp_path, capfd, changes, message):
    recipe = recipe_file(tmp_path, **{**QUICK, "load_best_model_at_end": True, **changes})
    status, line, printed = run_main(capfd, recipe)
    assert status == 2
    assert line.startswith(f"train.py: {message}")
    assert "'loss'" not in printed
    assert "Traceback" not in printed


@pytest.mark.parametrize("name", ["loss", "eval_chrf", "sacrebleu"])
def test_metrics_of_the_task_and_the_loss_are_taken(tmp_path, capfd, name):
    changes = {"load_best_model_at_end": True, "metric_for_best_model": name}
    assert run_main(capfd, recipe_file(tmp_path, **{**QUICK, "report_to": "none", **changes}))[0] == 0


def test_the_test_has_the_beams_of_the_saved_model_and_not_those_of_validation(tmp_path, monkeypatch):
    beams = []
    original = TextToText.evaluate_batch

    def recording(self, model, tokenizer, batch, generation):
        beams.append(generation["num_beams"])
        return original(self, model, tokenizer, batch, generation)

    monkeypatch.setattr(TextToText, "evaluate_batch", recording)
    changes = {"generation_num_beams": 3, "eval_strategy": "steps", "eval_steps": 4}
    execute(job_of(recipe_file(tmp_path, **changes)))
    assert beams[0] == 3
    assert beams[-1] == 1


def test_an_evaluation_computes_the_loss_without_the_logits_of_the_batch(tmp_path, monkeypatch):
    skipped = []
    original = CrossMaskForConditionalGeneration.forward

    @functools.wraps(original)
    def recording(self, *args, **kwargs):
        if "labels" in kwargs:
            skipped.append(kwargs["skip_logits"])
        return original(self, *args, **kwargs)

    monkeypatch.setattr(CrossMaskForConditionalGeneration, "forward", recording)
    execute(job_of(recipe_file(tmp_path, max_steps=1, save_strategy="no")))
    assert len(skipped) > 1  # in training, and in the test
    assert all(skipped)


def test_several_gpus_in_one_process_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(RunArguments, "n_gpu", 2)
    with pytest.raises(InputError, match="one process must see one GPU, got 2; start"):
        job_of(recipe_file(tmp_path))
