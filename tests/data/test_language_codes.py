"""Tokenizers with language codes: which they know, where the codes go, what a decoder starts with."""

import pytest
from language_tokenizers import LANGUAGES, tokenizer_of
from training_jobs import tiny_tokenizer
from transformers import AutoTokenizer

from crossmask.data.language_codes import known_languages, language_token_ids, set_languages
from crossmask.data.tokenization import Encoder, special_ends
from crossmask.utils.errors import InputError


@pytest.mark.parametrize("kind", LANGUAGES)
def test_sources_and_targets_have_the_codes_of_their_languages_also_after_loading(tmp_path, kind):
    made = tokenizer_of(kind)
    source, target = LANGUAGES[kind]
    set_languages(made, source, target)
    made.save_pretrained(tmp_path)
    for tokenizer in (made, AutoTokenizer.from_pretrained(tmp_path)):
        ends = [special_ends(tokenizer, of_target) for of_target in (False, True)]
        codes = [[tokenizer.convert_tokens_to_ids(language)] for language in (source, target)]
        eos = [tokenizer.eos_token_id]
        after = kind == "mbart"
        assert ends == [([], [*eos, *code]) if after else (code, eos) for code in codes]
        name = "decoder_start_token_id" if after else "forced_bos_token_id"
        assert language_token_ids(tokenizer) == {name: codes[1][0]}


@pytest.mark.parametrize("kind", LANGUAGES)
def test_languages_that_it_does_not_know_are_refused_and_some_are_named(kind):
    tokenizer, (source, target) = tokenizer_of(kind), LANGUAGES[kind]
    assert {source, target} <= set(known_languages(tokenizer))
    with pytest.raises(InputError, match=f"target_language must be a language that .*, got 'de'; .*{target}"):
        set_languages(tokenizer, source, "de")
    with pytest.raises(InputError, match=r"source_language must be a language that .*, got None; give one of"):
        set_languages(tokenizer, None, target)
    with pytest.raises(InputError, match=r"got '<s>'"):
        set_languages(tokenizer, source, "<s>")


def test_languages_that_begin_alike_are_named_first():
    with pytest.raises(InputError, match="got 'german'; give one of af_ZA, "):
        set_languages(tokenizer_of("mbart50"), "en_XX", "german")
    with pytest.raises(InputError, match="got 'Deutsch'; give one of de_DE, "):
        set_languages(tokenizer_of("mbart"), "en_XX", "Deutsch")


def test_a_tokenizer_without_codes_takes_no_language():
    tokenizer = tiny_tokenizer()
    set_languages(tokenizer, None, None)
    assert language_token_ids(tokenizer) == {}
    with pytest.raises(InputError, match=r"target_language must be left out for a .*no language codes, got 'de'"):
        set_languages(tokenizer, None, "de")


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("kind", LANGUAGES)
def test_what_is_cut_keeps_codes_and_end(kind, side):
    tokenizer = tokenizer_of(kind)
    set_languages(tokenizer, *LANGUAGES[kind])
    tokenizer.truncation_side = side
    text = "ha ho hi hu"
    row = Encoder(tokenizer, 5, 6, "truncate")(["it"], [text], [text])
    whole = tokenizer(text, add_special_tokens=False)["input_ids"]
    before, after = special_ends(tokenizer)
    kept = 5 - len(before + after)
    assert row["input_ids"] == [[*before, *(whole[-kept:] if side == "left" else whole[:kept]), *after]]
    before, after = special_ends(tokenizer, of_target=True)
    assert row["labels"] == [[*before, *whole[: 6 - len(before + after)], *after]]
