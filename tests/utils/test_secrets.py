"""Secrets are hidden in texts, commands, recipes and records; what only looks like one by its name is not."""

import json
import shlex

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from crossmask.utils.secrets import HIDDEN, Secrets, is_secret_name

NAMES = [
    "hub_token",
    "api-key",
    "awsSecretAccessKey",
    "password",
    "DB_PASSWORD",
    "token",
    "secret",
    "client_secret_id",
]
OTHERS = [
    "tokenizer", "batch_tokens", "max_new_tokens", "pad_token_id", "pad_token", "eos_token", "num_key_value_heads",
    "keyword", "monkey", "special_tokens", "tokenizer_examples",
]  # fmt: skip
LOOKS = [
    "hf_abcDEF123456", "hf_" + "a" * 34, "ghp_0123456789abcdefABCDEF", "https://me:pass%40word@host/x",
    "https://host/x?access_token=abcdef&b=1", "Authorization: Bearer abc.def-123456",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_names_of_secrets(name):
    assert is_secret_name(name)
    assert Secrets().hide({"a": [{name: "value"}]}) == {"a": [{name: HIDDEN}]}
    assert Secrets.of({"a": [{name: "a long value"}]}).hide("it is a long value.") == f"it is {HIDDEN}."


@pytest.mark.parametrize("name", OTHERS)
def test_names_of_other_things(name):
    assert not is_secret_name(name)
    assert Secrets().hide({name: "value"}) == {name: "value"}


@pytest.mark.parametrize("text", LOOKS)
def test_what_looks_like_a_secret_is_hidden_anywhere(text):
    hidden = Secrets().hide(f"see {text}, please")
    assert HIDDEN in hidden
    assert not any(part in hidden for part in ("abcDEF", "aaaa", "0123456789", "pass%40word", "abcdef", "abc.def"))
    assert Secrets().hide([{"deep": (text,)}])[0]["deep"][0] != text


@pytest.mark.parametrize("text", ["hf_hub", "hf_transfer", "hf_datasets", "https://huggingface.co/a/b", "key: value"])
def test_other_texts_stay(text):
    assert Secrets().hide(text) == text


SECRET = st.text(st.characters(min_codepoint=33, max_codepoint=0x2FF, exclude_categories=["C", "Z"]), min_size=6).map(
    lambda text: f"s3cr{text}"
)


@given(SECRET, st.sampled_from(NAMES), st.sampled_from(["apart", "joined", "JSON"]))
def test_a_command_has_no_secret_left(secret, name, how):
    option = f"--{name}"
    words = {
        "apart": [option, secret],
        "joined": [f"{option}={secret}"],
        "JSON": ["--train", json.dumps({name: secret, "path": "a.tsv"})],
    }[how]
    hidden = Secrets.of_command(words).hide_command(["recipe.yaml", *words, "--seed", "3"])
    assert secret not in hidden
    assert all(secret not in word for word in shlex.split(hidden))
    assert shlex.split(hidden)[-2:] == ["--seed", "3"]


@given(SECRET, st.sampled_from(NAMES), st.sampled_from([None, "'", '"', "|"]), st.booleans())
def test_a_recipe_has_no_secret_left(secret, name, style, ascii_only):
    record = {"train": [{"format": "tsv", name: secret}], "seed": 3}
    text = "# a comment\n" + yaml.safe_dump(record, default_style=style, allow_unicode=not ascii_only)
    hidden = Secrets().hide_yaml(text)
    assert yaml.safe_load(hidden)["train"] == [{"format": "tsv", name: HIDDEN}]
    assert hidden.startswith("# a comment\n")
    assert str(yaml.safe_load(hidden)["seed"]) == "3"


def test_a_short_secret_is_hidden_where_it_stands_only():
    secrets = Secrets.of({"password": "the"})
    assert secrets.hide_yaml("password: the\ntext: the rest") == f'password: "{HIDDEN}"\ntext: the rest'
