"""Engines do what the model in PyTorch does with a call of `generate()`, or refuse it; nothing is ignored."""

import json

import pytest
import torch
from small_models import END, pad
from streaming_cases import TEXTS as SENTENCES
from streaming_cases import tiny
from trained_models import TEXTS, tokenizer, trained_model
from transformers import CompileConfig, GenerationConfig, LogitsProcessorList, WatermarkingConfig

from crossmask.data.tokenizer_training import train_tokenizer
from crossmask.serving import export, load_translator
from crossmask.utils.errors import InputError

NEEDS = {"ctranslate2": "ctranslate2", "onnx": "onnxscript"}
BEAMS = {"num_beams": 3, "early_stopping": True}
WORD, FIRST = 28, 50  # that some outputs have, and begin with
TOKENIZER = train_tokenizer(["abcdef"], vocab_size=20, byte_fallback=False)  # Transformers asks for these letters

# For every setting of generation, one that is not neutral, or several.
SETTINGS = {
    "max_length": 9,
    "max_new_tokens": 3,
    "min_length": 9,
    "min_new_tokens": 8,
    "early_stopping": BEAMS,
    "max_time": 1e-9,
    "stop_strings": {"stop_strings": ["ab"], "tokenizer": TOKENIZER},
    "do_sample": True,
    "num_beams": BEAMS,
    "use_mtp": True,
    "use_cache": False,
    "cache_implementation": "static",
    "cache_config": [1],
    "max_cache_len": 40,
    "temperature": 0.5,
    "top_k": 3,
    "top_p": 0.5,
    "min_p": 0.2,
    "top_h": 0.5,
    "typical_p": 0.5,
    "epsilon_cutoff": 0.1,
    "eta_cutoff": 0.1,
    "repetition_penalty": 1.5,
    "encoder_repetition_penalty": 1.5,
    "length_penalty": {**BEAMS, "length_penalty": -2.0},
    "no_repeat_ngram_size": 1,
    "bad_words_ids": [[WORD]],
    "renormalize_logits": True,
    "forced_bos_token_id": WORD,
    "forced_eos_token_id": {"forced_eos_token_id": WORD, "max_new_tokens": 4},
    "remove_invalid_values": True,
    "exponential_decay_length_penalty": (1, 2.0),
    "suppress_tokens": [WORD],
    "begin_suppress_tokens": [FIRST],
    "sequence_bias": [[[WORD], -9.0]],
    "token_healing": True,
    "guidance_scale": 2.0,
    "watermarking_config": WatermarkingConfig(bias=9.0),
    "num_return_sequences": {**BEAMS, "num_return_sequences": 2},
    "output_attentions": True,
    "output_hidden_states": True,
    "output_scores": True,
    "output_logits": True,
    "return_dict_in_generate": True,
    "pad_token_id": 5,
    "bos_token_id": 5,
    "eos_token_id": WORD,
    "encoder_no_repeat_ngram_size": 1,
    "decoder_start_token_id": WORD,
    "is_assistant": True,
    "num_assistant_tokens": 3,
    "num_assistant_tokens_schedule": "heuristic",
    "assistant_confidence_threshold": 0.1,
    "prompt_lookup_num_tokens": 2,
    "max_matching_ngram_size": 3,
    "assistant_early_exit": 1,
    "assistant_lookbehind": 3,
    "target_lookbehind": 3,
    "assistant_ensemble_weight": 0.5,
    "speculation_type": "dflash",
    "compile_config": CompileConfig(),
    "disable_compile": True,
    "continuous_batching_config": [1],
    "low_memory": True,
    "penalty_alpha": 0.5,
    "dola_layers": "low",
    "diversity_penalty": 0.5,
    "num_beam_groups": {"num_beams": 4, "num_beam_groups": 2, "diversity_penalty": 0.5},
    "constraints": [1],
    "force_words_ids": [[[WORD]]],
    "prefill_chunk_size": 2,
}
# Beside them, where one value does not show all.
CALLS = {
    **{name: value if isinstance(value, dict) else {name: value} for name, value in SETTINGS.items()},
    "several ends": {"eos_token_id": [WORD, END]},
    "several ends, beams": {"eos_token_id": [WORD, END], **BEAMS},
    "no end": {"eos_token_id": None},
    "no end, beams": {"eos_token_id": None, **BEAMS},
    "ends that no word has": {"eos_token_id": [END, 99]},
    "padding of 0, no end": {"eos_token_id": None, "pad_token_id": None},
    "ways to sample": {"do_sample": True, "top_k": 3, "temperature": 2.0},
    "settings as one": {"generation_config": GenerationConfig(num_beams=2, early_stopping=True)},
    "nothing": {"streamer": None, "logits_processor": LogitsProcessorList(), "synced_gpus": False, "cross_mask": None},
    "an unknown argument": {"num_beam": 2},
    "a streamer": {"streamer": object()},
}
# CTranslate2 writes what the model writes under these; it refuses all others.
DONE_BY_CTRANSLATE2 = {
    *("max_new_tokens", "num_beams", "early_stopping", "length_penalty"),
    *("pad_token_id", "bos_token_id", "eos_token_id", "several ends", "several ends, beams"),
    *("no end", "no end, beams", "padding of 0, no end", "settings as one", "nothing"),
    # Of sampling, which the model ignores too where it does not sample.
    *("temperature", "top_k", "top_p", "min_p", "top_h", "typical_p", "epsilon_cutoff", "eta_cutoff"),
}
# The graphs have no more than the logits and the cache.
REFUSED_BY_ONNX = {"use_mtp", "use_cache", "output_attentions", "output_hidden_states"}


