"""The commands and the pipelines on exported models: what they write is what PyTorch writes."""

import io
import json
import re
import shutil
import sys
from pathlib import Path

import pytest
import torch
from command_line import command
from stopped_runs import stopped_at
from trained_models import TEXTS, exported, tokenizer, trained_model
from transformers import pipeline

from crossmask import translate_batch
from crossmask.inference import files
from crossmask.serving import export, load_translator
from crossmask.utils.errors import InputError

translate, summarize, answer = map(command, ("translate", "summarize", "answer"))

LINES = [*TEXTS[:12], "", "  ", *reversed(TEXTS[:5])]
QUIET = ("--quiet", "--threads", "1", "--num-beams", "3")


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    trained_model().save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module", params=["ctranslate2", "onnx"])
def folder(request, tmp_path_factory, export_trained):
    """The trained model, exported."""
    pytest.importorskip({"onnx": "onnxscript"}.get(request.param, request.param))
    if request.param == "onnx":
        pytest.importorskip("onnxruntime")
    return export_trained(request.param, tmp_path_factory.mktemp("exported") / request.param)


@pytest.fixture
def lines(tmp_path):
    path = tmp_path / "lines.txt"
    path.write_text("\n".join(LINES) + "\n")
    return path


def test_a_file_is_what_pytorch_writes_and_a_stopped_run_goes_on(folder, saved, lines, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(files, "PORTION", 5)
    assert translate([str(saved), str(lines), "-o", str(tmp_path / "torch"), "--dtype", "float32", *QUIET]) == 0
    arguments = [str(folder), str(lines), *QUIET, "-o", str(tmp_path / "engine")]
    portion, done = files.LineTranslator.portion, []

    with stopped_at(2, monkeypatch):
        assert translate(arguments) == 130
    other = [str(saved), *arguments[1:]]
    assert translate(other) == 2
    assert "must be" in capsys.readouterr().err
    monkeypatch.setattr(files.LineTranslator, "portion", lambda *a: (done.append(a[2]), portion(*a))[1])
    assert translate(arguments) == 0
    assert done == [2, 3]
    assert (tmp_path / "engine").read_bytes() == (tmp_path / "torch").read_bytes()


def with_other_weights(folder: Path, copy: Path) -> Path:
    """A copy with other numbers: a graph takes long to write."""
    import onnx
    from onnx import numpy_helper

    shutil.copytree(folder, copy)
    for path in copy.glob("*.onnx"):
        graph = onnx.load(path)
        for tensor in graph.graph.initializer:
            if tensor.data_type == onnx.TensorProto.FLOAT:
                tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) + 1, tensor.name))
        onnx.save(graph, path)
    return copy


def test_an_export_that_was_written_again_does_not_continue_a_run(folder, lines, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(files, "PORTION", 5)
    engine = load_translator(folder).engine
    arguments = [str(folder), str(lines), *QUIET, "-o", str(tmp_path / "out")]
    with monkeypatch.context() as patch:
        patch.setattr(files.LineTranslator, "portion", lambda *a: (_ for _ in ()).throw(KeyboardInterrupt))
        assert translate(arguments) == 130
    if engine == "onnx":
        again = with_other_weights(folder, tmp_path / "again")
    else:
        again = exported(trained_model(1), engine, tmp_path / "again")
    capsys.readouterr()
    folder.rename(tmp_path / "kept")
    again.rename(folder)
    try:
        assert translate(arguments) == 2
    finally:
        folder.rename(again)
        (tmp_path / "kept").rename(folder)
    assert re.search("the model must be the one that .*, got another (config and )?weights; ", capsys.readouterr().err)


def test_summaries_come_from_engines_too(folder, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(f"{TEXTS[2]}\n".encode())))
    assert summarize([str(folder), "--json", "--engine", "auto", *QUIET]) == 0
    (wanted,) = translate_batch(trained_model(), tokenizer(), [TEXTS[2]], progress=False, num_beams=3)
    assert json.loads(capsys.readouterr().out) == {"summary_text": wanted}


