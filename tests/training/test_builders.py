"""From a recipe: tokenizers and models that are, or are not, there; what generation takes; features by BPE-dropout."""

import re
import socket
from dataclasses import replace

import pytest
from training_jobs import SIZES, corpus, tiny_tokenizer

from crossmask.data.tokenizer_training import train_tokenizer
from crossmask.tasks import get_task
from crossmask.tasks.base import Example, LengthLimits
from crossmask.training.arguments import ModelArguments, TokenizerArguments
from crossmask.training.batching import training_features
from crossmask.training.build_model import build_model
from crossmask.training.build_tokenizer import load_tokenizer

TRANSLATION = get_task("translation")


@pytest.fixture
def no_network(monkeypatch):
    def connect(*arguments, **options):
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket, "getaddrinfo", connect)
    monkeypatch.setattr(socket.socket, "connect", connect)


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize(
    "name", ["/no/tokenizer", "./tokenizer", "../tokenizer", "runs/big/tokenizer", "~/no/tokenizer"]
)
def test_a_path_that_does_not_exist_is_not_looked_for_on_the_hub(name):
    with pytest.raises(FileNotFoundError) as error:
        load_tokenizer("tokenizer", name)
    assert str(error.value) == f"tokenizer: {name} does not exist; give a folder that holds a tokenizer, or a Hub id"


@pytest.mark.usefixtures("no_network")
def test_a_file_and_a_folder_without_a_tokenizer_are_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(FileNotFoundError, match=r"model_name_or_path: .*file is a file; give a folder"):
        load_tokenizer("model_name_or_path", str(tmp_path / "file"))
    with pytest.raises(OSError, match=r"tokenizer: no tokenizer in .*: ") as error:
        load_tokenizer("tokenizer", str(tmp_path))
    assert "\n" not in str(error.value)


