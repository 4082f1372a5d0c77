"""An exported folder starts and ends outputs as `generate()` of the model does: by its generation config alone."""

import copy
import json
import shutil

import pytest
import torch
from small_models import END, small_model
from trained_models import TEXTS, tokenizer, trained_model

from crossmask import translate_batch
from crossmask.serving import export, exports, load_translator, refusals, web
from crossmask.serving.generation import end_tokens, exported_generation
from crossmask.utils.errors import InputError

NEEDS = {"ctranslate2": "ctranslate2", "onnx": "onnxscript", "web": "onnxscript"}
START, BOS = 7, 9  # words


def network():
    model = copy.deepcopy(trained_model())
    model.generation_config.max_new_tokens = 12
    return model


def ends() -> list[int]:
    """Two tokens that some outputs have."""
    written = network().generate(**tokenizer()(TEXTS, padding=True, return_tensors="pt"))[:, 3:]
    return torch.bincount(written.flatten()).topk(2).indices.tolist()


def until_end(sequences: torch.Tensor, last: list[int]) -> list[list[int]]:
    """Without what follows the end token."""
    rows = sequences.tolist()
    return [row[: next((i for i, token in enumerate(row) if i and token in last), len(row)) + 1] for row in rows]


CASES = {
    "start": lambda: {"decoder_start_token_id": START},
    "start by bos": lambda: {"decoder_start_token_id": None, "bos_token_id": BOS},
    "end": lambda: {"eos_token_id": ends()[0]},
    "list of one end": lambda: {"eos_token_id": ends()[:1]},
    "several ends": lambda: {"eos_token_id": ends()},
    "no padding": lambda: {"eos_token_id": ends()[0], "pad_token_id": None},
    "no end": lambda: {"eos_token_id": None},
    "default length": lambda: {"max_new_tokens": None},
}
LACKS = {"several ends", "no end"}  # of CTranslate2


@pytest.fixture(scope="module")
def graphs(tmp_path_factory, export_trained):
    """The settings of generation are not in the graphs, so that all cases have the same."""
    pytest.importorskip("onnxscript")
    folder = export_trained("onnx", tmp_path_factory.mktemp("graphs") / "onnx")
    return list(folder.glob("*.onnx*"))


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("engine", NEEDS)
def test_outputs_start_and_end_as_those_of_the_model(engine, case, request, tmp_path, monkeypatch):
    pytest.importorskip(NEEDS[engine])
    if engine != "ctranslate2":
        files = request.getfixturevalue("graphs")
        for module in (exports, web):
            monkeypatch.setattr(module, "save_onnx", lambda m, to, s: [shutil.copy(file, to) for file in files])
    model = network()
    model.generation_config.update(**CASES[case]())
    if engine == "ctranslate2" and case in LACKS:
        with pytest.raises(InputError, match="eos_token_id must be one token, got"):
            export(model, engine, tmp_path / "new", tokenizer=tokenizer())
        return
    dtype = {"web": "float32"}.get(engine)
    written = export(model, engine, tmp_path / "new", tokenizer=tokenizer(), dtype=dtype).folder
    texts, last = TEXTS[:9], end_tokens(model.generation_config)
    beams = {"num_beams": 3, "early_stopping": True}
    with load_translator(written, threads=1) as translator:
        inputs = tokenizer()(texts, padding=True, return_tensors="pt")
        expected = model.generate(**inputs)
        assert torch.equal(translator.model.generate(**inputs), expected)
        assert len({tuple(row) for row in until_end(expected, last)}) > 5
        by_beams = model.generate(**inputs, **beams)
        # Transformers fills up beams with the end token where the padding is 0.
        assert until_end(translator.model.generate(**inputs, **beams), last) == until_end(by_beams, last)
        if last == [END]:  # else the end is a word
            texts_of_model = translate_batch(model, tokenizer(), texts, progress=False)
            assert translator.translate(texts) == texts_of_model
            assert ["".join(translator.stream(text)) for text in texts] == texts_of_model
    if case.startswith("start"):
        assert set(expected[:, 0].tolist()) == {START if case == "start" else BOS}
    settings = json.loads((written / "generation_config.json").read_text())
    assert settings["decoder_start_token_id"] == expected[0, 0]
    if engine == "web":
        config = json.loads((written / "config.json").read_text())
        assert all(config[name] == settings.get(name) for name in web.TOKENS)
        assert settings["max_length"] == (21 if case == "default length" else 13)
        assert "max_new_tokens" not in settings


def test_the_config_of_the_model_does_not_decide_where_outputs_end():
    model = small_model(eos_token_id=[2, 3])
    model.generation_config.eos_token_id = 2
    assert refusals(model.config, model.generation_config) == []
    assert [reason.split()[0] for reason in refusals(model.config)] == ["eos_token_id"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"decoder_start_token_id": None, "bos_token_id": None}, "decoder_start_token_id must be .*, got None"),
        ({"decoder_start_token_id": [1, 1]}, r"decoder_start_token_id must be .*, got \[1, 1\]"),
        ({"decoder_start_token_id": 40}, "decoder_start_token_id must be a token .* from 0 to 39, got 40"),
        ({"eos_token_id": [2, -1]}, "eos_token_id must be a token .* from 0 to 39, got -1"),
    ],
)
def test_a_start_or_an_end_that_is_not_a_token_is_refused(settings, message):
    model = small_model()
    model.generation_config.update(**settings)
    with pytest.raises(InputError, match=message):
        exported_generation(model)


def test_ctranslate2_refuses_another_start_in_a_call(tmp_path):
    pytest.importorskip("ctranslate2")
    written = export(network(), "ctranslate2", tmp_path / "new", tokenizer=tokenizer()).folder
    with load_translator(written, threads=1) as translator:
        model, inputs = translator.model, tokenizer()(TEXTS[:2], padding=True, return_tensors="pt")
        with pytest.raises(InputError, match="decoder_start_token_id must be the exported model's 1, got 7"):
            model.generate(**inputs, decoder_start_token_id=7)
        given = type(model.generation_config)(max_new_tokens=5)
        expected = model.generate(**inputs, max_new_tokens=5)
        assert torch.equal(model.generate(**inputs, generation_config=given), expected)
        model.generation_config.decoder_start_token_id = 7
        with pytest.raises(InputError, match="decoder_start_token_id must be the exported model's 1, got 7"):
            model.generate(**inputs)
