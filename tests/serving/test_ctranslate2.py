"""A model that was exported to CTranslate2 writes what `generate()` writes, finished hypotheses included."""

import json

import pytest
import torch
from small_models import END, small_config, small_model
from trained_models import TEXTS, WORDS, tokenizer, trained_model

from crossmask.data.tokenizer_training import train_tokenizer
from crossmask.serving import export, load_translator, refusals, register_converter
from crossmask.serving.ctranslate2_spec import make_spec, save_ctranslate2, vocabulary
from crossmask.utils.errors import InputError

ctranslate2 = pytest.importorskip("ctranslate2", reason="CTranslate2 is not installed")

FAMILIES = {
    "plain": {},
    "one key/value head": {"num_key_value_heads": 1, "tie_word_embeddings": False},
    "a head's width of its own": {"head_dim": 6},
    "5 + 1 layers": {"encoder_layers": 5, "decoder_layers": 1, "tie_word_embeddings": False},
    "no ties": {"tie_word_embeddings": False},
    "tied head": {"tie_word_embeddings": "head"},
    "tied embeddings": {"tie_word_embeddings": "embedding"},
    "factorised": {"embedding_size": 8},
    "factorised, activation": {"embedding_size": 8, "embedding_act": "gelu", "tie_word_embeddings": False},
    "linear rope": {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 1000.0}},
    "window": {"decoder_mask": "causal() & window(2)"},
    "no earlier token": {"decoder_mask": "window(0) & causal()"},
    "windows by layer": {"decoder_mask": 'causal() & layers({0: window(1, 3), "rest": full()})'},
    "two windows": {"decoder_mask": "window(4) & causal() & window(1, 2)"},
    **{act: {"hidden_act": act} for act in ("gelu", "gelu_new", "quick_gelu", "relu", "tanh", "sigmoid")},
}
TOKENS = 24
VOCABULARY = train_tokenizer(WORDS, vocab_size=60, byte_fallback=False)


def sources(count: int = 24) -> list[list[int]]:
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(1, 12, (count,), generator=generator).tolist()
    return [[*torch.randint(4, 40, (length,), generator=generator).tolist(), END] for length in lengths]


def generated(model, ids: list[list[int]], tokens: int = TOKENS, **options) -> list[list[int]]:
    """What `generate()` writes for each source, with the end token where there is one."""
    width = max(map(len, ids))
    batch = torch.tensor([row + [0] * (width - len(row)) for row in ids])
    outputs = model.generate(
        input_ids=batch, attention_mask=(batch != 0).long(), max_new_tokens=tokens, do_sample=False, **options
    )
    rows = [row[1:] for row in outputs.tolist()]
    return [row[: row.index(END) + 1] if END in row else row[:tokens] for row in rows]


def translated(folder, ids: list[list[int]], tokens: int = TOKENS, **options) -> list[list[int]]:
    """What CTranslate2 by itself writes, from the folder alone."""
    translator = ctranslate2.Translator(str(folder), intra_threads=1)
    names = json.loads((folder / "shared_vocabulary.json").read_text())
    numbers = {name: number for number, name in enumerate(names)}
    results = translator.translate_batch(
        [[names[token] for token in row] for row in ids],
        max_decoding_length=tokens,
        min_decoding_length=0,
        return_end_token=True,
        **options,
    )
    return [[numbers[name] for name in result.hypotheses[0]] for result in results]


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_writes_the_same_tokens(family, tmp_path):
    model = small_model(vocab_size=62, **FAMILIES[family])
    save_ctranslate2(model, VOCABULARY, tmp_path, "float32")
    ids = sources()
    greedy = generated(model, ids)
    assert translated(tmp_path, ids, beam_size=1) == greedy
    beams = generated(model, ids, num_beams=3, early_stopping=True)
    assert translated(tmp_path, ids, beam_size=3) == beams
    assert len({tuple(row) for row in greedy}) > 3


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    output = tmp_path_factory.mktemp("exports") / "float32"
    return export(trained_model(), "ctranslate2", output, tokenizer=tokenizer()).folder


@pytest.mark.parametrize("penalty", [-1.0, 0.0, 0.6, 1.0, 2.0])
def test_a_trained_model_under_length_penalties(folder, penalty):
    model, ids = trained_model(), tokenizer()(TEXTS)["input_ids"]
    stopping = generated(model, ids, 16, num_beams=4, length_penalty=penalty, early_stopping=True)
    # At exactly 0 CTranslate2 has another rule for when to stop.
    assert translated(folder, ids, 16, beam_size=4, length_penalty=penalty or 1e-12) == stopping
    assert sum(row[-1] == END for row in stopping) > 0.8 * len(ids)
    going_on = generated(model, ids, 16, num_beams=4, length_penalty=penalty)
    outputs = translated(folder, ids, 16, beam_size=4, length_penalty=penalty, patience=2)
    assert sum(a == b for a, b in zip(outputs, going_on, strict=True)) >= 0.9 * len(ids)


