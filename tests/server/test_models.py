"""Which model a folder holds, and what it is served for; the command line; what is refused before it listens."""

import re
import sys
from copy import deepcopy
from importlib import import_module
from pathlib import Path

import pytest

pytest.importorskip("fastapi")

from question_cases import tiny_reader
from servers import PAIRS, TEXTS, small
from trained_models import TEXTS as TRAINED_ON
from trained_models import tokenizer, trained_model
from transformers import MarianConfig, MarianMTModel

import crossmask
from crossmask import attach, translate_batch
from crossmask.cli.main import main
from crossmask.pipelines.inputs import PipelineInputError
from crossmask.server import LanguagePair, Settings, load_served_model
from crossmask.server.models import TextModel
from crossmask.server.question_answering import ReadingModel, WritingModel
from crossmask.server.settings import read_api_keys
from crossmask.serving import export, load_translator
from crossmask.utils.errors import InputError, MissingLibraryError

CARD = "---\nlanguage:\n- en\n- de\npipeline_tag: translation\n---\n"
PLAIN = {"device": "cpu", "dtype": "float32"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("served")
    for part in small():
        part.save_pretrained(place)
    (place / "README.md").write_text(CARD)
    return place


def save(place: Path, *parts, card: str = "") -> Path:
    for part in parts:
        part.save_pretrained(place)
    (place / "README.md").write_text(card)
    return place


def test_the_card_says_what_a_folder_is_served_for(folder):
    model = load_served_model(folder, **PLAIN)
    assert isinstance(model, TextModel)
    assert (model.task, model.engine, model.pairs) == ("translation", "torch", (LanguagePair("en", "de"),))
    assert model.run([item.payload for item in model.encode(TEXTS[:3])], 100) == translate_batch(
        *small(), TEXTS[:3], progress=False
    )
    assert load_served_model(folder, pairs=PAIRS, **PLAIN).pairs == PAIRS
    assert load_served_model(folder, task="summarization", **PLAIN).task == "summarization"


@pytest.mark.parametrize(
    "engine", ["ctranslate2", *(pytest.param(name, marks=pytest.mark.slow) for name in ("onnx", "web"))]
)
def test_an_export_is_served_as_its_model(engine, tmp_path):
    pytest.importorskip(engine if engine == "ctranslate2" else "onnxscript")
    place = save(tmp_path / "saved", trained_model(), tokenizer(), card=CARD)
    written = export(place, engine, tmp_path / engine).folder
    assert (written / "README.md").read_text() == CARD
    saved, exported = load_served_model(place, **PLAIN), load_served_model(written)
    assert (exported.task, exported.pairs) == ("translation", (LanguagePair("en", "de"),))
    assert exported.engine == ("ctranslate2" if engine == "ctranslate2" else "onnx")
    encoded = [item.payload for item in exported.encode(TRAINED_ON[:5])]
    assert exported.run(encoded, 100) == saved.run(encoded, 100)
    exported.close()


@pytest.mark.slow
def test_an_export_for_onnx_quotes_as_its_model(tmp_path):
    pytest.importorskip("onnxscript")
    model, cut = small()
    model = deepcopy(model)
    saved = {"source_template": "{question} {context}", "quote": "sentences"}
    model.config.task_specific_params = {"question-answering": saved}
    model.generation_config.max_new_tokens = 40
    place = save(tmp_path / "saved", model, cut)
    questions = [("two", "a small dog barks. two cats."), ("a man", "the old man reads on the train. two cats bark.")]
    answers = []
    for folder in (place, export(place, "onnx", tmp_path / "exported").folder):
        served = load_served_model(folder, task="question-answering", dtype="float32")
        answers.append(served.run([one.payload for one in served.encode(questions)], 100))
        served.close()
    assert answers[1] == answers[0]
    assert all("rationale" in answer for answer in answers[0])


def test_only_engines_that_generate_drives_can_quote(tmp_path):
    pytest.importorskip("ctranslate2")
    place = save(tmp_path / "saved", trained_model(), tokenizer())
    with load_translator(export(place, "ctranslate2", tmp_path / "exported").folder) as translator:
        texts = TextModel(translator, "fast", "question-answering")
        with pytest.raises(InputError, match="engine must be torch or onnx for fast, which quotes"):
            WritingModel(texts, "{question} {context}", quote="sentences")


def test_a_model_that_points_is_known_by_its_architecture(tmp_path):
    place = save(tmp_path, *tiny_reader(False))
    assert isinstance(load_served_model(place, **PLAIN), ReadingModel)
    for options, message in (
        ({"pairs": PAIRS}, "pairs must be left out for a model that points"),
        ({"options": {"num_beams": 2}}, "options must be left out for a model that points"),
        ({"task": "translation"}, "must be served for question-answering on torch, got translation on auto"),
        ({"engine": "ctranslate2"}, "got question-answering on ctranslate2"),
    ):
        with pytest.raises(InputError, match=message):
            load_served_model(place, **PLAIN, **options)


def test_what_a_model_is_for_must_be_known(folder, tmp_path):
    place = save(tmp_path, *small())
    with pytest.raises(InputError, match="--task must be given for"):
        load_served_model(place, **PLAIN)
    with pytest.raises(InputError, match="--languages must be given for"):
        load_served_model(place, task="translation", **PLAIN)
    assert load_served_model(place, pairs=PAIRS, **PLAIN).task == "translation"
    with pytest.raises(PipelineInputError, match="source_template must be given for a tokenizer without <sep>"):
        load_served_model(place, task="question-answering", **PLAIN)
    with pytest.raises(PipelineInputError, match="source_template must have"):
        load_served_model(place, task="question-answering", source_template="{question}", **PLAIN)
    with pytest.raises(InputError, match="source_template must be left out for translation"):
        load_served_model(folder, source_template="{question}{context}", **PLAIN)
    with pytest.raises(InputError, match="pairs must be left out for summarization"):
        load_served_model(folder, task="summarization", pairs=PAIRS, **PLAIN)
    with pytest.raises(InputError, match="num_beams must be at least 1"):
        load_served_model(folder, options={"num_beams": 0}, **PLAIN)


def test_masks_of_a_saved_model_of_transformers_are_on_it_again(tmp_path):
    sizes = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2}
    _, tokenizer = small()
    config = MarianConfig(
        vocab_size=len(tokenizer), decoder_attention_heads=2, encoder_ffn_dim=16, decoder_ffn_dim=16, **sizes,
        pad_token_id=tokenizer.pad_token_id, eos_token_id=tokenizer.eos_token_id, decoder_start_token_id=1,
    )  # fmt: skip
    place = save(tmp_path, attach(MarianMTModel(config), cross_mask="wait_k(3)"), tokenizer)
    with load_translator(place, dtype="float32", device="cpu") as translator:
        assert str(translator.model.config.cross_mask) == "wait_k(3)"
        assert hasattr(translator.model, "mask_compilers")


