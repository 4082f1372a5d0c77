"""Words in, words out."""

import pytest
import torch
from streaming_cases import TEXTS, tiny
from tokenizers.processors import TemplateProcessing

from crossmask.streaming.text import SimultaneousTranslation, TextStream, translate
from crossmask.utils.errors import InputError


def offline(model, tokenizer, text: str, **options) -> list[str]:
    ids = tokenizer(text, return_tensors="pt").input_ids
    return tokenizer.decode(model.generate(ids, do_sample=False, **options)[0], skip_special_tokens=True).split()


@torch.no_grad()
def test_words_are_those_of_offline_translation():
    model, tokenizer = tiny()
    seen = set()
    for options in ({"cross_mask": "wait_k(1)"}, {"cross_mask": "wait_k(4)"}):
        for text, done in zip(TEXTS, translate(model, tokenizer, TEXTS, batch_size=3, **options), strict=True):
            words = offline(model, tokenizer, text, **options)
            assert done.text.split() == words
            assert len(done.delays) == len(words)
            assert done.delays == sorted(done.delays)
            assert done.source_length == len(text.split())
            assert set(done.delays) <= set(range(1, done.source_length + 1))
            seen |= set(words)
    assert len(seen) > 5


@torch.no_grad()
def test_a_prefix_is_read_before_the_first_word_and_not_counted():
    model, tokenizer = tiny()
    for options in ({"cross_mask": "wait_k(3)"}, {"cross_mask": "wait_k(1)"}):
        wanted = list(translate(model, tokenizer, [f"the man {text}" for text in TEXTS], **options))
        found = list(translate(model, tokenizer, TEXTS, prefix="the man ", **options))
        assert [one.text for one in found] == [one.text for one in wanted]
        assert [one.source_length for one in found] == [len(text.split()) for text in TEXTS]
        if options["cross_mask"] == "wait_k(3)":
            assert [one.delays for one in found] == [[max(n - 2, 1) for n in one.delays] for one in wanted]
    stream = TextStream(model, tokenizer, prefix="the man ", cross_mask="wait_k(1)")
    assert stream.push([[]]) == [[]]
    assert stream.stream.arrived == [[]]  # nothing before the first word
    assert list(translate(model, tokenizer, [" "], prefix="the man ")) == [SimultaneousTranslation("", [], 0)]


@torch.no_grad()
def test_a_longer_wait_is_later():
    model, tokenizer = tiny(cross_mask="full()")
    first = [
        next(translate(model, tokenizer, [TEXTS[2]], cross_mask=f"wait_k({k})", min_new_tokens=9)).delays
        for k in (1, 3, 6)
    ]
    assert first[0][0] < first[1][0] < first[2][0]


@torch.no_grad()
def test_a_word_is_written_once_it_is_whole():
    model, tokenizer = tiny(cross_mask="wait_k(1)")
    stream, source = TextStream(model, tokenizer), TEXTS[0].split()
    written = []
    for index, word in enumerate(source):
        new = stream.push([[word]], ended=index + 1 == len(source))[0]
        assert stream.delays[0][len(written) :] == [index + 1] * len(new)
        written += new
        text = tokenizer.decode(stream.stream.targets[0], skip_special_tokens=True)
        assert text.split()[: len(written)] == written == stream.words[0]
    assert stream.finished == [True]
    assert written == offline(model, tokenizer, TEXTS[0])


@torch.no_grad()
def test_tokens_that_stand_before_a_text_stand_there_while_it_arrives():
    model, tokenizer = tiny(cross_mask="wait_k(2)")
    ends = [("<s>", tokenizer.convert_tokens_to_ids("<s>")), ("</s>", tokenizer.convert_tokens_to_ids("</s>"))]
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing("<s> $A </s>", None, ends)
    assert len(tokenizer("dogs").input_ids) > len(tokenizer("dogs", add_special_tokens=False).input_ids) + 1
    for text in TEXTS:
        (done,) = translate(model, tokenizer, [text])
        assert done.text.split() == offline(model, tokenizer, text)


def test_a_tokenizer_that_changes_its_mind_is_refused():
    class Reversing:
        def __call__(self, text, add_special_tokens, verbose):
            return {"input_ids": [ord(letter) % 30 for letter in reversed(text)]}

        def decode(self, ids, skip_special_tokens):
            return ""

    stream = TextStream(tiny(cross_mask="wait_k(1)")[0], Reversing())
    stream.push([["ab"]])
    with pytest.raises(ValueError, match="got others for 'ab cd'"):
        stream.push([["cd"]])


def test_nothing_is_made_of_blank_texts_and_texts_come_from_anything():
    model, tokenizer = tiny()
    options = {"cross_mask": "wait_k(2)", "batch_size": 2}
    full = list(translate(model, tokenizer, TEXTS, **options))
    texts = ["", " ", TEXTS[0], "\t", *TEXTS[1:]]
    nothing = SimultaneousTranslation("", [], 0)
    assert list(translate(model, tokenizer, iter(texts), **options)) == [nothing, nothing, full[0], nothing, *full[1:]]


@pytest.mark.parametrize(
    ("texts", "options", "message"),
    [
        (["dogs"], {"batch_size": 0}, "batch_size must be at least 1, got 0"),
        (
            ["dogs " * 99],
            {"cross_mask": "wait_k(60)"},
            r"must have at most 64 tokens, .*, got \d+; split it",
        ),
        (["a \udcff"], {}, "the source of stream 0 must be valid Unicode"),
        (["dogs"], {"num_beams": 2}, "num_beams=2: what a stream has written stays"),
        (["dogs"], {"nonsense": 2}, "there is no option 'nonsense'"),
        (["dogs"], {"encoder_mask": "full()", "policy": 3}, "policy must be a Policy"),
    ],
)
def test_what_cannot_be_streamed(texts, options, message):
    model, tokenizer = tiny()
    with pytest.raises(InputError, match=message):
        list(translate(model, tokenizer, texts, **{"cross_mask": "wait_k(1)", **options}))
