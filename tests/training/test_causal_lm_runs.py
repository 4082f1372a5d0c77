"""`train.py` with causal language models: what is left in the folder, exact losses, runs that go on."""

import json
from pathlib import Path

import pytest
import torch
import yaml
from causal_lms import MODELS, model_fields
from new_process import run_code
from training_jobs import assert_goes_on, corpus, job_of, trained

from crossmask.training.run import execute
from crossmask.utils.errors import InputError

STREAM = {"batching": "stream", "stream_buffer": 20, "target_row_length": 32}


def recipe_file(folder: Path, family: str = "llama", **changes) -> str:
    """A recipe of 4 steps, saved every second step; its output goes to `folder`/run."""
    (folder / "texts.tsv").write_text("".join(f"{example.source}\n" for example in corpus(53)))
    texts = {"format": "tsv", "path": str(folder / "texts.tsv"), "columns": {"text": 0}}
    few = {**texts, "limit": 9}
    recipe = {
        "task": "language-modeling", "train": texts, "validation": few, "test": few,
        "model": model_fields(family), "tokenizer": {"vocab_size": 280}, "max_target_length": 32, "max_steps": 4,
        "per_device_train_batch_size": 4, "optim": "sgd", "learning_rate": 0.1, "lr_scheduler_type": "constant",
        "eval_strategy": "no", "save_strategy": "steps", "save_steps": 2, "save_total_limit": None,
        "load_best_model_at_end": False, "disable_tqdm": True, "report_to": [], "output_dir": str(folder / "run"),
        **changes,
    }  # fmt: skip
    recipe["model"].pop("vocab_size", None)
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(recipe))
    return str(path)


LOADED_WITHOUT_CROSSMASK = """
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
model, tokenizer = (kind.from_pretrained(sys.argv[1]) for kind in (AutoModelForCausalLM, AutoTokenizer))
inputs = tokenizer("ha ho", return_tensors="pt")
assert inputs.input_ids[0, 0] == tokenizer.bos_token_id == model.config.bos_token_id
assert tokenizer.eos_token_id not in inputs.input_ids
assert (tokenizer.pad_token_id, tokenizer.eos_token_id) == (model.config.pad_token_id, model.config.eos_token_id)
assert model.generate(**inputs, max_new_tokens=3).shape[1] <= inputs.input_ids.shape[1] + 3
"""


def test_a_finished_model_needs_nothing_but_transformers(tmp_path):
    changes = {"eval_strategy": "steps", "eval_steps": 2, "load_best_model_at_end": True, "batching": "packed"}
    execute(job_of(recipe_file(tmp_path, **changes)))
    folder = tmp_path / "run"
    metrics = json.loads((folder / "metrics.json").read_text())
    assert {"perplexity", "word_perplexity", "bits_per_byte", "loss"} <= set(metrics)
    assert {"learning_curve.png", "samples.md", "tokenizer.json"} <= {path.name for path in folder.iterdir()}
    assert not list(folder.glob("*.py"))
    card = (folder / "README.md").read_text()
    assert "AutoModelForCausalLM.from_pretrained(name)\n" in card
    assert "pipeline_tag: text-generation" in card
    assert "| perplexity per word |" in card
    assert "Masks in force" not in card
    run_code(LOADED_WITHOUT_CROSSMASK, folder, cwd=tmp_path)


@pytest.mark.parametrize("family", MODELS)
def test_every_family_trains_packed(tmp_path, family):
    job = job_of(recipe_file(tmp_path, family, batching="packed", target_row_length=32, max_steps=2))
    steps, weights = trained(job)
    assert steps == 2
    assert all(torch.isfinite(weight).all() for weight in weights.values())


@pytest.mark.parametrize("batching", [{"batching": "packed"}, STREAM, {"batching": "examples"}], ids=str)
def test_a_run_goes_on_to_the_bit(tmp_path, batching):
    assert assert_goes_on(recipe_file(tmp_path, optim="adamw_torch", **batching), 2) == 4


def test_the_loss_is_exact_under_accumulation(tmp_path):
    weights = []
    for size, accumulation in ((4, 1), (2, 2), (1, 4)):
        folder = tmp_path / str(size)
        folder.mkdir()
        changes = {"per_device_train_batch_size": size, "gradient_accumulation_steps": accumulation}
        weights.append(trained(job_of(recipe_file(folder, batching="examples", save_strategy="no", **changes)))[1])
    torch.testing.assert_close(weights[1], weights[0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(weights[2], weights[0], rtol=1e-4, atol=1e-5)


def test_a_trained_model_is_trained_further(tmp_path, without_drawing):
    execute(job_of(recipe_file(tmp_path)))
    (tmp_path / "again").mkdir()
    changes = {"model_name_or_path": str(tmp_path / "run"), "tokenizer": None, "freeze": ["layers.0"]}
    path = Path(recipe_file(tmp_path / "again", **changes))
    path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), "model": {"attention_dropout": 0.1}}))
    job = job_of(str(path))
    assert trained(job)[0] == 4
    assert job.trainer.model.config.attention_dropout == 0.1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": {"hidden_size": 32}}, "model must have a model_type for task language-modeling"),
        ({"model": {"model_type": "lama"}}, r"model.model_type must be one of .*, got 'lama'; did you mean 'llama'"),
        ({"model": {"model_type": "llama", "encoder_layers": 2}}, "model has no setting 'encoder_layers'"),
        (
            {"max_source_length": 9},
            "max_source_length must be left out for task language-modeling, got 9; a text has one",
        ),
        (
            {"source_row_length": 9, "batching": "packed"},
            "source_row_length must be left out for task language-modeling",
        ),
        ({"multipath_k": [1, 2]}, "multipath_k must be left out for task language-modeling"),
        (
            {"target_row_length": 16, **STREAM, "max_target_length": 40},
            "target_row_length must be at least max_target",
        ),
    ],
    ids=str,
)
def test_what_does_not_fit_is_refused(tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        job_of(recipe_file(tmp_path, **changes))


@pytest.mark.parametrize(("family", "message"), [("opt", "batching must be examples or buckets for a opt model")])
def test_a_family_that_mixes_packed_texts_is_refused(tmp_path, family, message):
    with pytest.raises(InputError, match=message):
        job_of(recipe_file(tmp_path, family, batching="packed"))
