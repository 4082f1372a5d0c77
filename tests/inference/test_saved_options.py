"""What a saved config says of its sources means the same in every way to use the model."""

import io
import json
import re
import sys
from copy import deepcopy

import pytest
from streaming_cases import REFERENCES, TEXTS, tiny
from trained_models import TEXTS as TRAINED_ON
from trained_models import tokenizer, trained_model
from transformers import pipeline

from crossmask import translate_batch
from crossmask.cli.main import main
from crossmask.data.tokenizer_training import train_tokenizer
from crossmask.explorer.loading import load_explored_model
from crossmask.server import LanguagePair, load_served_model
from crossmask.serving import export
from crossmask.streaming.text import translate
from crossmask.tasks import get_task

PREFIX = "the man "
PLAIN = ["--device", "cpu", "--dtype", "float32", "--quiet"]
CPU = {"device": "cpu", "dtype": "float32"}
ENGLISH_GERMAN = [LanguagePair("en", "de")]


def save(folder, saved):
    model, cut = tiny()
    model.config.task_specific_params = saved
    for part in (model, cut):
        part.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    saved = {task: {"prefix": PREFIX} for task in ("translation", "summarization")}
    return save(tmp_path_factory.mktemp("prefixed"), saved)


def outputs_after(prefix):
    return translate_batch(*tiny(), [prefix + text for text in TEXTS], max_new_tokens=9, progress=False)


def run(monkeypatch, capsys, *arguments, lines=TEXTS):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("\n".join(lines).encode())))
    assert main([*map(str, arguments)]) == 0
    return capsys.readouterr().out.splitlines()


def served(place, prefix=None, **options):
    model = load_served_model(place, source_prefix=prefix, options={"max_new_tokens": 9}, **options)
    return model.run([one.payload for one in model.encode(TEXTS)], 100)


def test_the_prefix_makes_a_difference():
    assert outputs_after(PREFIX) != outputs_after("")


@pytest.mark.parametrize("command", ["translate", "summarize"])
def test_commands_put_the_saved_prefix_before_every_line(folder, monkeypatch, capsys, command):
    arguments = [command, folder, "--max-new-tokens", 9, *PLAIN]
    assert run(monkeypatch, capsys, *arguments) == outputs_after(PREFIX)
    assert run(monkeypatch, capsys, *arguments, "--source-prefix", "") == outputs_after("")


def test_a_stream_reads_the_saved_prefix_before_the_first_word(folder, monkeypatch, capsys):
    wanted = translate(*tiny(), TEXTS, prefix=PREFIX, cross_mask="wait_k(3)")
    found = run(monkeypatch, capsys, "stream", folder, "--cross-mask", "wait_k(3)", "--device", "cpu")
    assert [line.strip() for line in found] == [one.text for one in wanted]


def test_the_sentences_of_the_explorer_begin_with_the_saved_prefix(folder):
    examples = load_explored_model(str(folder), "cpu").facts["examples"]
    assert all(text.startswith(PREFIX) and len(text) > len(PREFIX) for text in examples)


def test_the_explorer_begins_with_sentences_that_it_takes(tmp_path):
    model = load_explored_model(str(save(tmp_path, {"translation": {"prefix": PREFIX * 40}})), "cpu")
    for text in model.facts["examples"]:
        model.source(text)


def test_a_server_puts_the_saved_prefix_before_every_text(folder):
    assert served(folder, pairs=ENGLISH_GERMAN, **CPU) == outputs_after(PREFIX)
    assert served(folder, task="summarization", **CPU) == outputs_after(PREFIX)
    assert served(folder, prefix="", pairs=ENGLISH_GERMAN, **CPU) == outputs_after("")
    # Prefixes of pairs stand in its place.
    assert served(folder, pairs=[LanguagePair("en", "de", prefix="a ")], **CPU) == outputs_after("")


@pytest.mark.parametrize(
    "engine", ["ctranslate2", *(pytest.param(name, marks=pytest.mark.slow) for name in ("onnx", "web"))]
)
def test_an_export_keeps_the_prefix(tmp_path, monkeypatch, capsys, engine):
    pytest.importorskip(engine if engine == "ctranslate2" else "onnxscript")
    model, cut, (first, *texts) = deepcopy(trained_model()), tokenizer(), TRAINED_ON[:4]  # other tests have it too
    model.config.task_specific_params = {"translation": {"prefix": f"{first} "}}
    for part in (model, cut):
        part.save_pretrained(tmp_path / "saved")
    wanted = translate_batch(model, cut, [f"{first} {text}" for text in texts], max_new_tokens=9, progress=False)
    assert wanted != translate_batch(model, cut, texts, max_new_tokens=9, progress=False)
    place = export(tmp_path / "saved", engine, tmp_path / "exported").folder
    assert run(monkeypatch, capsys, "translate", place, "--max-new-tokens", 9, "--quiet", lines=texts) == wanted
    exported = load_served_model(place, options={"max_new_tokens": 9}, pairs=ENGLISH_GERMAN)
    assert exported.run([one.payload for one in exported.encode(texts)], 100) == wanted
    exported.close()


def test_an_evaluation_reads_the_saved_prefix(folder, tmp_path, monkeypatch, capsys):
    (tmp_path / "t.tsv").write_text("".join(f"{s}\t{t}\n" for s, t in zip(TEXTS, REFERENCES, strict=True)))
    arguments = ["evaluate", folder, "--data", tmp_path / "t.tsv", "--json", *PLAIN]
    task = get_task("translation")
    examples = [task.example({"source": s, "target": t}) for s, t in zip(TEXTS, REFERENCES, strict=True)]
    data = {"format": "tsv", "path": str(tmp_path / "t.tsv")}
    recipe = {"task": "translation", "test": data, "source_prefix": "a "}
    (tmp_path / "other.yaml").write_text(json.dumps(recipe))
    for prefix, given in ((PREFIX, ["--task", "translation"]), ("a ", ["--recipe", tmp_path / "other.yaml"])):
        (scores,) = map(json.loads, run(monkeypatch, capsys, *arguments, *given))
        predictions = translate_batch(*tiny(), [prefix + text for text in TEXTS], progress=False)
        wanted = task.metrics(predictions, examples)
        assert {name: scores[name] for name in wanted} == wanted


