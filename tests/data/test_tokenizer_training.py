import re
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import processors
from transformers import AutoTokenizer

from crossmask.data.tokenizer_training import check_special_tokens, train_tokenizer

TEXTS = [
    "Friday, May 3, 2024; 1,234.50 US dollars",
    "Freitag, 3. Mai 2024; 1.234,50\xa0€ für Äpfel",
    "2024年5月3日星期五; 1,234.50美元",
    "12 345,6\u202fkm – l’été d’Élise",
] * 25


@pytest.fixture(scope="module", params=["bpe", "unigram"])
def algorithm(request):
    return request.param


@pytest.fixture(scope="module")
def tokenizer(algorithm):
    return train_tokenizer(TEXTS, 480, algorithm=algorithm, split_digits=True, special_tokens=["<2de>", "<2zh>"])


def decode(tokenizer, ids) -> str:
    return tokenizer.decode(ids, skip_special_tokens=True)


def test_special_tokens_have_their_ids(tokenizer):
    tokens = ["<pad>", "<s>", "</s>", "<unk>", "<2de>", "<2zh>"]
    assert tokenizer.convert_tokens_to_ids(tokens) == list(range(6))
    assert (tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id) == (
        0,
        1,
        2,
        3,
    )
    assert set(tokens) <= set(tokenizer.all_special_tokens)
    assert len(tokenizer) <= 480


def test_eos_ends_every_text_and_tags_stay_whole(tokenizer):
    ids = tokenizer("<2de> May").input_ids
    assert (ids[0], ids[-1], ids.count(2)) == (4, 2, 1)
    assert tokenizer.decode(ids) == "<2de> May</s>"
    assert tokenizer("").input_ids == [2]


@settings(max_examples=300, deadline=None)
@given(text=st.text(st.characters(exclude_categories=["Cs"]), max_size=60))
def test_any_text_comes_back(text):
    assert decode(ROUND_TRIP, ROUND_TRIP(text, split_special_tokens=True).input_ids) == text


ROUND_TRIP = train_tokenizer(TEXTS, 400)


@pytest.mark.parametrize(
    "text",
    [
        "  two  leading, trailing  ",
        "\n\tnew line\r\n",
        "1 234\u202f567,89\xa0€",
        "▁ is not a space",
        "<0x41>",
        "👩‍👩‍👧 中文 and ğ",
        "e\u0301 é",
        *TEXTS[:4],
    ],
)
def test_hand_texts_come_back(tokenizer, text):
    assert decode(tokenizer, tokenizer(text).input_ids) == text


def test_digits_are_single_tokens_and_join_without_spaces(tokenizer):
    ids = tokenizer("on 31.12.1999 19 km").input_ids
    tokens = [tokenizer.decode([at]) for at in ids]
    assert [token for token in tokens if any(map(str.isdigit, token))] == list("3112199919")
    whole = train_tokenizer(["1999 1999"] * 50, 300)
    assert "1999" in [whole.decode([at]) for at in whole("1999").input_ids]


def test_lowercase(algorithm):
    lower = train_tokenizer(TEXTS, 480, algorithm=algorithm, lowercase=True)
    assert decode(lower, lower("FREITAG Äpfel").input_ids) == "freitag äpfel"
    assert not any("F" in token for token in lower.get_vocab() if not token.startswith("<0x"))


def test_without_byte_fallback_the_unknown_is_unk(algorithm):
    plain = train_tokenizer(TEXTS, 200, algorithm=algorithm, byte_fallback=False)
    assert plain.unk_token_id in plain("May Ω").input_ids
    assert len(plain) <= 200
    assert decode(plain, plain("Mai 2024").input_ids) == "Mai 2024"


def test_rare_characters_leave_space_for_merges():
    texts = ["aaab aaab"] * 9 + [chr(0x4E00 + at) for at in range(500)]
    small = train_tokenizer(texts, 300)
    assert len(small) <= 300
    assert len(small("aaab").input_ids) < 5
    assert decode(small, small("一丁七").input_ids) == "一丁七"


def test_special_tokens_are_not_learned_from():
    tagged = train_tokenizer([f"<2de> {text}" for text in TEXTS], 480, special_tokens=["<2de>"])
    assert not any("<2" in token for token in tagged.get_vocab() if token != "<2de>")