def test_a_hub_id_that_cannot_be_reached_is_one_line(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(OSError, match=r"tokenizer: no tokenizer in 'nobody/nothing': .*HF_HUB_OFFLINE=1") as error:
        load_tokenizer("tokenizer", "nobody/nothing")
    assert "\n" not in str(error.value)


def test_bpe_dropout_names_the_example_that_it_lengthened(tmp_path):
    tokenizer = train_tokenizer(["ein Haus"] * 20, vocab_size=300)
    examples = [Example(source, "ein", ("ein",)) for source in ("e", "ein Haus")]
    limits = {"max_source_length": len(tokenizer("ein Haus").input_ids), "max_target_length": 32}
    arguments, limits = TokenizerArguments(bpe_dropout=0.2, bpe_dropout_copies=64), LengthLimits(**limits)
    with pytest.raises(ValueError, match=r"^example 1, as bpe_dropout=0.2 cut it in copy \d+ of 64: its source has"):
        training_features(arguments, limits, TRANSLATION, tokenizer, examples, 42)
    longer, shorter = replace(limits, max_source_length=32), replace(limits, max_source_length=2)
    assert len(training_features(arguments, longer, TRANSLATION, tokenizer, examples, 42)) == 128
    with pytest.raises(ValueError, match=r"^example 1: its source has"):
        training_features(TokenizerArguments(), shorter, TRANSLATION, tokenizer, examples, 42)


def test_a_local_folder_is_loaded(tmp_path, monkeypatch):
    train_tokenizer(["ein Haus"] * 20, vocab_size=300).save_pretrained(tmp_path / "tokens")
    monkeypatch.chdir(tmp_path)
    for name in ("tokens", "./tokens", str(tmp_path / "tokens")):
        assert len(load_tokenizer("tokenizer", name)) > 260


LIMITS, LONG = LengthLimits(16, 16), LengthLimits(256, 256)


@pytest.mark.parametrize(
    ("generation", "message"),
    [
        ({"num_beam": 5}, "generation has no setting 'num_beam': did you mean 'num_beams'?"),
        ({"_from_model_config": True}, "generation has no setting '_from_model_config'"),
        ({"num_beams": "five"}, "generation.num_beams must be a whole number, got 'five'"),
        ({"num_beams": 2.5}, "generation.num_beams must be a whole number, got 2.5"),
        ({"num_beams": 0}, "generation.num_beams must be at least 1, got 0"),
        ({"do_sample": "yes"}, "generation.do_sample must be true or false, got 'yes'"),
        ({"no_repeat_ngram_size": -1}, "generation.no_repeat_ngram_size must be at least 0, got -1"),
        (
            {"num_return_sequences": 2},
            "generation.num_return_sequences must be 1, got 2; an example is scored by one text",
        ),
        (
            {"max_new_tokens": 17},
            "generation.max_new_tokens must be at most 16 with max_position_embeddings=16, got 17",
        ),
        ({"max_length": 18}, "generation.max_length must be at most 17 with max_position_embeddings=16, got 18"),
    ],
)
def test_generation_takes_the_fields_and_values_of_generation_config(generation, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        build_model(ModelArguments(model=SIZES, generation=generation), LIMITS, TRANSLATION, tiny_tokenizer())


@pytest.mark.parametrize(("generation", "new"), [({"max_length": 17}, 16), ({"max_length": 9}, 8), ({}, 16)])
def test_the_recipe_says_how_many_tokens_are_generated(generation, new):
    tokenizer = tiny_tokenizer()
    generation = {**generation, "suppress_tokens": [tokenizer.eos_token_id]}
    arguments = ModelArguments(model=SIZES, generation=generation)
    model = build_model(arguments, LIMITS, TRANSLATION, tokenizer).eval()
    assert model.generate(**tokenizer("ha ho", return_tensors="pt")).shape == (1, 1 + new)
    assert (model.generation_config.max_new_tokens is None) is ("max_length" in generation)


def test_generation_takes_null_and_a_whole_number_for_a_number():
    generation = {"num_beams": 2, "length_penalty": -1, "no_repeat_ngram_size": None, "early_stopping": True}
    arguments = ModelArguments(model=SIZES, generation=generation)
    config = build_model(arguments, LIMITS, TRANSLATION, tiny_tokenizer()).generation_config
    assert {name: getattr(config, name) for name in generation} == generation


def features_of(examples: list[Example], seed: int = 1, limits: LengthLimits = LONG, **fields) -> list[dict]:
    features = training_features(TokenizerArguments(**fields), limits, TRANSLATION, tiny_tokenizer(), examples, seed)
    return features.to_list()


DROPOUT = {"bpe_dropout": 0.5, "bpe_dropout_copies": 3}


def test_every_copy_under_bpe_dropout_is_cut_otherwise():
    examples = corpus()
    plain, cut = features_of(examples), features_of(examples, **DROPOUT)
    assert len(cut) == 3 * len(examples) == 3 * len(plain)
    copies = [cut[at : at + len(examples)] for at in range(0, len(cut), len(examples))]
    for at, copy in enumerate(copies):
        assert copy not in (plain, *copies[:at])
    tokenizer = tiny_tokenizer()
    for column in ("input_ids", "labels"):
        texts = [tokenizer.decode(row[column]) for row in plain]
        assert [tokenizer.decode(row[column]) for row in cut] == texts * 3
    assert len(features_of(examples[:2], bpe_dropout=0.5)) == 16


def test_the_seed_says_how_texts_are_cut():
    examples = corpus(9)
    first = features_of(examples, **DROPOUT)
    assert features_of(examples, **DROPOUT) == first
    assert features_of(examples, seed=2, **DROPOUT) != first


def test_bpe_dropout_leaves_out_only_what_is_too_long():
    examples = corpus()
    whole = features_of(examples, **DROPOUT)
    kept = [row for row in whole if len(row["input_ids"]) <= 14 and len(row["labels"]) <= 12]
    assert 0 < len(kept) < len(whole)
    assert features_of(examples, limits=LengthLimits(14, 12, "drop"), **DROPOUT) == kept