@pytest.mark.parametrize(
    ("engine", "arguments", "message"),
    [
        ("ctranslate2", ["--sample"], "do_sample must be false on CTranslate2"),
        ("ctranslate2", ["--min-new-tokens", "3"], "options of CTranslate2 must be among .*, got 'min_new_tokens'"),
        ("ctranslate2", ["--cross-mask", "wait_k(3)"], "options of CTranslate2 must be among .*, got 'cross_mask'"),
        ("onnx", ["--cross-mask", "wait_k(3)"], "cross_mask must be a boolean tensor, got the rule"),
        ("onnx", ["--dtype", "bfloat16"], "device and dtype of these ONNX graphs must be"),
        ("", ["--engine", "torch"], "must be a folder for torch, got one for"),
        ("", ["--device", "cuda:9"], "cuda:9"),
        ("", ["--max-source-length", "65"], "max_source_length must be from 2 to the model's 64, got 65"),
    ],
)
def test_what_an_engine_cannot_do_is_one_line(folder, lines, engine, arguments, message, capsys):
    if engine not in ("", folder.name):
        pytest.skip("another engine has it")
    assert translate([str(folder), str(lines), "--quiet", *arguments]) == 2
    assert re.search(message, capsys.readouterr().err.splitlines()[-1])


def test_pipelines_run_on_engines(folder):
    with load_translator(folder, threads=1) as translator:
        pipe = pipeline("crossmask-translation", model=translator.model, tokenizer=translator.tokenizer, device="cpu")
        for options in ({}, {"num_beams": 3, "early_stopping": True}, {"max_new_tokens": 2}):
            wanted = translate_batch(trained_model(), tokenizer(), TEXTS[:6], progress=False, **options)
            outputs = pipe(TEXTS[:6], batch_size=4, **options)
            assert [output["translation_text"] for output in outputs] == wanted
        with pytest.raises(ValueError, match="at most 64 tokens"):
            pipe("dog " * 100)
        with pytest.raises(InputError, match=r"cross_mask must be (a boolean tensor|left out on CTranslate2)"):
            pipe(TEXTS[0], cross_mask="wait_k(3)")


def test_what_generate_of_ctranslate2_refuses(saved, tmp_path):
    pytest.importorskip("ctranslate2")
    folder = export(saved, "ctranslate2", tmp_path / "new").folder
    with load_translator(folder, threads=1) as translator:
        model, inputs = translator.model, tokenizer()(TEXTS[:4], padding=True, return_tensors="pt")
        wanted = trained_model().generate(**inputs)
        assert torch.equal(model.generate(**inputs), wanted)
        for options, message in (
            ({"do_sample": True}, "do_sample must have no effect, got True"),
            (
                {"num_beams": 2, "num_return_sequences": 2},
                "num_return_sequences must have no effect, got 2",
            ),
            ({"max_length": 9}, "max_length must be left out, got 9; give max_new_tokens"),
            ({"streamer": object()}, "streamer must be left out on CTranslate2"),
            ({"max_new_tokens": 99}, "max_new_tokens must be at most 64"),
        ):
            with pytest.raises(InputError, match=message):
                model.generate(**inputs, **options)
        with pytest.raises(InputError, match="forward must not be called on CTranslate2"):
            model(**inputs)


def test_answers_are_written_by_engines(folder, saved, monkeypatch, capsys):
    question = json.dumps({"question": "dog", "context": "red birds near"})
    template = ["--source-template", "{question} {context}", "--quiet"]
    outputs = []
    for model in (saved, folder):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(question.encode())))
        assert answer([str(model), *template, "--dtype", "saved", "--device", "cpu"]) == 0
        outputs.append(capsys.readouterr().out)
    assert outputs[0] == outputs[1] != "\n"
