"""`train.py` with classification and tagging: what is left in the folder, exact losses, runs that go on."""

import json
from pathlib import Path

import pytest
import torch
import yaml
from question_cases import encoder_folder
from training_jobs import assert_goes_on, job_of, trained
from transformers import AutoConfig, BertPreTrainedModel

from crossmask.hub.registration import register
from crossmask.tasks import get_task
from crossmask.training.run import execute
from crossmask.utils.errors import InputError

WORDS = ["ann", "bob", "carl", "dora", "garden", "kitchen"]
SENTENCES = [f"{one} left {other} in the {place} ." for one in WORDS[:4] for other in WORDS[:4] for place in WORDS[4:]]
TAGS = ["B-ARG0", "B-V", "B-ARG1", "B-ARGM-LOC", "I-ARGM-LOC", "I-ARGM-LOC", "O"]
TASKS = ("text-classification", "semantic-role-labeling")


def data_of(folder: Path, task: str) -> dict:
    if task == "text-classification":
        lines = [f"{text}\t{int('garden' in text)}\n" for text in SENTENCES]
        (folder / "texts.tsv").write_text("".join(lines))
        return {"format": "tsv", "path": str(folder / "texts.tsv"), "columns": {"text": 0, "label": 1}}
    predicate = {"i": 1, "args": [["ARG0", 0, 0], ["V", 1, 1], ["ARG1", 2, 2], ["ARGM-LOC", 3, 5]]}
    lines = [json.dumps({"tokens": text.split(), "preds": [predicate]}) + "\n" for text in SENTENCES]
    (folder / "roles.jsonl").write_text("".join(lines))
    return {"format": "propbank", "path": str(folder / "roles.jsonl")}


def job_example(task):
    if task.name == "text-classification":
        return task.example({"text": "ann", "label": 0})
    return task.example({"words": ["ann", "left"], "predicate": 1, "tags": ["B-ARG0", "B-V"]})


def recipe_file(folder: Path, task: str, **changes) -> str:
    """A recipe of 4 steps, saved every second step; its output goes to `folder`/run."""
    data = data_of(folder, task)
    recipe = {
        "task": task, "train": data, "validation": {**data, "limit": 5}, "test": {**data, "limit": 6},
        "encoder_name_or_path": encoder_folder(folder), "model": {"initializer_range": 0.3, "classifier_dropout": 0.0},
        "max_source_length": 18, "max_steps": 4, "per_device_train_batch_size": 4, "optim": "sgd",
        "learning_rate": 0.1, "lr_scheduler_type": "constant", "eval_strategy": "no", "save_strategy": "steps",
        "save_steps": 2, "save_total_limit": None, "load_best_model_at_end": False, "disable_tqdm": True,
        "report_to": [], "output_dir": str(folder / "run"), **changes,
    }  # fmt: skip
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump({name: value for name, value in recipe.items() if value is not None}))
    return str(path)


BUCKETS = {"batching": "buckets", "batch_tokens": 64, "per_device_train_batch_size": None}
BASELINE = {"encoder_name_or_path": None, "model": None}
tasks = pytest.mark.parametrize("task", TASKS)


@tasks
def test_a_finished_model_with_its_card(tmp_path, task):
    register()
    changes = {"eval_strategy": "steps", "eval_steps": 2, "load_best_model_at_end": True, **BUCKETS}
    execute(job_of(recipe_file(tmp_path, task, learning_rates={"classifier": 0.5}, **changes)))
    folder, kind = tmp_path / "run", get_task(task)
    metrics = json.loads((folder / "metrics.json").read_text())
    assert {*kind.metric_names([job_example(kind)]), "loss"} <= set(metrics)
    assert isinstance(metrics["precision"], float)
    files = {path.name for path in folder.iterdir()}
    assert {"learning_curve.png", "samples.md", "confusion.png", "heads_crossmask.py"} <= files
    card = (folder / "README.md").read_text()
    for part in (
        f"{kind.auto_class.__name__}.from_pretrained(name, trust_remote_code=True)",
        f"pipeline_tag: {kind.pipeline_tag}",
        "It is a `crossmask-",
        "| encoder | <code>full()</code> |",
    ):
        assert part in card, part
    assert "encoder-decoder" not in card
    config = AutoConfig.from_pretrained(folder)
    assert tuple(config.id2label.values()) == kind.class_names
    assert isinstance(kind.auto_class.from_pretrained(folder), kind.head_class)


