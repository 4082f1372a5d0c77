"""`train.py` as a user runs it: the whole path on a tiny model, resume after a kill, bad input."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from loopback_hub import Failure, LoopbackHub
from safetensors.torch import load_file
from training_jobs import run_main
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

from crossmask.data.sources import load_split
from crossmask.training.run_directory import is_whole

NO_CHECKPOINTS = ["--save_strategy", "no", "--load_best_model_at_end", "false"]
ROOT = Path(__file__).parents[2]
CORPUS = {"format": "cldr", "size": 600, "held_out_size": 30, "seed": 3}
RECIPE = {
    "summary": "A tiny model for the tests.",
    "license": "cc-by-4.0",
    "train": {**CORPUS, "split": "train"},
    "validation": {**CORPUS, "split": "validation"},
    "test": {**CORPUS, "split": "test"},
    "tokenizer": {"vocab_size": 800, "split_digits": True, "special_tokens": ["<2de>", "<2fr>", "<2zh>"]},
    "model": {
        "hidden_size": 32,
        "intermediate_size": 64,
        "encoder_layers": 1,
        "decoder_layers": 1,
        "num_attention_heads": 2,
        "dropout": 0.1,
        "cross_mask": "full() | wait_k(3)",
    },
    "generation": {"num_beams": 2, "max_new_tokens": 12},
    "bpe_dropout": 0.1,
    "bpe_dropout_copies": 2,
    "batching": "packed",
    "source_row_length": 128,
    "target_row_length": 128,
    "per_device_train_batch_size": 8,
    "gradient_accumulation_steps": 2,
    "num_train_epochs": 1,
    "learning_rate": 3e-3,
    "bf16": True,
    "disable_tqdm": True,
    "eval_strategy": "steps",
    "save_strategy": "steps",
    "eval_steps": 5,
    "save_steps": 5,
    "save_total_limit": 3,
    "logging_steps": 2,
}


def write_recipe(folder: Path, **changes) -> Path:
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump({**RECIPE, **changes}), encoding="utf-8")
    return path


def command(*arguments: object) -> list[str]:
    return [sys.executable, str(ROOT / "train.py"), *map(str, arguments)]


def train(*arguments: object, cwd: Path, **environment: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", **environment}
    return subprocess.run(
        command(*arguments), cwd=cwd, env=environment, capture_output=True, text=True, timeout=500, check=False
    )


@pytest.fixture(scope="module")
def uploaded() -> dict[str, bytes]:
    """What `finished` uploads, by name."""
    return {}


@pytest.fixture(scope="module")
def finished(tmp_path_factory, uploaded) -> Path:
    """The output folder of a run that nothing disturbed, and that was uploaded at its end."""
    folder = tmp_path_factory.mktemp("finished")
    with LoopbackHub() as hub:
        options = ["--push_to_hub", "--hub_model_id", "me/tiny"]
        done = train(write_recipe(folder), *options, cwd=folder, **hub.environment(folder / "home"))
        assert done.returncode == 0, done.stderr[-3000:]
        uploaded |= hub.files("me/tiny")
    return folder / "runs" / "tiny"


def test_the_folder_holds_all_that_was_promised(finished):
    names = {path.name for path in finished.iterdir()}
    pictures = {"learning_curve.png", "masks.png", "alignment_1.png", "alignment_2.png", "alignment_3.png"}
    files = {"model.safetensors", "config.json", "generation_config.json", "tokenizer.json", "metrics.json"}
    assert pictures | files | {"samples.md", "README.md", "modeling_crossmask.py"} <= names
    assert not [name for name in names if name.startswith(("checkpoint", ".staged"))]
    for picture in pictures:
        assert (finished / picture).read_bytes().startswith(b"\x89PNG")


def test_metrics_tell_scores_and_how_they_came_about(finished):
    metrics = json.loads((finished / "metrics.json").read_text())
    assert {"exact_match_de", "exact_match_fr", "exact_match_zh", "sacrebleu", "chrf", "loss"} <= set(metrics)
    assert metrics["sacrebleu_signature"].startswith("nrefs:1|")
    assert metrics["train_examples"] == 600
    assert metrics["seed"] == 42
    assert "train.py" in metrics["command"]
    log = [json.loads(line) for line in (finished / "log.jsonl").read_text().splitlines()]
    assert any("loss" in entry for entry in log)
    assert any("eval_loss" in entry for entry in log)


def test_card_and_samples_show_the_run(finished):
    card = (finished / "README.md").read_text()
    for part in (
        "A tiny model for the tests.",
        "license: cc-by-4.0\n",
        "full() | wait_k(3)",
        "sacreBLEU",
        "learning_curve.png",
        "600 examples",
    ):
        assert part in card
    samples = (finished / "samples.md").read_text()
    assert all(f"**{language} " in samples for language in ("de", "fr", "zh"))


def test_the_auto_classes_load_it(finished):
    model = AutoModelForSeq2SeqLM.from_pretrained(finished)
    tokenizer = AutoTokenizer.from_pretrained(finished)
    assert model.config.cross_mask == "full() | wait_k(3)"
    assert (model.generation_config.num_beams, model.generation_config.max_new_tokens) == (2, 12)
    output = model.generate(**tokenizer("<2de> Monday, June 3, 2019", return_tensors="pt"))
    assert output.shape[1] <= 13


def run_until_killed(recipe: Path, cwd: Path) -> None:
    """Start a run, kill it once its first checkpoint is whole, and leave no later one."""
    with (cwd / "log").open("w") as log:
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        process = subprocess.Popen(command(recipe), cwd=cwd, stdout=log, stderr=log, env=environment)
        checkpoint = cwd / "runs" / "tiny" / "checkpoint-5"
        deadline = time.monotonic() + 300
        while not is_whole(checkpoint) and time.monotonic() < deadline:
            assert process.poll() is None, (cwd / "log").read_text()[-3000:]
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert is_whole(checkpoint), "no checkpoint in 300 seconds"
    for later in checkpoint.parent.glob("checkpoint-*"):
        if later != checkpoint:
            shutil.rmtree(later)


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "runs" / "tiny" / "model.safetensors")


def test_a_killed_run_resumes_bit_for_bit(finished, tmp_path, monkeypatch, capfd):
    recipe = write_recipe(tmp_path)
    run_until_killed(recipe, tmp_path)
    monkeypatch.chdir(tmp_path)
    status, line, _ = run_main(capfd, recipe)
    assert status == 2
    assert "checkpoint-5 of an unfinished run" in line
    status, _, printed = run_main(capfd, recipe, "--resume_from_checkpoint", "last")
    assert status == 0, printed[-3000:]
    torch.testing.assert_close(weights_of(tmp_path), weights_of(finished.parents[1]), rtol=0, atol=0)


@pytest.mark.slow
@pytest.mark.parametrize("batching", ["buckets", "stream"])
def test_a_killed_run_with_other_batches_does_too(tmp_path, batching):
    changes = {"batching": batching, "batch_tokens": 900}
    if batching == "stream":
        records = [f"{record['source']}\t{record['target']}\n" for record in load_split(RECIPE["train"])]
        (tmp_path / "pairs.tsv").write_text("".join(records), encoding="utf-8")
        changes["train"] = {"format": "tsv", "path": str(tmp_path / "pairs.tsv")}
        changes |= {"max_steps": 14, "stream_buffer": 200, "max_source_length": 128, "max_target_length": 128}
    recipes = {}
    for name in ("whole", "killed"):
        (tmp_path / name).mkdir()
        recipes[name] = write_recipe(tmp_path / name, **changes)
    done = train(recipes["whole"], cwd=tmp_path / "whole")
    assert done.returncode == 0, done.stderr[-3000:]
    run_until_killed(recipes["killed"], tmp_path / "killed")
    done = train(recipes["killed"], "--resume_from_checkpoint", "last", cwd=tmp_path / "killed")
    assert done.returncode == 0, done.stderr[-3000:]
    torch.testing.assert_close(weights_of(tmp_path / "killed"), weights_of(tmp_path / "whole"), rtol=0, atol=0)


def test_a_finished_model_is_fine_tuned_on_padded_batches(finished, tmp_path, monkeypatch, capfd, caplog):
    changes = {"model_name_or_path": str(finished), "model": {"dropout": 0.0}, "tokenizer": None}
    changes |= {"batching": "examples", "max_steps": 2}
    changes |= {"source_row_length": 256, "target_row_length": 256}  # as by default: nothing is packed
    changes["train"] = [RECIPE["train"], {**RECIPE["train"], "limit": 4, "repeat": 2, "tag": "<again>"}]
    recipe = write_recipe(tmp_path, **changes, eval_steps=1, save_steps=1, average_checkpoints=2)
    monkeypatch.chdir(tmp_path)
    status, _, printed = run_main(capfd, recipe)
    assert status == 0, printed[-3000:]
    assert "the mean of 2 checkpoints has eval_sacrebleu" in caplog.text
    tuned = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "runs" / "tiny")
    assert tuned.config.dropout == 0.0
    assert "608 examples, declared" in (tmp_path / "runs" / "tiny" / "README.md").read_text()
    assert tuned.config.cross_mask == "full() | wait_k(3)"


def test_a_finished_run_is_uploaded_whole(finished, uploaded):
    assert {"model.safetensors", "config.json", "tokenizer.json", "modeling_crossmask.py"} <= set(uploaded)
    assert b'name = "me/tiny"' in uploaded["README.md"]
    assert uploaded["model.safetensors"] == (finished / "model.safetensors").read_bytes()


def test_an_upload_that_fails_leaves_the_folder_whole_and_says_how_to_try_again(tmp_path, hub, monkeypatch, capfd):
    hub.failures.append(Failure("POST", r".*/commit/.*", 503, times=99))
    options = ["--push_to_hub", "--max_steps", 2, "--eval_strategy", "no", *NO_CHECKPOINTS]
    monkeypatch.chdir(tmp_path)
    status, line, _ = run_main(capfd, write_recipe(tmp_path), *options)
    assert status == 2
    assert "the folder is unchanged" in line
    assert "model.safetensors" in line
    assert "try again with" in line
    AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "runs" / "tiny")
    assert (tmp_path / "runs" / "tiny" / "metrics.json").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model_name_or_path", "FINISHED", "--model", '{"hidden_size": 48}'], "the weights of"),
        (
            ["--model.cross_mask", "wait_k(0)"],
            "cross_mask: 'wait_k(0)' in the mask 'wait_k(0)': wait_k: k must be an integer of at least 1, got 0",
        ),
        (["--train.format", "lines", "--train.split", "x"], "train: options of data format lines must be"),
        (["--max_source_length", "4"], "max_source_length"),
        (["--task", "no-such-task"], "no-such-task"),
        (
            ["--model.max_position_embeddings", "8"],
            "max_source_length must be at most 8, the max_position_embeddings of the model (crossmask)",
        ),
        (["--model.hiden_size", "8"], "model has no setting 'hiden_size': did you mean 'hidden_size'?"),
        (["--tokenizer.vocab", "8"], "tokenizer has no setting 'vocab': did you mean 'vocab_size'?"),
        (["--output_dir", "/proc/no"], "/proc/no cannot be written"),
    ],
)
def test_bad_input_is_one_line_and_exit_status_2(finished, tmp_path, monkeypatch, capfd, arguments, message):
    arguments = [str(finished) if word == "FINISHED" else word for word in arguments]
    changes = {"tokenizer": None} if str(finished) in arguments else {}
    monkeypatch.chdir(tmp_path)
    status, line, printed = run_main(capfd, write_recipe(tmp_path, **changes), *arguments)
    assert status == 2
    assert line.startswith("train.py: ")
    assert message in line
    assert "Traceback" not in printed


def test_the_process_ends_with_that_status_and_line(tmp_path):
    done = train(write_recipe(tmp_path), "--model.cross_mask", "wait_k(0)", cwd=tmp_path)
    assert done.returncode == 2
    line = done.stderr.strip().splitlines()[-1]
    assert line.startswith("train.py: ")
    assert "cross_mask: 'wait_k(0)' in the mask" in line
    assert "Traceback" not in done.stderr
