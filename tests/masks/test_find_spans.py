import re

import pytest

from crossmask import masks
from crossmask.data.tokenizer_training import train_tokenizer

TEXTS = ["Ada Lovelace wrote to 12 Dorset Street, and Ada waited.", "Nobody here.", "日本 Ada99!"]


@pytest.fixture(scope="module", params=["bpe", "unigram"])
def tokenizer(request):
    return train_tokenizer(TEXTS * 20, 300, algorithm=request.param)


def covered(tokenizer, text, spans):
    """The pieces of text under the spans."""
    offsets = tokenizer(text, return_offsets_mapping=True)["offset_mapping"]
    return [text[min(o[0] for o in offsets[a:b]) : max(o[1] for o in offsets[a:b])] for a, b in spans]


def test_patterns_and_terms_are_covered_whole(tokenizer):
    spans = masks.find_spans(TEXTS, tokenizer, patterns=[r"\d+", re.compile("dorset", re.I)], terms="Ada")
    assert len(spans) == 3
    assert spans[1] == ()
    pieces = covered(tokenizer, TEXTS[0], spans[0])
    assert "Ada" in pieces[0]
    assert any("12" in piece for piece in pieces)
    assert any("Dorset" in piece for piece in pieces)
    assert sum("Ada" in piece for piece in pieces) == 2
    assert all("wrote" not in piece and "Street" not in piece for piece in pieces)
    hidden = masks.blind(examples=spans)
    assert masks.parse(str(hidden)) == hidden


def test_every_token_that_shares_a_character_is_in_a_span(tokenizer):
    offsets = tokenizer(TEXTS[2], return_offsets_mapping=True)["offset_mapping"]
    spans = masks.find_spans(TEXTS[2], tokenizer, characters=[[(1, 2), (5, 6)]])[0]
    inside = {index for first, last in spans for index in range(first, last)}
    assert inside == {i for i, (a, b) in enumerate(offsets) if (a < 2 and b > 1) or (a < 6 and b > 5)}
    assert inside


def test_positions_do_not_depend_on_padding(tokenizer):
    tokenizer.padding_side = "left"
    alone = masks.find_spans(TEXTS[0], tokenizer, terms=["Ada"])
    assert masks.find_spans(TEXTS, tokenizer, terms=["Ada"], padding=True)[:1] == alone
    short = masks.find_spans(TEXTS[0], tokenizer, terms=["waited"], truncation=True, max_length=5)
    assert short == ((),)


def test_mistakes_are_named(tokenizer):
    with pytest.raises(masks.MaskError, match="must be a fast one, which knows the characters of a token, got"):
        masks.find_spans(TEXTS, object())
    with pytest.raises(masks.MaskError, match=r"a pattern must be a regular expression, got '\('"):
        masks.find_spans(TEXTS, tokenizer, patterns="(")
    with pytest.raises(masks.MaskError, match="characters must be for all 3 texts, got them for 1"):
        masks.find_spans(TEXTS, tokenizer, characters=[[]])
    with pytest.raises(masks.MaskError, match=r"within text 1, which has 12 characters, got \(3, 99\)"):
        masks.find_spans(TEXTS, tokenizer, characters=[[], [(3, 99)], []])


@pytest.mark.parametrize(
    ("search", "message"),
    [
        ({}, "must be given, got none, so that nothing would be hidden"),
        ({"terms": []}, "must be given, got none, so that nothing would be hidden"),
        ({"terms": ["Ada", ""]}, "must not be empty, got ''"),
    ],
)
def test_a_search_that_hides_nothing_is_refused(tokenizer, search, message):
    with pytest.raises(masks.MaskError, match=message):
        masks.find_spans(TEXTS, tokenizer, **search)


@pytest.mark.parametrize(
    ("arguments", "options"),
    [
        ((None,), {"terms": "a"}),
        ((3,), {"terms": "a"}),
        (([3],), {"terms": "a"}),
        (("a\ud800",), {"terms": "a"}),
        ((TEXTS,), {"terms": 3}),
        ((TEXTS,), {"terms": [3]}),
        ((TEXTS,), {"terms": [b"a"]}),
        ((TEXTS,), {"patterns": [re.compile(b"a")]}),
        ((TEXTS,), {"patterns": [None]}),
        ((TEXTS,), {"patterns": "(" * 10_000}),
        ((TEXTS,), {"patterns": "a{99999999999999}"}),
        ((TEXTS,), {"characters": 3}),
        ((TEXTS,), {"characters": [1, 2, 3]}),
        ((TEXTS,), {"characters": [[3], [], []]}),
        ((TEXTS,), {"characters": [[(0, 1.5)], [], []]}),
        ((TEXTS,), {"characters": [[(0, 10**5000)], [], []]}),
        ((TEXTS,), {"characters": [["ab"], [], []]}),
    ],
)
def test_odd_inputs_are_refused_in_one_line(arguments, options, tokenizer):
    with pytest.raises(masks.MaskError) as error:
        masks.find_spans(arguments[0], tokenizer, **options)
    assert str(error.value).startswith("find_spans: ")
    assert str(error.value).isprintable()
    assert len(str(error.value)) < 400


def test_many_finds_in_a_long_text_are_cheap(tokenizer):
    text = "Ada 12 " * 3000
    spans = masks.find_spans(text, tokenizer, terms="Ada", patterns=r"\d")
    stretches = [(match.start(), match.end()) for match in re.finditer(r"Ada|\d", text)]
    offsets = tokenizer(text, return_offsets_mapping=True)["offset_mapping"]
    inside = {index for first, last in spans[0] for index in range(first, last)}
    for index in range(0, len(offsets), 397):
        first, last = offsets[index]
        assert (index in inside) == any(first < end and start < last for start, end in stretches)