def test_saved_and_loaded(tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert loaded.get_vocab() == tokenizer.get_vocab()
    assert loaded.all_special_tokens == tokenizer.all_special_tokens
    for text in ["<2de> " + TEXTS[0], *TEXTS[1:4], "  ▁👩‍👩‍👧"]:
        assert loaded(text).input_ids == tokenizer(text).input_ids
        assert loaded.decode(loaded(text).input_ids) == text + "</s>"


def test_model_max_length_is_kept(tmp_path):
    train_tokenizer(TEXTS, 400, model_max_length=77).save_pretrained(tmp_path)
    assert AutoTokenizer.from_pretrained(tmp_path).model_max_length == 77


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"texts": TEXTS, "vocab_size": 260}, "vocab_size must be at least 261, got 260"),
        ({"texts": [], "vocab_size": 400}, "must have at least one that is not empty, got none"),
        ({"texts": ["", "<s>"][:1], "vocab_size": 400}, "must have at least one that is not empty, got none"),
        (
            {"texts": TEXTS, "vocab_size": 400, "algorithm": "wordpiece"},
            "must be one of bpe, unigram, got 'wordpiece'",
        ),
        ({"texts": TEXTS, "vocab_size": "400"}, "tokenizer vocab_size must be a whole number, got '400'"),
        (
            {"texts": TEXTS, "vocab_size": 400, "special_tokens": 3},
            "tokenizer special_tokens must be a list, .*, got 3",
        ),
        ({"texts": TEXTS, "vocab_size": 400, "special_tokens": [""]}, "must be texts that are not empty"),
        (
            {"texts": TEXTS, "vocab_size": 400, "lowercase": "no"},
            "tokenizer lowercase must be true or false, got 'no'",
        ),
        ({"texts": ["a", "b \udcff"], "vocab_size": 400}, "text 2 to train the tokenizer on must be valid Unicode"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        train_tokenizer(**arguments)


def config(**changes) -> SimpleNamespace:
    fields = {"vocab_size": 480, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1}
    return SimpleNamespace(**fields | changes)


def test_check_accepts_what_fits(tokenizer):
    check_special_tokens(tokenizer, config())
    check_special_tokens(tokenizer, config(vocab_size=512, decoder_start_token_id=0))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pad_token_id": 1}, "config.pad_token_id must be 0, .*, got 1"),
        ({"eos_token_id": None}, "config.eos_token_id must be 2, .*, got None"),
        ({"bos_token_id": 5}, "config.bos_token_id must be 1, .*, got 5"),
        ({"decoder_start_token_id": None}, "decoder_start_token_id must be one of .*, got None"),
        ({"decoder_start_token_id": 480}, "decoder_start_token_id must be one of .*, got 480"),
        ({"vocab_size": 100}, "resize_token_embeddings"),
    ],
)
def test_check_refuses_what_does_not_fit(tokenizer, changes, message):
    with pytest.raises(ValueError, match=message) as caught:
        check_special_tokens(tokenizer, config(**changes))
    assert "\n" not in str(caught.value)


def test_check_refuses_a_tokenizer_that_does_not_end_a_text_until_it_is_fixed_as_it_says():
    bare = train_tokenizer(TEXTS, 400)
    start = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    bare.backend_tokenizer.post_processor = start
    fix = "processors.TemplateProcessing(single='$A </s>', special_tokens=[('</s>', 2)])"
    with pytest.raises(
        ValueError, match=f"the tokenizer must append its eos_token '</s>'.*{re.escape(fix)}"
    ) as caught:
        check_special_tokens(bare, config())
    assert "\n" not in str(caught.value)
    end = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 2)])
    bare.backend_tokenizer.post_processor = end
    check_special_tokens(bare, config())


def test_check_takes_a_tokenizer_that_names_a_language_behind_the_end():
    named = train_tokenizer(TEXTS, 480, special_tokens=["<2de>"])
    language = ("<2de>", named.convert_tokens_to_ids("<2de>"))
    named.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s> <2de>", special_tokens=[("</s>", 2), language]
    )
    check_special_tokens(named, config())


def test_check_refuses_a_tokenizer_without_padding():
    bare = train_tokenizer(TEXTS, 400)
    bare.pad_token = None
    with pytest.raises(ValueError, match="the tokenizer must have a pad_token"):
        check_special_tokens(bare, config())
