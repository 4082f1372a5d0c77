"""The commands on tiny models: what they print is what the package gives."""

import io
import json
import sys

import pytest
import torch
from question_cases import tiny_reader, tiny_tokenizer
from streaming_cases import REFERENCES, TEXTS, tiny
from tiny_encoders import encoder_config
from transformers import BertForSequenceClassification, BertForTokenClassification, pipeline

from crossmask import audit, translate_batch
from crossmask.cli.main import main
from crossmask.data.tokenizer_training import train_tokenizer
from crossmask.streaming.text import translate
from crossmask.tasks import get_task
from crossmask.training.predictions import FILE

CPU = ["--device", "cpu"]
PLAIN = [*CPU, "--dtype", "float32", "--quiet"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model of words, and its test data."""
    place = tmp_path_factory.mktemp("model")
    for part in tiny():
        part.save_pretrained(place)
    (place / "test.tsv").write_text("".join(f"{s}\t{t}\n" for s, t in zip(TEXTS, REFERENCES, strict=True)))
    return place


def give(monkeypatch, text: str) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))


def read(capsys) -> list:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_summaries_have_their_own_key(folder, monkeypatch, capsys):
    give(monkeypatch, f"{TEXTS[0]}\n")
    assert main(["summarize", str(folder), "--json", "--max-new-tokens", "5", *PLAIN]) == 0
    model, tokenizer = tiny()
    (wanted,) = translate_batch(model, tokenizer, [TEXTS[0]], max_new_tokens=5, progress=False)
    assert read(capsys) == [{"summary_text": wanted}]


def test_answers_of_lines_and_of_one_text(tmp_path, monkeypatch, capsys):
    model, tokenizer = tiny_reader(False)
    for part in (model, tokenizer):
        part.save_pretrained(tmp_path)
    items = [{"question": "where is ann ?", "context": c} for c in ("ann is in the garden", "bob left . ann sits")]
    pipe = pipeline("question-answering", model=model, tokenizer=tokenizer, device="cpu")
    wanted = pipe(items)
    lines = "\n\n".join(map(json.dumps, items))
    give(monkeypatch, lines)
    assert main(["answer", str(tmp_path), *PLAIN]) == 0
    assert capsys.readouterr().out.splitlines() == [one["answer"] for one in wanted]
    give(monkeypatch, lines)
    assert main(["answer", str(tmp_path), "--json", "--top-k", "2", *PLAIN]) == 0
    found = read(capsys)
    assert [[one["answer"] for one in answers] for answers in found] == [
        [one["answer"] for one in answers] for answers in pipe(items, top_k=2)
    ]
    give(monkeypatch, items[0]["context"])
    assert main(["answer", str(tmp_path), "--question", items[0]["question"], *PLAIN]) == 0
    assert capsys.readouterr().out == wanted[0]["answer"] + "\n"
    for bad, message in (
        ("{", "line 1 must be JSON"),
        ("3", "line 1 must be {'question'"),
        ("{}", "line 1 must have"),
        ('{"question": "a", "context": "ann"}\n\n{"question": "a"}', "line 3 must have 'context'"),
    ):
        give(monkeypatch, bad)
        assert main(["answer", str(tmp_path), *PLAIN]) == 2
        assert message in capsys.readouterr().err


def test_answers_that_are_written(tmp_path, monkeypatch, capsys):
    model, _ = tiny()
    tokenizer = train_tokenizer([*TEXTS, "where"], vocab_size=400, special_tokens=["<sep>"])
    for part in (model, tokenizer):
        part.save_pretrained(tmp_path)
    give(monkeypatch, json.dumps({"question": "where", "context": TEXTS[0]}))
    assert main(["answer", str(tmp_path), "--json", "--top-k", "2", *PLAIN]) == 0
    ((one, two),) = read(capsys)
    assert list(one) == list(two) == ["answer"]


def test_labels(tmp_path, monkeypatch, capsys):
    torch.manual_seed(0)
    config = encoder_config("bert")
    config.vocab_size, config.num_labels = len(tiny_tokenizer()), 3
    model = BertForSequenceClassification(config).eval()
    for part in (model, tiny_tokenizer()):
        part.save_pretrained(tmp_path)
    pipe = pipeline("text-classification", model=model, tokenizer=tiny_tokenizer(), device="cpu")
    lines = "ann left\nbob is in the garden\n"
    give(monkeypatch, lines)
    assert main(["classify", str(tmp_path), *PLAIN]) == 0
    wanted = [f"{one['label']}\t{one['score']:.4f}" for one in pipe(lines.splitlines())]
    assert capsys.readouterr().out.splitlines() == wanted
    give(monkeypatch, lines)
    assert main(["classify", str(tmp_path), "--json", "--top-k", "3", *PLAIN]) == 0
    assert [len(labels) for labels in read(capsys)] == [3, 3]
    give(monkeypatch, "\n\u200b\nann left\n \nbob is in the garden\n\n\n")
    assert main(["classify", str(tmp_path), *PLAIN]) == 0
    assert capsys.readouterr().out.splitlines() == ["", "", wanted[0], "", wanted[1], "", ""]
    give(monkeypatch, "\n\n")
    assert main(["classify", str(tmp_path), "--json", *PLAIN]) == 0
    assert read(capsys) == [None, None]


def test_semantic_roles(tmp_path, monkeypatch, capsys):
    torch.manual_seed(0)
    config = encoder_config("bert")
    config.vocab_size, config.id2label = len(tiny_tokenizer()), dict(enumerate(["O", "B-V", "I-V"]))
    model = BertForTokenClassification(config).eval()
    for part in (model, tiny_tokenizer()):
        part.save_pretrained(tmp_path)
    pipe = pipeline("crossmask-semantic-role-labeling", model=model, tokenizer=tiny_tokenizer(), device="cpu")
    items = [{"text": "ann left", "predicate": "left"}, {"words": ["bob", "sits"], "predicate": 1}]
    give(monkeypatch, "\n".join(map(json.dumps, items)))
    assert main(["label", str(tmp_path), *PLAIN]) == 0
    assert capsys.readouterr().out.splitlines() == [one["text"] for one in pipe(items)]
    give(monkeypatch, "ann left\n")
    assert main(["label", str(tmp_path), "--predicate", "left", "--json", *PLAIN]) == 0
    (found,) = read(capsys)
    assert found["tags"] == pipe(items[0])["tags"]
    give(monkeypatch, "\nbob left\n")
    assert main(["label", str(tmp_path), "--predicate", "left", *PLAIN]) == 0
    assert [bool(line) for line in capsys.readouterr().out.splitlines()] == [False, True]
    give(monkeypatch, "ann left\n\nbob sits\n")
    assert main(["label", str(tmp_path), "--predicate", "left", *PLAIN]) == 2
    assert "line 3: 'predicate' must be a word that is there once, got 'left'" in capsys.readouterr().err
    give(monkeypatch, "ann left\n")
    assert main(["label", str(tmp_path), *PLAIN]) == 2
    assert (
        "line 1 must be JSON, {'text': ..., 'predicate': ...}, or a text beside --predicate" in capsys.readouterr().err
    )


def test_a_stream_writes_each_word_as_soon_as_it_is_complete(folder, monkeypatch, capsys):
    model, tokenizer = tiny()
    wanted = list(translate(model, tokenizer, TEXTS, cross_mask="wait_k(3)"))
    give(monkeypatch, "\n".join([TEXTS[0], "", TEXTS[1]]))
    assert main(["stream", str(folder), "--cross-mask", "wait_k(3)", *CPU]) == 0
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    assert lines == [wanted[0].text, "", wanted[1].text]
    give(monkeypatch, TEXTS[0])
    assert main(["stream", str(folder), "--cross-mask", "wait_k(3)", "--json", *CPU]) == 0
    rows = read(capsys)
    assert [row["word"] for row in rows] == wanted[0].text.split()
    assert [row["read"] for row in rows] == wanted[0].delays


def test_an_audit_ends_with_1_where_the_model_reads_too_much(folder, tmp_path, capsys):
    arguments = ["audit", str(folder), "--source", TEXTS[0], "--target", REFERENCES[0]]
    assert main(arguments) == 0
    assert "no leak" in capsys.readouterr().out
    assert main([*arguments, "--cross-mask", "wait_k(1)", "--json"]) == 1
    (report,) = read(capsys)
    model, tokenizer = tiny()
    batch = {
        "input_ids": tokenizer(TEXTS[0], return_tensors="pt")["input_ids"],
        "labels": torch.tensor([tokenizer(text_target=REFERENCES[0])["input_ids"]]),
    }
    own = audit(model, batch, cross_mask="wait_k(1)")
    assert (report["ok"], len(report["leaks"])) == (False, len(own.leaks))
    assert main(["audit", str(folder), "--source", TEXTS[1]]) == 0
    assert main(["audit", str(folder), "--source", " "]) == 2


def test_an_evaluation_has_the_scores_of_the_task(folder, tmp_path, capsys):
    arguments = ["evaluate", str(folder), "--task", "translation", "--data", str(folder / "test.tsv"), *PLAIN]
    assert main([*arguments, "--json", "--output", str(tmp_path / "one")]) == 0
    (scores,) = read(capsys)
    model, tokenizer = tiny()
    task = get_task("translation")
    examples = [task.example({"source": s, "target": t}) for s, t in zip(TEXTS, REFERENCES, strict=True)]
    predictions = translate_batch(model, tokenizer, TEXTS, progress=False)
    wanted = task.metrics(predictions, examples)
    assert {name: scores[name] for name in wanted} == wanted
    assert scores["loss"] > 0
    rows = [json.loads(line) for line in (tmp_path / "one" / FILE).read_text().splitlines()]
    assert [row["prediction"] for row in rows] == predictions
    assert json.loads((tmp_path / "one" / "metrics.json").read_text()) == scores
    # Another length of beams is another system; the same one differs by nothing.
    compared = [*arguments, "--json", "--compare", str(tmp_path / "one" / "metrics.json")]
    assert main(compared) == 0
    same = read(capsys)[0]["compared"]
    assert {row["difference"] for row in same.values()} == {0}
    assert main([*compared, "--num-beams", "3"]) == 0
    other = read(capsys)[0]["compared"]["chrf"]
    assert other["difference"] == other["this"] - other["other"] != 0
    assert 0 <= other["p_value"] <= 1
    assert main([*compared[:-3], "--compare", compared[-1]]) == 0
    assert "difference  p-value" in capsys.readouterr().out


def test_an_evaluation_by_a_column(folder, tmp_path, capsys, few_resamples):
    path = tmp_path / "test.tsv"
    rows = [f"{s}\t{t}\t{'ab'[n % 2]}\n" for n, (s, t) in enumerate(zip(TEXTS, REFERENCES, strict=True))]
    path.write_text("".join(rows))
    columns = "{source: 0, target: 1, domain: 2}"
    data = ["--task", "translation", "--data", f"{{format: tsv, path: {path}, columns: {columns}}}"]
    arguments = ["evaluate", str(folder), *data, "--num-beams", "2", *PLAIN]
    assert main([*arguments, "--report-by", "domain", "--json", "--output", str(tmp_path / "out")]) == 0
    (found,) = read(capsys)
    assert main([*arguments, "--json"]) == 0
    (alone,) = read(capsys)
    assert alone == {name: found[name] for name in alone}  # all together as without the column
    groups = found["groups"]
    assert (groups["column"], list(groups["of"])) == ("domain", ["a", "b"])
    for name, group in groups["of"].items():
        assert group["value"] == found[f"sacrebleu_{name}"]
        assert group["low"] <= group["value"] <= group["high"]
    assert groups["spread"] == abs(groups["of"]["a"]["value"] - groups["of"]["b"]["value"])
    assert json.loads((tmp_path / "out" / "metrics.json").read_text()) == found
    assert (tmp_path / "out" / "groups.png").read_bytes().startswith(b"\x89PNG")
    assert main([*arguments, "--report-by", "domain"]) == 0
    table = [line.split() for line in capsys.readouterr().out.splitlines()[-4:]]
    assert table[0] == ["domain", "examples", "sacreBLEU", "interval", "of", "95%"]
    assert [row[0] for row in table[1:]] == ["a", "b", "spread"]
    assert sum("(the worst)" in " ".join(row) for row in table) == 1
    # A recipe's own column, and records that lack it.
    recipe = tmp_path / "r.yaml"
    recipe.write_text(f"task: translation\ntest: {data[-1]}\nreport_by: domain\n")
    assert main(["evaluate", str(folder), "--recipe", str(recipe), "--num-beams", "2", "--json", *PLAIN]) == 0
    assert read(capsys) == [found]
    assert main([*arguments, "--report-by", "language"]) == 2
    assert f"test: {path}, record 1: the record must have a column 'language', got" in capsys.readouterr().err


def test_predictions_of_other_examples_are_not_compared(folder, tmp_path, capsys):
    arguments = ["evaluate", str(folder), "--task", "translation", "--data", str(folder / "test.tsv"), *PLAIN]
    assert main([*arguments, "--limit", "2", "--output", str(tmp_path)]) == 0
    capsys.readouterr()
    assert main([*arguments, "--compare", str(tmp_path / "metrics.json")]) == 2
    assert "must have predictions for the same examples" in capsys.readouterr().err
    (tmp_path / FILE).unlink()
    assert main([*arguments, "--compare", str(tmp_path / "metrics.json")]) == 2
    assert "run crossmask evaluate on that model with --output" in capsys.readouterr().err


def test_a_model_for_another_task_is_refused(folder, capsys):
    data = "{format: tsv, path: nowhere.tsv}"
    assert main(["evaluate", str(folder), "--task", "extractive-question-answering", "--data", data, *PLAIN]) == 2
    assert "must be a model for task extractive-question-answering" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["translate", "summarize", "answer", "label", "stream", "audit", "export"])
def test_a_model_of_another_kind_is_refused(command, tmp_path, monkeypatch, capsys):
    model = BertForSequenceClassification(encoder_config("bert"))
    for part in (model, tiny_tokenizer()):
        part.save_pretrained(tmp_path)
    give(monkeypatch, "{}\n")
    more = {"audit": ["--source", "ann"], "export": [str(tmp_path / "out"), "--to", "onnx"]}.get(command, [])
    assert main([command, str(tmp_path), *more]) == 2
    error = capsys.readouterr().err
    assert f"{tmp_path} must be a model that AutoModelFor" in error
    assert "got BertForSequenceClassification; give another model, or use it with crossmask classify" in error
    assert len(error) < 500


def test_a_translator_does_not_classify(folder, capsys):
    assert main(["classify", str(folder), *PLAIN]) == 2
    assert "got CrossMaskForConditionalGeneration; give another model, or use it with crossmask translate or" in (
        capsys.readouterr().err
    )


def test_options_of_one_kind_of_model(folder, tmp_path, monkeypatch, capsys):
    for part in tiny_reader(False):
        part.save_pretrained(tmp_path)
    assert main(["answer", str(tmp_path), "--source-template", "{question} {context}", *PLAIN]) == 2
    assert "options must be among top_k, " in capsys.readouterr().err
    assert main(["translate", str(folder), "--seed", "5", *PLAIN]) == 2
    assert "--seed must come with --sample, without which it does nothing" in capsys.readouterr().err


def test_a_column_of_a_recipe(tmp_path, capsys):
    recipe = tmp_path / "r.yaml"
    (tmp_path / "t.tsv").write_text("a\tb\nc\td\n")
    recipe.write_text(f"train: {{format: tsv, path: {tmp_path / 't.tsv'}, repeat: 3}}\n")
    assert main(["extract", str(recipe), "--column", "target"]) == 0
    assert capsys.readouterr().out == "b\nd\n"  # each record once, whatever its repeat


def test_a_column_of_some_sources_of_a_recipe(tmp_path, capsys):
    for name in "abc":
        (tmp_path / f"{name}.tsv").write_text(f"{name}\t{name.upper()}\n")
    recipe = tmp_path / "r.yaml"
    specs = [f"{{format: tsv, path: {tmp_path / name}.tsv}}" for name in "abc"]
    recipe.write_text(f"train: [{specs[0]}, {specs[1]}]\ntest: {specs[2]}\n")
    asked = ["extract", str(recipe), "--column", "target"]
    assert main([*asked, "--part", "train[1]", "--part", "test"]) == 0
    assert capsys.readouterr().out == "B\nC\n"
    for part, message in (
        ("train[2]", "--part must be one of train, train[0], train[1], got 'train[2]'"),
        ("test[0]", "--part must be one of test, got 'test[0]'"),
        ("dev", "--part must be train, validation, test, or such as train[1], got 'dev'"),
    ):
        assert main([*asked, "--part", part]) == 2
        assert message in capsys.readouterr().err