def test_code_beside_a_model_runs_only_when_told_to(folder, tmp_path):
    place = save(tmp_path, *small(), card=CARD)
    config = place / "config.json"
    config.write_text(
        re.sub(r'"model_type": "\w+"', '"model_type": "unheard-of"', config.read_text()).replace(
            '"configuration_crossmask.CrossMaskConfig"', '"trap.Trap"'
        )
    )
    sprung = tmp_path / "sprung"
    (place / "trap.py").write_text(f"open({str(sprung)!r}, 'w')\nclass Trap: pass\n")
    with pytest.raises(InputError, match="cannot be loaded"):
        load_served_model(place, **PLAIN)
    assert not sprung.exists()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"max_texts": 0}, "max_texts must be at least 1, got 0"),
        ({"max_queue": 4}, "max_queue must be at least max_texts=64, got 4"),
        ({"timeout": 0.0}, "timeout must be a finite number of seconds above 0, got 0"),
        ({"timeout": float("nan")}, "timeout must be a finite number"),
        ({"max_delay": -1.0}, "max_delay must be"),
        ({"requests_per_minute": 0}, "requests_per_minute must be at least 1"),
        ({"api_keys": frozenset({""})}, "API keys must be of visible ASCII characters"),
        ({"api_keys": frozenset({"one", "kéy"})}, "API keys must be of visible ASCII characters"),
        ({"api_keys": frozenset({"a b"})}, "API keys must be of visible ASCII characters"),
    ],
)
def test_settings_that_cannot_be_used(fields, message):
    with pytest.raises(InputError, match=message):
        Settings(**fields)


