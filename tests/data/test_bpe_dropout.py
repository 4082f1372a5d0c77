import random

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from crossmask.data.bpe_dropout import BPEDropout
from crossmask.data.tokenizer_training import train_tokenizer

WORDS = ["barking", "barks", "marked", "Äpfel", "l’été", "12", "a", "walking", "talking", "walks"]
TEXTS = [" ".join(random.Random(seed).choices(WORDS, k=6)) for seed in range(60)]


@pytest.fixture(scope="module", params=[False, True])
def tokenizer(request):
    return train_tokenizer(TEXTS, 340, special_tokens=["<2de>"], lowercase=request.param)


def ids_of(tokenizer, texts, **options):
    return tokenizer(texts, **options)["input_ids"]


STRANGE = [*TEXTS, "", " ", "<2de> barking  at 美 walls</s>", "xyz<2de><2de> a", "a\nb\t", "İstanbul"]


def test_without_dropout_it_cuts_as_the_tokenizer_does(tokenizer):
    for options in ({}, {"add_special_tokens": False}):
        assert ids_of(BPEDropout(tokenizer, 0.0), STRANGE, **options) == ids_of(tokenizer, STRANGE, **options)


@pytest.mark.parametrize("dropout", [0.1, 0.5, 1.0])
def test_the_text_stays_what_it_was(tokenizer, dropout):
    cut = ids_of(BPEDropout(tokenizer, dropout), STRANGE)
    assert tokenizer.batch_decode(cut) == tokenizer.batch_decode(ids_of(tokenizer, STRANGE))
    assert cut != ids_of(tokenizer, STRANGE)


def test_all_dropped_leaves_characters_and_whole_special_tokens(tokenizer):
    cut = ids_of(BPEDropout(tokenizer, 1.0), ["<2de> barks"])[0]
    assert tokenizer.convert_ids_to_tokens(cut) == ["<2de>", " ", *"barks", "</s>"]


def test_more_dropout_gives_more_tokens(tokenizer):
    counts = [sum(map(len, ids_of(BPEDropout(tokenizer, dropout), TEXTS))) for dropout in (0.0, 0.1, 0.3, 0.6, 1.0)]
    assert counts == sorted(counts)
    assert len(set(counts)) == len(counts)


def test_the_seed_says_how_and_every_call_draws_on(tokenizer):
    first, again, other = (BPEDropout(tokenizer, 0.3, seed) for seed in (1, 1, 2))
    cut = ids_of(first, TEXTS)
    assert cut == ids_of(again, TEXTS)
    assert cut != ids_of(other, TEXTS)
    assert cut != ids_of(first, TEXTS)


def test_a_merge_is_left_out_as_often_as_asked_for():
    tokenizer = train_tokenizer(["ab"] * 50, 300, byte_fallback=False)
    cut = ids_of(BPEDropout(tokenizer, 0.25), ["ab"] * 4000, add_special_tokens=False)
    assert {tuple(tokenizer.convert_ids_to_tokens(ids)) for ids in cut} == {("ab",), ("a", "b")}
    assert sum(len(ids) == 2 for ids in cut) == pytest.approx(1000, abs=110)


def test_what_it_cannot_cut_is_refused():
    tokenizer = train_tokenizer(TEXTS, 340)
    with pytest.raises(ValueError, match=r"dropout must be a probability from 0 to 1, got 1\.5"):
        BPEDropout(tokenizer, 1.5)
    with pytest.raises(ValueError, match="BPE-dropout must have a BPE model, got Unigram"):
        BPEDropout(train_tokenizer(TEXTS, 340, algorithm="unigram"), 0.1)
    marked = Tokenizer(models.BPE(vocab={"a": 0, "a</w>": 1}, merges=[], end_of_word_suffix="</w>"))
    marked.pre_tokenizer = pre_tokenizers.Whitespace()
    with pytest.raises(ValueError, match="without continuing_subword_prefix and end_of_word_suffix"):
        BPEDropout(PreTrainedTokenizerFast(tokenizer_object=marked), 0.1)
