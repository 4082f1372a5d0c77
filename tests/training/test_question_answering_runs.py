"""`train.py` with extractive question answering: what is left in the folder, exact losses, runs that go on."""

import json
from pathlib import Path

import pytest
import torch
import yaml
from question_cases import encoder_folder
from training_jobs import assert_goes_on, job_of, trained
from transformers import AutoModelForQuestionAnswering, BertForQuestionAnswering

from crossmask import CrossMaskForQuestionAnswering
from crossmask.hub.registration import register
from crossmask.training.run import execute
from crossmask.utils.errors import InputError

CONTEXTS = ("Ann is in the garden. Bob sits near Carl.", "Dora left the kitchen, and Carl is there with Ann and Bob.")


def recipe_file(folder: Path, **changes) -> str:
    """A recipe of 4 steps, saved every second step; its output goes to `folder`/run."""
    words = [("ann", "Ann"), ("bob", "Bob"), ("carl", "Carl")]
    paragraphs = [
        {
            "context": context,
            "qas": [
                {"question": f"Where is {name}?", "answers": [{"text": text, "answer_start": context.index(text)}]}
                for name, text in words
            ]
            + [{"question": "Where is the garden near?", "answers": [], "is_impossible": True}],
        }
        for context in CONTEXTS
    ]
    (folder / "squad.json").write_text(json.dumps({"data": [{"paragraphs": paragraphs}]}))
    data = {"format": "squad", "path": str(folder / "squad.json")}
    recipe = {
        "task": "extractive-question-answering", "train": {**data, "repeat": 3}, "validation": data, "test": data,
        "encoder_name_or_path": encoder_folder(folder), "model": {"no_answer": True, "initializer_range": 0.3},
        "task_options": {"stride": 4}, "overlong": "split", "max_source_length": 18, "max_steps": 4,
        "per_device_train_batch_size": 4, "optim": "sgd", "learning_rate": 0.1, "lr_scheduler_type": "constant",
        "eval_strategy": "no", "save_strategy": "steps", "save_steps": 2, "save_total_limit": None,
        "load_best_model_at_end": False, "disable_tqdm": True, "report_to": [], "output_dir": str(folder / "run"),
        **changes,
    }  # fmt: skip
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump({name: value for name, value in recipe.items() if value is not None}))
    return str(path)


BUCKETS = {"batching": "buckets", "batch_tokens": 64, "per_device_train_batch_size": None}
BASELINE = {"encoder_name_or_path": None, "model": None}


def test_a_finished_model_with_its_card(tmp_path):
    register()
    changes = {"eval_strategy": "steps", "eval_steps": 2, "load_best_model_at_end": True, **BUCKETS}
    execute(job_of(recipe_file(tmp_path, learning_rates={"pointer": 0.5}, **changes)))
    folder = tmp_path / "run"
    metrics = json.loads((folder / "metrics.json").read_text())
    assert {"exact_match", "f1", "HasAns_exact", "HasAns_f1", "NoAns_exact", "NoAns_f1", "loss"} <= set(metrics)
    names = {path.name for path in folder.iterdir()}
    assert {"learning_curve.png", "samples.md", "pointer_1.png", "question_answering_crossmask.py"} <= names
    card = (folder / "README.md").read_text()
    for part in (
        "AutoModelForQuestionAnswering.from_pretrained(name, trust_remote_code=True)",
        "pipeline_tag: question-answering",
        "print(answer(model, tokenizer, question, context))",
        "It is a `crossmask-question-answering` model",
        "| F1, without |",
        "| cross | <code>full()</code> |",
    ):
        assert part in card, part
    assert "encoder-decoder" not in card
    assert isinstance(AutoModelForQuestionAnswering.from_pretrained(folder), CrossMaskForQuestionAnswering)


