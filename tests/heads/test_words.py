"""Words as tokens, and BIO tags: from spans and back, and the best well-formed ones."""

import itertools

import pytest
import torch
from head_cases import head
from question_cases import tiny_tokenizer

from crossmask.heads.bio import BioDecoder, bio_tags, bracketed, spans_of_tags
from crossmask.heads.words import encode_words, label_words, word_scores

TAGS = bio_tags(["A", "B"])


def is_well_formed(tags) -> bool:
    pairs = itertools.pairwise(["O", *tags])
    return all(not tag.startswith("I-") or before in (f"B-{tag[2:]}", tag) for before, tag in pairs)


@pytest.mark.parametrize(
    ("tags", "spans", "text"),
    [
        ("O O O", [], "a b c"),
        ("B-A I-A B-A", [("A", 0, 1), ("A", 2, 2)], "[A a b ] [A c ]"),
        ("B-A I-B O", [("A", 0, 0), ("B", 1, 1)], "[A a ] [B b ] c"),
        ("O I-A I-A", [("A", 1, 2)], "a [A b c ]"),
        ("I-A O I-A", [("A", 0, 0), ("A", 2, 2)], "[A a ] b [A c ]"),
    ],
)
def test_spans_of_tags(tags, spans, text):
    assert spans_of_tags(tags.split()) == spans
    assert bracketed(["a", "b", "c"], tags.split()) == text


def test_the_decoder_finds_the_best_of_all_well_formed_tags():
    decode, generator = BioDecoder(TAGS), torch.Generator().manual_seed(0)
    changed = 0
    for words in (1, 2, 4):
        scores = 2 * torch.randn(20, words, len(TAGS), generator=generator)
        log = scores.log_softmax(-1)
        found = decode(scores, [words] * 20)
        for row in range(20):
            candidates = itertools.product(range(len(TAGS)), repeat=words)
            ranked = max(
                (sum(log[row, at, tag].item() for at, tag in enumerate(path)), [TAGS[tag] for tag in path])
                for path in candidates
                if is_well_formed([TAGS[tag] for tag in path])
            )
            assert found[row] == ranked[1]
            changed += found[row] != [TAGS[tag] for tag in scores[row].argmax(-1)]
    assert changed > 5  # the best tag of each word is often not well-formed


def test_the_decoder_takes_any_order_of_tags_and_rows_of_any_length():
    generator = torch.Generator().manual_seed(1)
    order = torch.randperm(len(TAGS), generator=generator)
    scores = torch.randn(2, 5, len(TAGS), generator=generator)
    expected = BioDecoder(TAGS)(scores, [5, 3])
    assert BioDecoder([TAGS[at] for at in order])(scores[..., order], [5, 3]) == expected
    assert [len(tags) for tags in expected] == [5, 3]
    assert BioDecoder(TAGS)(scores[1:, :3], [3])[0] == expected[1]


@pytest.mark.parametrize(
    ("tags", "message"),
    [
        (["O", "A"], "tags must be O, B-label or I-label, got 'A'"),
        (["O", "I-A"], "tags must have B-A beside I-A; add it"),
        (["O", "B-"], "tags must be O, B-label or I-label, got 'B-'"),
    ],
)
def test_names_that_are_no_tags(tags, message):
    with pytest.raises(ValueError, match=message):
        BioDecoder(tags)


def test_every_word_has_its_first_token_whatever_the_tokenizer_makes_of_it():
    tokenizer = tiny_tokenizer()
    words = ["Ann", "zzz", "near", "\u200b", "Bob", "?"]
    (encoded,) = encode_words(tokenizer, [words])
    texts = [tokenizer.decode([encoded.input_ids[at]]) for at in encoded.first_tokens if at >= 0]
    assert texts == ["ann", "z", "near", "bob", "?"]
    assert encoded.first_tokens[3] == -1  # the tokenizer drops it
    assert encoded.word_ids == [-1, 0, 1, 1, 1, 2, 4, 5, -1]
    scores = word_scores(torch.ones(1, 9, 2), torch.tensor([encoded.first_tokens]))
    assert scores[0, :, 0].tolist() == [1, 1, 1, 0, 1, 1]


def test_sentences_that_are_none():
    for words in ("Ann left", [], ["a", " "], ["a", 3]):
        with pytest.raises(ValueError, match=r"sentences\[0\] must be a list of words"):
            encode_words(tiny_tokenizer(), [words])


def test_the_tags_of_one_sentence():
    model = head("bert, tags", num_labels=5)
    model.resize_token_embeddings(len(tiny_tokenizer()))
    model.config.id2label = dict(enumerate(TAGS))
    words = ["ann", "left", "bob", "."]
    tags = label_words(model, tiny_tokenizer(), words, marked=1)
    assert len(tags) == 4
    assert is_well_formed(tags)
    with pytest.raises(ValueError, match="marked must be the number of a word, 0 to 3, got 4"):
        label_words(model, tiny_tokenizer(), words, marked=4)
