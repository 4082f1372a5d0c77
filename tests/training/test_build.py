"""What a recipe's fields name: tokenizers and models that are, or are not, there."""

import socket
from dataclasses import replace

import pytest

from crossmask.data.tokenizer import train_tokenizer
from crossmask.tasks.base import Example
from crossmask.training.arguments import RecipeArguments, RunArguments
from crossmask.training.build import load_tokenizer, training_features


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
    recipe = RecipeArguments(train={}, validation={}, test={}, bpe_dropout=0.2, bpe_dropout_copies=64, **limits)
    run = RunArguments(output_dir=str(tmp_path))
    with pytest.raises(ValueError, match=r"^example 1, as bpe_dropout=0.2 cut it in copy \d+ of 64: its source has"):
        training_features(recipe, run, tokenizer, examples)
    assert len(training_features(replace(recipe, max_source_length=32), run, tokenizer, examples)) == 128
    with pytest.raises(ValueError, match=r"^example 1: its source has"):
        training_features(replace(recipe, bpe_dropout=None, max_source_length=2), run, tokenizer, examples)


def test_a_local_folder_is_loaded(tmp_path, monkeypatch):
    train_tokenizer(["ein Haus"] * 20, vocab_size=300).save_pretrained(tmp_path / "tokens")
    monkeypatch.chdir(tmp_path)
    for name in ("tokens", "./tokens", str(tmp_path / "tokens")):
        assert len(load_tokenizer("tokenizer", name)) > 260