def test_the_usual_head_of_a_pretrained_model_is_trained_by_the_same_recipe(tmp_path, without_drawing):
    register()
    name = encoder_folder(tmp_path)
    execute(job_of(recipe_file(tmp_path, **BASELINE, model_name_or_path=name, learning_rates={"qa_outputs": 0.5})))
    folder = tmp_path / "run"
    assert isinstance(AutoModelForQuestionAnswering.from_pretrained(folder), BertForQuestionAnswering)
    assert not list(folder.glob("*.py"))
    assert "f1" in json.loads((folder / "metrics.json").read_text())


@pytest.mark.parametrize("batching", [{}, BUCKETS], ids=["examples", "buckets"])
def test_a_run_goes_on_to_the_bit(tmp_path, batching):
    assert assert_goes_on(recipe_file(tmp_path, optim="adamw_torch", **batching), 2) == 4


@pytest.mark.parametrize("no_answer", [False, True])
def test_the_loss_is_exact_under_accumulation(tmp_path, no_answer):
    weights = []
    for size, accumulation in ((4, 1), (1, 4)):
        folder = tmp_path / str(size)
        folder.mkdir()
        changes = {"per_device_train_batch_size": size, "gradient_accumulation_steps": accumulation}
        # Clipped gradients would all have the same norm.
        changes |= {"max_grad_norm": 0.0, "learning_rate": 0.01}
        model = {"no_answer": no_answer, "initializer_range": 0.3}
        weights.append(trained(job_of(recipe_file(folder, model=model, save_strategy="no", **changes)))[1])
    torch.testing.assert_close(weights[1], weights[0], rtol=1e-4, atol=5e-5)  # Adam magnifies rounding


def test_a_trained_model_is_trained_further(tmp_path, without_drawing):
    execute(job_of(recipe_file(tmp_path)))
    (tmp_path / "again").mkdir()
    changes = {**BASELINE, "model_name_or_path": str(tmp_path / "run"), "freeze": ["encoder"]}
    job = job_of(recipe_file(tmp_path / "again", **changes))
    before = {name: weight.clone() for name, weight in job.trainer.model.state_dict().items()}
    steps, after = trained(job)
    assert steps == 4
    moved = {name.split(".")[0] for name, weight in after.items() if not torch.equal(weight, before[name])}
    assert moved == {"pointer"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": {"heads": 2}}, "model has no setting 'heads'"),
        ({"model": {"encoder": {"model_type": "bert"}}}, "model.encoder must be left out beside encoder_name_or_path"),
        ({"model": {"num_attention_heads": 5}}, "num_attention_heads must divide the encoder's hidden_size of 32"),
        ({"model_name_or_path": "encoder"}, "encoder_name_or_path must be left out beside model_name_or_path"),
        ({"encoder_name_or_path": "./nowhere"}, "encoder_name_or_path"),
        (
            {"max_source_length": 99},
            r"max_source_length must be at most 64, the max_position_embeddings of the encoder \(bert\), got 99; set",
        ),
        ({"max_target_length": 9}, "max_target_length must be left out for task extractive-question-answering"),
        (
            {"model": None, "task_options": {"null_threshold": 1.0}},
            "task_options.null_threshold must be left out for a model that always answers, got 1.0; set no_answer",
        ),
        ({"label_smoothing_factor": 0.1}, "label_smoothing_factor must be left out for task extractive-question"),
        (
            {"batching": "stream", "max_steps": 4, "tokenizer_examples": 9},
            "tokenizer_examples must be left out, got 9; no tokenizer is trained",
        ),
        ({"overlong": "error"}, "question and context have more than max_source_length=18 tokens"),
        ({"overlong": "truncate"}, "overlong must be error, drop or split"),
        ({"batching": "packed"}, "batching must be examples or buckets for task extractive-question-answering"),
        ({"tokenizer": {"vocab_size": 300}}, "tokenizer"),
        (
            {"task": "translation", "task_options": None, "model": None},
            "decoder_name_or_path must be given, or model.decoder with the model_type",
        ),
    ],
    ids=lambda value: str(value)[:40],
)
def test_bad_recipes(tmp_path, changes, message):
    with pytest.raises((InputError, OSError), match=message):
        job_of(recipe_file(tmp_path, **changes))
