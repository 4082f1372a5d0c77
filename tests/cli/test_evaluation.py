"""`crossmask evaluate --report-by` for tasks of every kind, on tiny models with random weights."""

import json

import pytest
import torch
import yaml
from causal_lms import causal_lm
from question_cases import tiny_reader, tiny_tokenizer
from tiny_encoders import encoder_config
from transformers import BertForSequenceClassification, BertForTokenClassification

from crossmask.cli.main import main
from crossmask.data.tokenizer_training import train_tokenizer
from crossmask.tasks import get_task

pytestmark = pytest.mark.usefixtures("few_resamples", "without_drawing")
PLAIN = ["--device", "cpu", "--dtype", "float32", "--quiet"]
OPTIONS = {"extractive-question-answering": {"stride": 8}}
TEXTS = ["ann is in the garden", "bob sits near dora", "carl left", "dora is where ann is", "bob is not there"]


def encoder_with(kind, names):
    torch.manual_seed(0)
    config = encoder_config("bert")
    config.vocab_size, config.id2label = len(tiny_tokenizer()), dict(enumerate(names))
    config.label2id = {name: number for number, name in enumerate(names)}
    return kind(config).eval(), tiny_tokenizer()


def classification(folder):
    rows = [f"{text}\t{n % 2}\t{'ab'[n % 2]}\n" for n, text in enumerate(TEXTS)]
    (folder / "t.tsv").write_text("".join(rows))
    data = {"format": "tsv", "path": str(folder / "t.tsv"), "columns": {"text": 0, "label": 1, "place": 2}}
    return *encoder_with(BertForSequenceClassification, ["negative", "positive"]), data