@pytest.fixture(scope="module")
def folders(tmp_path_factory, export_trained):
    place, made = tmp_path_factory.mktemp("engines"), {}

    def folder(engine: str):
        if engine not in made:
            pytest.importorskip(NEEDS[engine])
            made[engine] = export_trained(engine, place / engine)
        return made[engine]

    return folder


@pytest.fixture(scope="module", params=NEEDS)
def translator(request, folders):
    with load_translator(folders(request.param), threads=1) as made:
        yield made


def source() -> dict[str, torch.Tensor]:
    rows = tokenizer()(TEXTS[:6])["input_ids"]
    return dict(zip(("input_ids", "attention_mask"), pad([torch.tensor(row) for row in rows], "right"), strict=True))


def outcome(model, call) -> list[list[int]] | Exception:
    """What is written, without what follows the end, or the error."""
    torch.manual_seed(0)
    try:
        outputs = model.generate(**call)
    except Exception as error:  # whatever it is, the engine must not go on
        return error
    ends = call.get("eos_token_id", END)
    last = {None: []}.get(ends, [ends]) if not isinstance(ends, list) else ends
    rows = getattr(outputs, "sequences", outputs).tolist()
    return [row[: next((i for i, token in enumerate(row) if i and token in last), len(row)) + 1] for row in rows]


def test_every_setting_of_transformers_has_a_value_here():
    names = {name for name in vars(GenerationConfig()) if not name.startswith("_")}
    assert names - {"transformers_version"} == SETTINGS.keys()


@pytest.mark.parametrize("case", CALLS)
def test_a_setting_does_what_it_does_in_pytorch_or_is_refused(translator, case):
    call = {**source(), **CALLS[case]}
    expected, found = outcome(trained_model(), call), outcome(translator.model, call)
    is_ctranslate2 = translator.engine == "ctranslate2"
    refused = case not in DONE_BY_CTRANSLATE2 if is_ctranslate2 else case in REFUSED_BY_ONNX
    if refused or isinstance(expected, Exception):
        assert isinstance(found, Exception), "it is ignored"
        assert "\n" not in str(found) or type(found) is type(expected)
        assert not refused or (isinstance(found, ValueError) and any(name in str(found) for name in CALLS[case]))
    else:
        assert found == expected


def test_a_setting_of_a_later_transformers_is_refused_on_ctranslate2(folders):
    with load_translator(folders("ctranslate2"), threads=1) as translator:
        later = GenerationConfig()
        later.contrast_depth = 2
        with pytest.raises(InputError, match=r"generation_config.contrast_depth must have no effect, got 2; leave it"):
            translator.model.generate(**source(), generation_config=later)
        translator.generation.contrast_depth = 2  # as an edited generation_config.json has it
        with pytest.raises(InputError, match="contrast_depth must have no effect, got 2"):
            translator.translate([])


def batch(**changed):
    return {**source(), **changed}


def with_id(number: int, column: int = 0):
    ids = source()["input_ids"].clone()
    ids[0, column] = number
    return batch(input_ids=ids)


