"""An answer that is quoted is in the context, whatever the model is."""

import re
from functools import partial
from random import Random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from processor_time import loops
from small_models import small_model
from target_tokenizers import CONTEXT, TEXTS, TOKENIZERS, byte_tokenizer, squeezed
from transformers import GenerationConfig

from crossmask.seq2seq.quoted_answers import SENTENCES, Chunk, Quotable, allowed, quotables
from crossmask.seq2seq.quoting import Quoting, quotation, with_quoting
from crossmask.seq2seq.sentences import sentence_around, sentence_spans, split_answer

END = 2
WORD = r"[一-鿿]|(?:(?![一-鿿])\w)+"


def reaches(sources, target) -> bool:
    return all(token in allowed(sources, target[:at], [END]) for at, token in enumerate(target))


@pytest.mark.parametrize("name", TOKENIZERS)
def test_every_answer_of_whole_words_can_be_written_as_training_teaches_it(name):
    """In one sentence, and over a dot behind an abbreviation; after the space that stands behind the mark."""
    tokenizer, checked = TOKENIZERS[name](), 0
    for context in (*TEXTS, CONTEXT):
        sources = quotables(tokenizer, context)
        words = [match.span() for match in re.finditer(WORD, context)]
        for first, (begin, _) in enumerate(words):
            for _, end in words[first : first + 4]:
                start, stop = sentence_around(context, begin, end)
                answer = context[begin:end]
                if len(sentence_spans(context[start:stop])) > SENTENCES or "\n" in answer:
                    continue
                text = f"{context[start:stop]} Answer: {answer}"
                target = (*tokenizer(text_target=text, add_special_tokens=False)["input_ids"], END)
                assert reaches(sources, target), text
                checked += 1
    assert checked > 100


@pytest.mark.parametrize("name", TOKENIZERS)
def test_whatever_is_written_is_words_of_the_context(name):
    tokenizer, random = TOKENIZERS[name](), Random(0)
    for context in (*TEXTS, CONTEXT, "x\ty z"):
        sources = quotables(tokenizer, context, no_answer="nothing")
        for _ in range(20):
            written: tuple[int, ...] = ()
            while (token := random.choice(allowed(sources, written, [END]))) != END:
                written += (token,)
                assert len(written) < 300
            text = tokenizer.decode(written)
            quoted, answer = split_answer(text)
            if tokenizer.unk_token_id in written or squeezed(answer) == "nothing":
                continue
            assert "\ufffd" not in text
            assert squeezed(answer) in squeezed(quoted)
            assert squeezed(quoted) in squeezed(context)
            if name != "word pieces":
                borders = {place for match in re.finditer(WORD, context) for place in match.span()}
                spaced = re.escape(answer).replace(r"\ ", r"\s+")
                assert any(
                    {match.start(), match.end()} <= borders or not re.search(r"^\w.*\w$", answer)
                    for match in re.finditer(f"(?={spaced})", context)
                    for match in [re.compile(spaced).match(context, match.start())]
                ), text


word = st.integers(3, 6).map(lambda token: Chunk((token,), (), (), ()))


@given(
    st.lists(st.lists(word, min_size=1, max_size=5).map(tuple), min_size=1, max_size=4), st.booleans(), st.randoms()
)
@settings(max_examples=200, deadline=None)
def test_every_walk_ends_in_a_part_of_the_sentence_before_it(sentences, may_be_none, random):
    plain = [tuple(chunk.whole[0] for chunk in one) for one in sentences]
    sources = [Quotable((*ids, 9), one) for ids, one in zip(plain, sentences, strict=True)]
    sources += [Quotable((9, 8), ())] * may_be_none
    written: tuple[int, ...] = ()
    while (token := random.choice(allowed(sources, written, [END]))) != END:
        written += (token,)
        assert len(written) < 20
    at = written.index(9)
    quoted, part = written[:at], written[at + 1 :]
    if not quoted:
        assert may_be_none
        assert part == (8,)
        return
    assert quoted in plain
    assert part
    assert any(quoted[first : first + len(part)] == part for first in range(len(quoted)))


def generated(contexts, **options):
    torch.manual_seed(0)
    tokenizer = byte_tokenizer()
    model = small_model(vocab_size=len(tokenizer), max_position_embeddings=200)
    model.generation_config.update(
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id, decoder_start_token_id=1
    )
    sources = [quotation(tokenizer, one, "answer", "nothing") for one in contexts]
    options = with_quoting({"max_new_tokens": 120, **options}, sources, model.generation_config)
    inputs = tokenizer(contexts, return_tensors="pt", padding=True)
    inputs.pop("token_type_ids", None)
    written = model.generate(**inputs, **options)
    return [split_answer(tokenizer.decode(ids, skip_special_tokens=True)) for ids in written]


OPTIONS = (
    {}, {"num_beams": 3}, {"num_beams": 6, "num_return_sequences": 6}, {"do_sample": True},
    {"no_repeat_ngram_size": 2}, {"num_beams": 3, "no_repeat_ngram_size": 2}, {"suppress_tokens": [*range(3, 200)]},
    {"min_new_tokens": 100}, {"eos_token_id": [2, 7]}, {"forced_bos_token_id": 9}, {"bad_words_ids": [[40], [41]]},
)  # fmt: skip


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_generation_quotes_each_row_its_own_context(options):
    """Beside every other setting, those too that forbid what a sentence has."""
    contexts = [CONTEXT, "One one one one. She is near."]
    returned = options.get("num_return_sequences", 1)
    for row, (quoted, answer) in enumerate(generated(contexts, **options)):
        context = contexts[row // returned]
        if "forced_bos_token_id" in options:
            quoted = quoted[1:]
        assert answer
        if answer != "nothing":
            assert quoted in context
            assert " ".join(answer.split()) in " ".join(quoted.split())


def test_processors_of_the_call_stay():
    calls = []
    processor = lambda ids, scores: calls.append(1) or scores  # noqa: E731
    generated([CONTEXT], logits_processor=[processor])
    assert calls


def test_a_forced_first_token_is_not_of_the_quotation():
    config = GenerationConfig(eos_token_id=[2, 3], forced_bos_token_id=7, pad_token_id=0)
    sources = [Quotable((5, 9), (Chunk((5,), (), (), ()),))]
    processor = Quoting([partial(allowed, sources)], config)

    def open_after(*ids):
        return processor(torch.tensor([ids]), torch.zeros(1, 10))[0].isfinite().nonzero()[:, 0].tolist()

    assert open_after(1) == [*range(10)]
    assert open_after(1, 7) == [5]
    assert open_after(1, 7, 5, 9, 5) == [2, 3]
    assert open_after(1, 7, 5, 9, 5, 3) == [0]


@pytest.mark.parametrize("name", ["word pieces", "bytes"])
def test_long_lists_are_quick(name):
    tokenizer = TOKENIZERS[name]()
    context = ", ".join(f"ann is in the garden (near) {number}" for number in range(120))

    def read():
        sources = quotables(tokenizer, context)
        allowed(sources, sources[0].sentence, [END])

    assert loops(read, most=2000) < 2000  # it takes 50; with every pair of borders in a sentence, 30,000