def test_the_end_token_counts_to_the_length(folder):
    ids = tokenizer()(TEXTS)["input_ids"]
    expected = generated(trained_model(), ids, 16, num_beams=4, length_penalty=2.0, early_stopping=True)
    translator = ctranslate2.Translator(str(folder), intra_threads=1)
    options = {"beam_size": 4, "length_penalty": 2.0, "max_decoding_length": 16, "min_decoding_length": 0}
    names = [tokenizer().convert_ids_to_tokens(row) for row in ids]
    without = [result.hypotheses[0] for result in translator.translate_batch(names, **options)]
    assert without != [tokenizer().convert_ids_to_tokens(row[:-1]) for row in expected]


def test_greedy_decoding_of_a_trained_model_stops_where_it_is_told(folder):
    model, ids = trained_model(), tokenizer()(TEXTS)["input_ids"]
    for tokens in (1, 3, 16):
        assert translated(folder, ids, tokens, beam_size=1) == generated(model, ids, tokens)


@pytest.mark.parametrize("dtype", ["int8", "int8_float32", "bfloat16"])
def test_other_dtypes_write_almost_the_same_from_smaller_files(folder, dtype, tmp_path):
    small = export(trained_model(), "ctranslate2", tmp_path / dtype, tokenizer=tokenizer(), dtype=dtype)
    assert small.sizes["model.bin"] < 0.6 * (folder / "model.bin").stat().st_size
    with load_translator(folder) as exact, load_translator(small.folder) as translator:
        expected, outputs = exact.translate(TEXTS), translator.translate(TEXTS)
    assert sum(a == b for a, b in zip(outputs, expected, strict=True)) > 0.8 * len(TEXTS)


def test_a_model_in_half_precision_is_exported_as_if_it_were_in_full(tmp_path):
    model = small_model(vocab_size=60).to(torch.bfloat16)
    save_ctranslate2(model, VOCABULARY, tmp_path, "float32")
    assert translated(tmp_path, sources(), beam_size=1) == generated(model.float(), sources())


def test_the_converter_of_ctranslate2_takes_a_saved_model(folder, tmp_path):
    trained_model().save_pretrained(tmp_path / "model")
    tokenizer().save_pretrained(tmp_path / "model")
    register_converter()
    ctranslate2.converters.TransformersConverter(str(tmp_path / "model")).convert(str(tmp_path / "converted"))
    for name in ("model.bin", "config.json", "shared_vocabulary.json"):
        assert (tmp_path / "converted" / name).read_bytes() == (folder / name).read_bytes()


def test_all_reasons_are_given_at_once():
    config = small_config(
        encoder_mask="causal()",
        decoder_mask='layers({0: causal(), "rest": causal() & prefix(2)})',
        cross_mask='layers({0: wait_k(3), "rest": full()})',
        cross_attention_score="additive",
        hidden_act="mish",
        rope_parameters={
            "rope_type": "yarn",
            "factor": 2.0,
            "original_max_position_embeddings": 32,
            "rope_theta": 1e4,
        },
        eos_token_id=[2, 3],
    )
    reasons = refusals(config)
    starts = ("encoder_mask", "cross_mask", "decoder_mask", "cross_attention_score", "hidden_act", "rope", "eos")
    assert len(reasons) == len(starts)
    assert all(reason.startswith(start) for reason, start in zip(reasons, starts, strict=True))
    assert "got causal() in layers 0 to 1" in reasons[0]
    assert "got wait_k(3) in layer 0" in reasons[1]
    assert "in layer 1" in reasons[2]
    model = small_model(memory_length=2, cross_attention_score="additive")
    with pytest.raises(InputError, match=r"memory_length must be None, got 2; .* cross_attention_score must be"):
        make_spec(model, VOCABULARY)


@pytest.mark.parametrize("mask", ["full()", "window(2)", "causal() | window(2)", "causal() & ~window(2)", "wait_k(2)"])
def test_decoder_masks_other_than_windows_are_refused(mask):
    assert [reason.split()[0] for reason in refusals(small_config(decoder_mask=mask))] == ["decoder_mask"]


def test_settings_of_generation_that_it_lacks_are_refused():
    model = small_model()
    assert refusals(model.config, model.generation_config) == []
    model.generation_config.update(repetition_penalty=1.3, forced_bos_token_id=5, min_new_tokens=2, do_sample=True)
    reasons = refusals(model.config, model.generation_config)
    assert [reason.split()[0].partition(".")[2] for reason in reasons] == [
        "min_new_tokens",
        "do_sample",
        "repetition_penalty",
        "forced_bos_token_id",
    ]


def test_every_id_has_a_name_of_its_own():
    names = vocabulary(VOCABULARY, len(VOCABULARY) + 4)
    assert len(set(names)) == len(names)
    assert names[: len(VOCABULARY)] == VOCABULARY.convert_ids_to_tokens(range(len(VOCABULARY)))
    with pytest.raises(InputError, match="must have ids below the model's vocab_size=40, got"):
        vocabulary(VOCABULARY, 40)