QUESTIONS = [{"question": "where", "context": text} for text in TEXTS[:3]]


@pytest.fixture(scope="module")
def writer(tmp_path_factory):
    """A model that writes answers, whose `no_answer` is the first of them."""
    place = tmp_path_factory.mktemp("writer")
    model, _ = tiny()
    cut = train_tokenizer([*TEXTS, "where"], vocab_size=400, special_tokens=["<sep>"])
    for part in (model, cut):
        part.save_pretrained(place)
    template = "{context}<sep> {question}"
    pipe = pipeline("question-answering", model=str(place), device="cpu", source_template=template, max_new_tokens=5)
    answers = [one["answer"] for one in pipe(QUESTIONS)]
    saved = {"source_template": template, "no_answer": answers[0].upper()}
    model.config.task_specific_params = {"question-answering": saved}
    model.save_pretrained(place)
    wanted = ["" if answer == answers[0] else answer for answer in answers]
    assert "" not in answers
    assert wanted != [""] * 3
    return place, wanted


def test_written_answers_follow_the_saved_template_everywhere(writer, monkeypatch, capsys):
    place, wanted = writer
    pipe = pipeline("question-answering", model=str(place), device="cpu", max_new_tokens=5)
    assert [one["answer"] for one in pipe(QUESTIONS)] == wanted
    model = load_served_model(place, task="question-answering", options={"max_new_tokens": 5}, **CPU)
    encoded = model.encode([(one["question"], one["context"]) for one in QUESTIONS])
    assert [one["answer"] for one in model.run([one.payload for one in encoded], 100)] == wanted
    task = get_task("question-answering")
    assert task.options_of_saved(pipe.model.config) == pipe.model.config.task_specific_params["question-answering"]


def test_a_template_of_the_call_comes_first(writer):
    place, _ = writer
    other = "{question}<sep> {context}"
    assert pipeline("question-answering", model=str(place), source_template=other).source_template == other
    model = load_served_model(place, task="question-answering", source_template=other, **CPU)
    assert model.source_template == other


@pytest.mark.parametrize(
    ("task", "saved", "message"),
    [
        ("translation", {"translation": {"prefix": 3}}, r"translation.prefix of the .* must be a text, got 3"),
        (
            "translation",
            {"translation": ["prefix"]},
            r"translation of the model's config must be a mapping, got \['prefix'\]",
        ),
        ("translation", ["translation"], "task_specific_params of the model's config must be a mapping"),
        (
            "question-answering",
            {"question-answering": {"quote": True}},
            "quote of the model's config must be a text",
        ),
        (
            "question-answering",
            {"question-answering": {"no_answer": 3}},
            "no_answer of the model's config must be a text",
        ),
        *(
            (
                "question-answering",
                {"question-answering": {"source_template": "{question} {context}", **saved}},
                message,
            )
            for saved, message in (
                ({"source_template": "{question:9} {context}"}, "source_template must have {question} and {context}"),
                ({"source_template": "{question!r} {context}"}, "source_template must have {question} and {context}"),
                ({"source_template": "{question} {context"}, "source_template must have {question} and {context}"),
                ({"source_template": "{question} {text}"}, "source_template must have {question} and {context}"),
                ({"source_template": ""}, "source_template must be a text, got ''"),
                ({"no_answer": " "}, "no_answer must be a text, got ' '"),
                ({"quote": "words"}, "quote must be one of answer, sentences, got 'words'"),
                ({"quote": ""}, "quote must be one of answer, sentences, got ''"),
            )
        ),
    ],
)
def test_saved_options_that_cannot_be_used_are_named(tmp_path, monkeypatch, capsys, task, saved, message):
    folder = save(tmp_path, saved)
    with pytest.raises(ValueError, match=message):
        pipeline(f"crossmask-{task}", model=str(folder), device="cpu")
    with pytest.raises(ValueError, match=message):
        load_served_model(folder, task=task, pairs=ENGLISH_GERMAN if task == "translation" else (), **CPU)
    (tmp_path / "t.tsv").write_text("a\tb\n")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"a\n")))
    command = "translate" if task == "translation" else "answer"
    assert main([command, str(folder), *PLAIN]) == 2
    assert re.search(message, capsys.readouterr().err)
    assert main(["evaluate", str(folder), "--task", task, "--data", str(tmp_path / "t.tsv"), *PLAIN]) == 2


@pytest.mark.parametrize("prefix", [None, ""])
def test_no_prefix_may_be_saved(tmp_path, monkeypatch, capsys, prefix):
    folder = save(tmp_path, {"translation": {"prefix": prefix}})
    assert run(monkeypatch, capsys, "translate", folder, "--max-new-tokens", 9, *PLAIN) == outputs_after("")
    assert served(folder, pairs=ENGLISH_GERMAN, **CPU) == outputs_after("")
    (tmp_path / "t.tsv").write_text("".join(f"{s}\t{t}\n" for s, t in zip(TEXTS, REFERENCES, strict=True)))
    assert run(monkeypatch, capsys, "evaluate", folder, "--task", "translation", "--data", tmp_path / "t.tsv", *PLAIN)