def test_languages_and_keys_are_read_from_text(tmp_path):
    assert LanguagePair.parse("en:zh-Hans=<2zh> ") == LanguagePair("en", "zh-Hans", "<2zh> ")
    for text in ("en", "en-de", "en:", ":de", "english:de", "en:d e"):
        with pytest.raises(InputError):
            LanguagePair.parse(text)
    path = tmp_path / "keys"
    path.write_text("# of the team\none\n\n two \n")
    assert read_api_keys(path) == {"one", "two"}
    path.write_text("one\n\nschlüssel\n", encoding="utf-8")
    with pytest.raises(
        InputError, match=r"keys, line 3: API keys must be of visible ASCII characters.*; make another"
    ) as e:
        read_api_keys(path)
    assert "schl" not in str(e.value)
    path.write_text("# none\n")
    with pytest.raises(InputError, match="must have an API key on a line"):
        read_api_keys(path)


def test_a_pair_of_languages_that_is_given_twice_is_refused(folder, capsys, monkeypatch):
    from crossmask import server

    monkeypatch.setattr(server, "serve", lambda model, settings, **where: None)
    twice = ["--languages", "en:de=<2de> ", "--languages", "en:fr", "--languages", "en:de=<formal> "]
    assert main(["serve", str(folder), *twice]) == 2
    error = "languages must have each pair once, got en:de twice; leave one of them out"
    assert capsys.readouterr().err.strip().endswith(error)
    with pytest.raises(InputError, match=error):
        load_served_model(folder, pairs=[*PAIRS, PAIRS[0]])


def test_the_command_serves_with_its_options(folder, monkeypatch, tmp_path):
    from crossmask import server

    served = {}
    monkeypatch.setattr(
        server, "serve", lambda model, settings, **where: served.update(model=model, settings=settings, **where)
    )
    keys = tmp_path / "keys"
    keys.write_text("one\n")
    words = [
        "--languages", "en:de", "--languages", "en:fr=<2fr> ", "--port", "7000", "--api-keys", str(keys),
        "--timeout", "9",
        "--max-texts", "3", "--num-beams", "2", "--allow-origin", "*", "--device", "cpu", "--dtype", "float32",
    ]  # fmt: skip
    assert main(["serve", str(folder), *words]) == 0
    model, settings = served["model"], served["settings"]
    assert model.pairs == (LanguagePair("en", "de"), LanguagePair("en", "fr", "<2fr> "))
    assert model.options == {"num_beams": 2}
    assert (served["host"], served["port"]) == ("127.0.0.1", 7000)
    assert settings == Settings(api_keys=frozenset({"one"}), timeout=9.0, max_texts=3, allow_origins=("*",))


def test_a_missing_library_is_named_with_its_command(folder, monkeypatch, capsys):
    from crossmask import server

    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with pytest.raises(
        MissingLibraryError, match=r"uvicorn must be installed to serve a model; run: pip install 'crossmask\[serve\]'"
    ):
        server.check_libraries()
    assert main(["serve", str(folder)]) == 2
    assert capsys.readouterr().err.strip().endswith("pip install 'crossmask[serve]'")


def test_the_package_is_imported_without_the_libraries_of_servers(monkeypatch):
    for name in ("fastapi", "uvicorn", "websockets", "prometheus_client"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setattr(crossmask, "server", crossmask.server)
    for name in [name for name in sys.modules if name.startswith("crossmask.server")]:
        monkeypatch.delitem(sys.modules, name)
    assert import_module("crossmask.server").Settings is not Settings
