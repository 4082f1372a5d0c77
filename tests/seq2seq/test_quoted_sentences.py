"""Reasons that are quoted are sentences of the context, whatever the model is, and the answer behind them is free."""

from itertools import permutations
from random import Random

import pytest
import torch
from processor_time import loops
from small_models import small_model
from target_tokenizers import CONTEXT, TEXTS, TOKENIZERS, byte_tokenizer, squeezed

from crossmask.seq2seq.quoted_sentences import QuotedSentences
from crossmask.seq2seq.quoting import quotation, with_quoting
from crossmask.seq2seq.sentences import sentence_spans, split_answer

END = 2
TWICE = "Ann left. Bob is near. Ann left."


def sentences_of(context):
    return [context[first:last] for first, last in sentence_spans(context)]


def reaches(source, target) -> bool:
    following = [source(target[:at], [END]) for at in range(len(target))]
    return all(ids is None or token in ids for ids, token in zip(following, target, strict=True))


@pytest.mark.parametrize("name", TOKENIZERS)
def test_sentences_in_any_order_and_any_answer_can_be_written_as_training_teaches_it(name):
    tokenizer = TOKENIZERS[name]()
    for context in (*TEXTS, CONTEXT, TWICE):
        source, sentences = QuotedSentences(tokenizer, context), sentences_of(context)
        for number in range(min(len(sentences), 3) + 1):
            for chain in permutations(sentences, number):
                text = " ".join([*chain, "Answer: 24 in 在"])
                target = (*tokenizer(text_target=text, add_special_tokens=False)["input_ids"], END)
                assert reaches(source, target), text


@pytest.mark.parametrize("name", TOKENIZERS)
def test_whatever_is_written_before_the_answer_is_sentences_of_the_context(name):
    tokenizer, random = TOKENIZERS[name](), Random(0)
    for context in (*TEXTS, CONTEXT, TWICE, "x\ty z"):
        source, sentences = QuotedSentences(tokenizer, context), [*map(squeezed, sentences_of(context))]
        for _ in range(20):
            written: tuple[int, ...] = ()
            while (following := source(written, [END])) is not None:
                written += (random.choice(following),)
                assert len(written) < 300
            if tokenizer.unk_token_id in written:
                continue
            chain = squeezed(tokenizer.decode(written)).removesuffix("answer:")
            for text in sorted(sentences, key=len, reverse=True):  # each at most as often as it is there
                chain = chain.replace(text, "", 1)
            assert chain == ""


def test_a_sentence_is_written_no_more_often_than_it_is_there():
    tokenizer = byte_tokenizer()

    def can_write(text):
        return reaches(
            QuotedSentences(tokenizer, TWICE), tuple(tokenizer(text, add_special_tokens=False)["input_ids"])
        )

    assert can_write("Ann left. Ann left. Answer: no")
    assert not can_write("Ann left. Ann left. Ann left. Answer: no")
    assert not can_write("Bob is near. Bob is near. Answer: no")


def test_an_answer_may_have_the_mark_in_it_and_a_sentence_may_not():
    tokenizer = byte_tokenizer()
    source = QuotedSentences(tokenizer, "Ann left. The answer: no. Bob is near.")

    def can_write(text):
        return reaches(source, tuple(tokenizer(text, add_special_tokens=False)["input_ids"]))

    text = "Bob is near. Answer: ask. Answer: no"
    assert can_write(text)
    assert split_answer(text, quote="sentences") == ("Bob is near.", "ask. Answer: no")
    assert split_answer(text) == ("Bob is near. Answer: ask.", "no")
    assert not can_write("The answer: no. Answer: no")


def test_beginnings_can_be_asked_for_in_any_order():
    tokenizer, random = byte_tokenizer(), Random(0)
    first, second = "Bob is near. Ann left. Answer: a", "Ann left. Ann left. Answer: b"
    targets = [tuple(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in (first, second)]
    starts = [target[:at] for target in targets for at in range(len(target) + 1)] * 2
    source = QuotedSentences(tokenizer, TWICE)
    random.shuffle(starts)
    for start in starts:
        assert source(start, [END]) == QuotedSentences(tokenizer, TWICE)(start, [END])


def test_long_contexts_are_quick():
    tokenizer = byte_tokenizer()
    context = " ".join(f"Ann is in the garden {number}." for number in range(300))
    target = tuple(tokenizer(f"{context} Answer: no", add_special_tokens=False)["input_ids"])

    def read():
        assert reaches(QuotedSentences(tokenizer, context), target)

    assert loops(read, most=10_000) < 10_000  # it takes 1,000, for 5,000 tokens


@pytest.mark.parametrize("options", [{}, {"num_beams": 3}, {"do_sample": True}, {"no_repeat_ngram_size": 2}], ids=str)
def test_generation_quotes_each_row_its_own_context(options):
    torch.manual_seed(0)
    contexts, tokenizer = [CONTEXT, TWICE], byte_tokenizer()
    model = small_model(vocab_size=len(tokenizer), max_position_embeddings=200)
    model.generation_config.update(
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id, decoder_start_token_id=1
    )
    sources = [quotation(tokenizer, one, "sentences") for one in contexts]
    options = with_quoting({"max_new_tokens": 120, **options}, sources, model.generation_config)
    inputs = tokenizer(contexts, return_tensors="pt", padding=True)
    inputs.pop("token_type_ids", None)
    for context, ids in zip(contexts, model.generate(**inputs, **options), strict=True):
        text = tokenizer.decode(ids, skip_special_tokens=True)
        assert "Answer:" in text
        chain, _ = split_answer(text, quote="sentences")
        for sentence in sentences_of(context):
            chain = chain.replace(sentence, "", 1)
        assert not chain.strip()