IDS, SHOWN = source()["input_ids"], source()["attention_mask"]
LAST = trained_model().config.vocab_size - 1
SOURCES = {
    "a negative id": with_id(-1),
    "a label for padding": with_id(-100, -1),
    "an id too large": with_id(LAST + 1),
    "an id without a token": with_id(LAST),
    "one text": batch(input_ids=IDS[0], attention_mask=None),
    "three dimensions": batch(input_ids=IDS[None], attention_mask=None),
    "no text": batch(input_ids=IDS[:0], attention_mask=None),
    "no token": batch(input_ids=IDS[:, :0], attention_mask=None),
    "floats": batch(input_ids=IDS.float()),
    "booleans": batch(input_ids=IDS.bool()),
    "int32": batch(input_ids=IDS.int()),
    "a list": batch(input_ids=IDS.tolist()),
    "an array": batch(input_ids=IDS.numpy()),
    "too long": batch(input_ids=torch.full((1, 65), 5), attention_mask=None),
    "by position": {"inputs": IDS, "attention_mask": SHOWN},
    "twice": batch(inputs=IDS),
    "none": {"attention_mask": SHOWN},
    "no mask": batch(attention_mask=None),
    "a mask of other rows": batch(attention_mask=SHOWN[:2]),
    "a mask of other columns": batch(attention_mask=SHOWN[:, :3]),
    "a mask of one text": batch(attention_mask=SHOWN[0]),
    "a mask for all rows": batch(attention_mask=SHOWN[2:3]),
    "a mask of three dimensions": batch(attention_mask=SHOWN[:, None]),
    "a list as a mask": batch(attention_mask=SHOWN.tolist()),
    "an additive mask": batch(attention_mask=(1 - SHOWN) * -1e9),
    "a mask of floats": batch(attention_mask=SHOWN.float()),
    "a boolean mask": batch(attention_mask=SHOWN.bool()),
    "a mask with holes": batch(attention_mask=SHOWN * torch.tensor([1, 1, 0, 1, 1, 0] * 2)),
    "a row without tokens": batch(attention_mask=SHOWN * torch.tensor([1, 1, 0, 1, 1, 1])[:, None]),
}


@pytest.mark.parametrize("beams", [{}, BEAMS], ids=["greedy", "beams"])
@pytest.mark.parametrize("case", SOURCES)
def test_a_source_gives_the_same_or_is_refused_in_the_same_words(translator, case, beams):
    call = {**SOURCES[case], **beams}
    expected, found = outcome(trained_model(), call), outcome(translator.model, call)
    if translator.engine == "ctranslate2" and case == "a row without tokens":
        assert isinstance(found, InputError)
        assert "attention_mask must show a token of every row on CTranslate2, got none in row 2" in str(found)
    elif translator.engine == "ctranslate2" and case == "a mask of three dimensions":  # else Transformers' own words
        assert "the attention mask must be (batch, 12), got (6, 1, 12)" in str(found)
    elif isinstance(expected, Exception):
        assert isinstance(expected, ValueError)
        assert (type(found), str(found)) == (type(expected), str(expected))
    else:
        assert found == expected


@pytest.mark.parametrize("target", [torch.tensor([[-1]]), torch.tensor([[LAST + 1]]), torch.ones(1), torch.ones(1, 1)])
def test_the_graph_of_the_decoder_takes_no_other_ids_than_the_model(folders, target):
    call = {"input_ids": IDS[:1], "decoder_input_ids": target}
    with pytest.raises(ValueError, match="ids must be") as expected:
        trained_model()(**call)
    with load_translator(folders("onnx"), threads=1) as translator, pytest.raises(ValueError, match="ids") as found:
        translator.model(**call)
    assert str(found.value) == str(expected.value)


UNUSABLE = {
    "a rule": {"cross_mask": "window(3)"},
    "a rule of the encoder": {"encoder_mask": "causal()"},
    "a rule of the decoder": {"decoder_mask": "window(3)"},
    "a tensor": {"cross_mask": torch.ones(1, 1, 1, dtype=torch.bool)},
    "an unknown option": {"num_beam": 2},
    "no cache": {"use_cache": False},
    "attention weights": {"output_attentions": True},
    "hidden states": {"output_hidden_states": True},
    "drafts": {"prompt_lookup_num_tokens": 2},
    "an assistant": {"assistant_model": trained_model()},
    "too many tokens": {"max_new_tokens": 65},
    "several sequences": {"num_beams": 2, "num_return_sequences": 2},
}


@pytest.mark.parametrize("case", UNUSABLE)
def test_an_option_is_refused_before_a_text_is_read(translator, case):
    (name, *_) = [name for name in UNUSABLE[case] if name != "num_beams"]
    for texts in ([], iter(())):
        with pytest.raises(ValueError, match=name):
            translator.translate(texts, **UNUSABLE[case])
    with pytest.raises(ValueError, match=name):
        translator.stream("", **{key: value for key, value in UNUSABLE[case].items() if key != "num_beams"})