def test_a_report_by_a_column_of_the_test_records(tmp_path, few_resamples, without_drawing):
    recipe = recipe_file(tmp_path, "text-classification", report_by="place", save_strategy="no")
    message = r"test: .*texts.tsv, record 1: the record must have a column 'place', got 'label', 'text'"
    with pytest.raises(InputError, match=message):
        job_of(recipe)
    lines = [f"{text}\t{int('ann' in text)}\t{text.split()[5]}\n" for text in SENTENCES]
    (tmp_path / "test.tsv").write_text("".join(lines))
    columns = {"text": 0, "label": 1, "place": 2}
    test = {"format": "tsv", "path": str(tmp_path / "test.tsv"), "columns": columns}
    execute(job_of(recipe_file(tmp_path, "text-classification", report_by="place", test=test, save_strategy="no")))
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    found = metrics["groups"]
    assert (found["column"], found["metric"], set(found["of"])) == ("place", "accuracy", {"garden", "kitchen"})
    values = {name: one["value"] for name, one in found["of"].items()}
    assert values == {name: pytest.approx(metrics[f"accuracy_{name}"]) for name in values}
    assert found["spread"] == pytest.approx(abs(values["garden"] - values["kitchen"]))
    assert values[found["worst"]] == min(values.values())
    assert all(one["low"] <= one["value"] <= one["high"] and one["examples"] == 16 for one in found["of"].values())
    card = (tmp_path / "run" / "README.md").read_text()
    assert (
        "## Results by place\n\n| group | examples | accuracy | interval of 95% |\n|---|---:|---:|---|\n| garden"
        in card
    )
    assert "| spread |" in card
    assert "(groups.png)" in card


@tasks
def test_the_usual_head_of_a_pretrained_model_is_trained_by_the_same_recipe(tmp_path, without_drawing, task):
    name, kind = encoder_folder(tmp_path), get_task(task)
    execute(job_of(recipe_file(tmp_path, task, **BASELINE, model_name_or_path=name)))
    loaded = kind.auto_class.from_pretrained(tmp_path / "run")
    assert isinstance(loaded, BertPreTrainedModel)
    assert tuple(loaded.config.id2label.values()) == kind.class_names


@tasks
@pytest.mark.parametrize("pooling", ["attention", "decoder"])
def test_a_model_is_trained_from_scratch(tmp_path, without_drawing, task, pooling):
    register()
    if task != "text-classification" and pooling == "decoder":
        pytest.skip("tags are not pooled")
    encoder = {"hidden_size": 16, "intermediate_size": 32, "encoder_layers": 1, "decoder_layers": 1,
               "num_attention_heads": 2}  # fmt: skip
    model = {"encoder": encoder, **({"pooling": pooling} if "text" in task else {})}
    changes = {"encoder_name_or_path": None, "model": model, "tokenizer": {"vocab_size": 290}, "max_source_length": 60}
    execute(job_of(recipe_file(tmp_path, task, **changes)))
    loaded = get_task(task).auto_class.from_pretrained(tmp_path / "run")
    encoder = loaded.config.encoder
    assert (encoder.model_type, encoder.hidden_size, encoder.vocab_size) == ("crossmask", 16, 290)
    assert encoder.max_position_embeddings == 60


@tasks
@pytest.mark.parametrize("batching", [{}, BUCKETS], ids=["examples", "buckets"])
def test_a_run_goes_on_to_the_bit(tmp_path, task, batching):
    assert assert_goes_on(recipe_file(tmp_path, task, optim="adamw_torch", **batching), 2) == 4


@tasks
def test_the_loss_is_exact_under_accumulation(tmp_path, task):
    weights = []
    for size, accumulation in ((4, 1), (1, 4)):
        folder = tmp_path / str(size)
        folder.mkdir()
        changes = {"per_device_train_batch_size": size, "gradient_accumulation_steps": accumulation}
        # Clipped gradients would all have the same norm.
        changes |= {"max_grad_norm": 0.0, "learning_rate": 0.01}
        weights.append(trained(job_of(recipe_file(folder, task, save_strategy="no", **changes)))[1])
    torch.testing.assert_close(weights[1], weights[0], rtol=1e-4, atol=1e-5)