def tagging(folder):
    rows = [
        {
            "words": text.split(),
            "predicate": 1,
            "tags": ["B-ARG0", "B-V", *["O"] * (len(text.split()) - 2)],
            "place": p,
        }
        for text, p in zip(TEXTS, "ababa", strict=True)
    ]
    (folder / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    columns = {name: name for name in rows[0]}
    names = get_task("semantic-role-labeling").class_names
    data = {"format": "jsonl", "path": str(folder / "t.jsonl"), "columns": columns}
    return *encoder_with(BertForTokenClassification, names), data


def extraction(folder):
    questions = [{"question": "who is there ?", "answers": [{"text": t.split()[0], "answer_start": 0}]} for t in TEXTS]
    paragraphs = [{"context": text, "qas": [one]} for text, one in zip(TEXTS, questions, strict=True)]
    (folder / "t.json").write_text(json.dumps({"data": [{"paragraphs": paragraphs}]}))
    squad = {"format": "squad", "path": str(folder / "t.json")}
    return *tiny_reader(False), [{**squad, "group": "a"}, {**squad, "group": "b", "limit": 2}]


def language_modeling(folder):
    (folder / "t.tsv").write_text("".join(f"{text}\t{'ab'[n % 2]}\n" for n, text in enumerate(TEXTS)))
    tokenizer = train_tokenizer(TEXTS, vocab_size=280, add_bos_token=True, add_eos_token=False)
    data = {"format": "tsv", "path": str(folder / "t.tsv"), "columns": {"text": 0, "place": 1}}
    return causal_lm("llama", vocab_size=len(tokenizer)), tokenizer, data


@pytest.mark.parametrize(
    ("task", "case", "column"),
    [
        ("text-classification", classification, "place"),
        ("semantic-role-labeling", tagging, "place"),
        ("extractive-question-answering", extraction, "group"),
        ("language-modeling", language_modeling, "place"),
    ],
)
def test_an_evaluation_by_a_column(tmp_path, capsys, task, case, column):
    model, tokenizer, data = case(tmp_path)
    for part in (model, tokenizer):
        part.save_pretrained(tmp_path / "model")
    recipe, output = tmp_path / "r.yaml", tmp_path / "out"
    recipe.write_text(yaml.safe_dump({"task": task, "test": data, "task_options": OPTIONS.get(task)}))
    arguments = ["evaluate", str(tmp_path / "model"), "--recipe", str(recipe), *PLAIN]
    assert main([*arguments, "--report-by", column, "--json", "--output", str(output)]) == 0
    found = json.loads(capsys.readouterr().out)
    metric, better = get_task(task).primary_metric
    groups = found["groups"]
    assert groups["metric"] == metric
    assert {name: one["value"] for name, one in groups["of"].items()} == {
        name: pytest.approx(found[f"{metric}_{name}"]) for name in "ab"
    }
    worst = (min if better else max)(groups["of"].values(), key=lambda one: one["value"])
    assert groups["of"][groups["worst"]]["value"] == worst["value"]
    assert (output / "groups.png").exists()
    assert main([*arguments, "--report-by", "nowhere"]) == 2
    assert "record 1: the record must have a column 'nowhere'" in capsys.readouterr().err


CLASSES = ["bad", "so so", "fine"]


@pytest.fixture
def classified(tmp_path, capsys):
    """A function that evaluates the same classifier with its classes in some order, and returns its metrics."""
    model, tokenizer = encoder_with(BertForSequenceClassification, CLASSES)
    torch.nn.init.normal_(model.classifier.weight)
    rows = [{"text": text, "label": CLASSES[n % 3], "place": "ab"[n % 2]} for n, text in enumerate(TEXTS)]
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    tokenizer.save_pretrained(tmp_path / "model")
    weights = {name: tensor.clone() for name, tensor in model.classifier.state_dict().items()}

    def evaluate(names, *options, status=0):
        order = [CLASSES.index(name) for name in names] if set(names) == set(CLASSES) else [0, 1, 2]
        model.classifier.load_state_dict({name: tensor[order] for name, tensor in weights.items()})
        model.config.id2label = dict(enumerate(names))
        model.save_pretrained(tmp_path / "model")
        arguments = ["evaluate", str(tmp_path / "model"), "--task", "text-classification", "--json", *PLAIN]
        assert main([*arguments, "--data", str(tmp_path / "t.jsonl"), *options]) == status
        printed = capsys.readouterr()
        return json.loads(printed.out) if status == 0 else printed.err

    return evaluate


def test_classes_are_those_that_the_model_names(classified, tmp_path):
    """Whatever their order is; and those of the model where the task options name none."""
    named = ("--task-options", json.dumps({"labels": CLASSES}))
    wanted = classified(CLASSES, *named)
    assert wanted["loss"] > 0
    for names in (CLASSES, CLASSES[::-1], ["so so", "fine", "bad"]):
        for options in ((), named):
            found = classified(names, *options, "--report-by", "place", "--output", str(tmp_path / "out"))
            assert {name: found[name] for name in wanted} == pytest.approx(wanted)
            assert set(found["groups"]["of"]) == {"a", "b"}
    predictions = [json.loads(line) for line in (tmp_path / "out" / "predictions.jsonl").read_text().splitlines()]
    assert [one["source"] for one in predictions] == TEXTS
    assert all(one["prediction"].keys() == {"label", "score"} for one in predictions)
    assert all(one["prediction"]["label"] in CLASSES for one in predictions)
    unnamed = [f"LABEL_{at}" for at in range(3)]  # by Transformers; their order is that of the task
    assert classified(unnamed, *named) == pytest.approx(wanted)


def test_other_classes_are_refused(classified):
    labels = ("--task-options", '{"labels": ["low", "mid", "high"]}')
    assert "a head of 3 classes (bad, so so, fine), which must be the 3 of the task (low" in classified(
        CLASSES, *labels, status=2
    )
    two = ("--task-options", '{"labels": ["bad", "fine"]}')
    assert "a head of 3 classes" in classified(CLASSES, *two, status=2)
    unnamed = [f"LABEL_{at}" for at in range(3)]
    assert "a head of 3 classes (LABEL_0, LABEL_1, LABEL_2)" in classified(unnamed, *two, status=2)
    assert "must be one of LABEL_0, LABEL_1, LABEL_2, or a number from 0 to 2, got 'bad'" in classified(
        unnamed, status=2
    )


def test_the_tags_of_a_test_are_written(tmp_path):
    model, tokenizer, data = tagging(tmp_path)
    for part in (model, tokenizer):
        part.save_pretrained(tmp_path / "model")
    arguments = ["--task", "semantic-role-labeling", "--data", data["path"], "--output", str(tmp_path / "out")]
    assert main(["evaluate", str(tmp_path / "model"), *arguments, *PLAIN]) == 0
    lines = (tmp_path / "out" / "predictions.jsonl").read_text().splitlines()
    assert [len(json.loads(line)["prediction"]["tags"]) for line in lines] == [len(text.split()) for text in TEXTS]