@pytest.mark.parametrize("beams", [{}, BEAMS], ids=["greedy", "beams"])
@pytest.mark.parametrize("ids", [[[END]], [[1]], [[1, END]]])
def test_a_source_of_begin_and_end_alone_is_written_as_in_pytorch_or_refused(translator, ids, beams):
    call = {"input_ids": torch.tensor(ids), "max_new_tokens": 4, **beams}
    found = outcome(translator.model, call)
    if translator.engine == "ctranslate2":
        assert isinstance(found, InputError)
        assert "input_ids must have more than begin and end tokens in every row" in str(found)
    else:
        assert found == outcome(trained_model(), call)


def masks_of_other_sizes():
    """For each mask of a call shapes that do not fit six sources of this length."""
    rows, length = IDS.shape
    heads = trained_model().config.num_attention_heads
    for columns in (length - 1, length + 3):
        yield "cross_mask", (rows, 12, columns)
        yield "encoder_mask", (rows, length, columns)
    for others in ((rows + 1, length, length), (rows, heads + 1, length, length), (rows, length - 1, length)):
        yield "encoder_mask", others
    yield "cross_mask", (rows + 1, 12, length)
    yield "cross_mask", (rows, heads + 1, 12, length)
    yield "decoder_mask", (rows, 3, 3)


@pytest.mark.parametrize(("name", "shape"), list(masks_of_other_sizes()))
def test_a_mask_of_another_size_is_refused_in_the_same_words_in_graphs(folders, name, shape):
    call = batch(max_new_tokens=8, **{name: torch.ones(shape, dtype=torch.bool)})
    with load_translator(folders("onnx"), threads=1) as made:
        expected, found = outcome(trained_model(), call), outcome(made.model, call)
    assert isinstance(expected, ValueError)
    assert (type(found), str(found)) == (type(expected), str(expected))


def test_as_many_rows_of_the_target_as_of_the_source(folders):
    with load_translator(folders("onnx"), threads=1) as made, pytest.raises(InputError, match="a row for each of 6"):
        made.model(**batch(decoder_input_ids=torch.tensor([[1, 5]])))


@pytest.mark.parametrize("engine", ["torch", pytest.param("onnx", marks=pytest.mark.slow)])
def test_stop_strings_find_the_tokenizer(engine, tmp_path):
    """In a call, and in the settings of a saved model, as a server has them."""
    (model, words), folder = tiny(), tmp_path / engine
    if engine == "torch":
        for part in (model, words):
            part.save_pretrained(folder)
    else:
        pytest.importorskip(NEEDS[engine])
        export(model, engine, folder, tokenizer=words)
    with load_translator(folder, dtype="float32" if engine == "torch" else "auto") as made:
        (whole,) = made.translate(SENTENCES[:1], max_new_tokens=12)
        stop = whole.split()[1]
        (cut,) = made.translate(SENTENCES[:1], max_new_tokens=12, stop_strings=[stop])
        assert cut.split() == whole.split()[:2]
        with pytest.raises(InputError, match="tokenizer must be left out"):
            made.translate(SENTENCES[:1], stop_strings=[stop], tokenizer=words)
    settings = json.loads((folder / "generation_config.json").read_text())
    (folder / "generation_config.json").write_text(json.dumps({**settings, "stop_strings": [stop]}))
    with load_translator(folder, dtype="float32" if engine == "torch" else "auto") as made:
        assert made.translate(SENTENCES[:1], max_new_tokens=12) == [cut]
        assert "".join(made.stream(SENTENCES[0], max_new_tokens=12)) == cut


def test_a_setting_of_the_folder_that_cannot_be_used_is_named_as_such(tmp_path):
    for part in (trained_model(), tokenizer()):
        part.save_pretrained(tmp_path)
    settings = json.loads((tmp_path / "generation_config.json").read_text())
    (tmp_path / "generation_config.json").write_text(json.dumps({**settings, "return_dict_in_generate": True}))
    with (
        load_translator(tmp_path) as made,
        pytest.raises(InputError, match="return_dict_in_generate in the model's generation_config must be left out"),
    ):
        made.translate(TEXTS[:1])


def test_no_other_option_is_suggested_for_one_that_transformers_has(folders):
    with load_translator(folders("ctranslate2"), threads=1) as made:
        with pytest.raises(InputError, match="got 'min_new_tokens'; leave it out, or use another engine"):
            made.translate(TEXTS[:1], min_new_tokens=3)
        with pytest.raises(InputError, match="got 'num_beam'; did you mean 'num_beams'"):
            made.translate(TEXTS[:1], num_beam=3)
    with pytest.raises(InputError, match=r"dtype must be one of auto, .* on this machine, got float8"):
        load_translator(folders("ctranslate2"), dtype="float8")