@tasks
def test_a_trained_model_is_trained_further_and_no_other_head_is(tmp_path, without_drawing, task):
    register()
    execute(job_of(recipe_file(tmp_path, task)))
    (tmp_path / "again").mkdir()
    changes = {**BASELINE, "model_name_or_path": str(tmp_path / "run"), "freeze": ["encoder"]}
    job = job_of(recipe_file(tmp_path / "again", task, **changes))
    before = {name: weight.clone() for name, weight in job.trainer.model.state_dict().items()}
    after = trained(job)[1]
    moved = {name.split(".")[0] for name, weight in after.items() if not torch.equal(weight, before[name])}
    assert moved - {"pooler", "marker_embeddings"} == {"classifier"}
    options = {"labels": ["bad", "good"]} if "text" in task else {"roles": ["V", "ARG0", "ARG1", "ARGM-LOC"]}
    (tmp_path / "other").mkdir()
    with pytest.raises(InputError, match=r"model_name_or_path: .*: it has a head of \d+ classes .* which must be"):
        job_of(recipe_file(tmp_path / "other", task, task_options=options, **changes))
    other = next(one for one in TASKS if one != task)
    with pytest.raises(InputError, match=f"give one that {get_task(other).auto_class.__name__}"):
        job_of(recipe_file(tmp_path / "other", other, **changes))


@tasks
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": {"heads": 2}}, "model has no setting 'heads'"),
        ({"model": {"num_labels": 3}}, "model has no setting 'num_labels'"),
        ({"model": {"encoder": {"model_type": "bert"}}}, "model.encoder must be left out beside encoder_name_or_path"),
        (
            {"report_by": "a", "task_options": {"group_column": "b"}},
            "report_by must be the task option group_column where that is given, b, got a",
        ),
        ({"max_target_length": 9}, "max_target_length must be left out for task"),
        ({"max_source_length": 3}, "its .* tokens and max_source_length is 3"),
        ({"overlong": "split"}, "overlong must be error, drop or truncate for task"),
        ({"batching": "packed"}, "batching must be examples or buckets for task"),
        ({"generation": {"num_beams": 2}}, "generation must be left out for task"),
        (
            {"encoder_name_or_path": None, "model": {"encoder": {"model_type": "nothing"}}},
            "model.encoder.model_type must be one of",
        ),
        ({"encoder_name_or_path": None, "model": {"encoder": 3}}, "model.encoder must be a mapping"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_bad_recipes(tmp_path, task, changes, message):
    with pytest.raises((InputError, OSError), match=message):
        job_of(recipe_file(tmp_path, task, **changes))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ({"tokens": ["a"], "preds": [{"i": 1, "args": []}]}, r"line 1, preds\[0\]: 'i' must be the number of a word"),
        ({"tokens": "a", "preds": []}, "line 1: 'tokens' must be a list, got str"),
        ({"tokens": ["a", ""], "preds": []}, "line 1: each item of 'tokens' must be a word"),
        ({"tokens": ["a"], "preds": [{"i": 0, "args": [["V", 0]]}]}, r"preds\[0\]: an argument must be \[label"),
        ({"tokens": ["a"], "preds": [{"i": 0, "args": [["V", 0, 1]]}]}, "an argument must be within words 0 to 0"),
        (
            {"tokens": ["a", "b"], "preds": [{"i": 0, "args": [["V", 0, 0], ["A", 0, 1]]}]},
            "the arguments must not overlap",
        ),
        ({"tokens": ["a"], "preds": [{"i": 0, "args": [["NEW", 0, 0]]}]}, "record 1: the tag 'B-NEW' must be O"),
    ],
)
def test_propositions_that_cannot_be_read(tmp_path, line, message):
    recipe = recipe_file(tmp_path, "semantic-role-labeling")
    (tmp_path / "roles.jsonl").write_text(json.dumps(line) + "\n")
    with pytest.raises(InputError, match=message):
        job_of(recipe)
