"""An answer that is quoted is in the context, whatever the model is."""

import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from question_cases import tiny_tokenizer
from small_models import small_model
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import GenerationConfig, LogitsProcessorList, PreTrainedTokenizerFast

from crossmask.data.tokenizer_training import train_tokenizer
from crossmask.seq2seq.quoted_answers import (
    FLAT_PADDING,
    Quotable,
    QuotedAnswers,
    allowed,
    flat,
    from_flat,
    quotables,
)
from crossmask.seq2seq.sentences import sentence_spans, split_answer

TEXTS = (
    "The Panthers gave up 308 points (sixth), with 24. They won 3.5 times.\nA new line: “quoted”. End",
    "他在花园里。她在家！谁？",
    "Ünïcode café – naïve 😀 rocks. Yes 😀!",
    "One sentence. One sentence.   spaced   out  text .",
)
CONTEXT = "Ann left. Bob is in the garden, near Dora! Is he?"


def byte_tokenizer():
    return train_tokenizer([CONTEXT, "Answer: "] * 3, vocab_size=300)


def new_tokenizer(model, trainer, cutter, size: int) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer, tokenizer.decoder = cutter, decoders.Metaspace()
    special = ["<pad>", "<s>", "</s>", "<unk>"]
    unknown = {"unk_token": "<unk>"} if trainer is trainers.UnigramTrainer else {}
    trained = trainer(vocab_size=size, special_tokens=special, **unknown, show_progress=False)
    tokenizer.train_from_iterator([*TEXTS, "Answer: "] * 5, trained)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>", unk_token="<unk>")


# Their words and punctuation are one piece, which is cut otherwise than the word alone.
TOKENIZERS = {
    "word pieces": tiny_tokenizer,
    "bytes": byte_tokenizer,
    "Metaspace": lambda: new_tokenizer(
        models.BPE(unk_token="<unk>"), trainers.BpeTrainer, pre_tokenizers.Metaspace(), 200
    ),
    "Metaspace before the first word": lambda: new_tokenizer(
        models.BPE(unk_token="<unk>"), trainers.BpeTrainer, pre_tokenizers.Metaspace(prepend_scheme="first"), 200
    ),
    "Unigram": lambda: new_tokenizer(models.Unigram(), trainers.UnigramTrainer, pre_tokenizers.Metaspace(), 150),
}
END = 2


def squeezed(text: str) -> str:
    """What tokenizers that lowercase and cut punctuation off keep of a text."""
    return "".join(text.lower().split())


@pytest.mark.parametrize("name", TOKENIZERS)
def test_what_may_be_written_is_each_sentence_and_its_parts(name):
    tokenizer = TOKENIZERS[name]()
    found = quotables(tokenizer, CONTEXT, no_answer="nothing")
    sentences = [CONTEXT[first:last] for first, last in sentence_spans(CONTEXT)]
    assert len(found) == len(sentences) + 1
    for sentence, one in zip(sentences, found, strict=False):
        assert not any(tokenizer.decode([token]).strip() for token in one.blank)
        whole = tokenizer(text_target=f"{sentence} Answer: {sentence}", add_special_tokens=False)["input_ids"]
        assert [*one.sentence, *one.parts[0]] == whole
        if tokenizer.unk_token_id not in whole:
            assert squeezed(tokenizer.decode(one.parts[0])) == squeezed(sentence)
    assert found[-1].parts == ()
    assert from_flat([*flat(found), *[FLAT_PADDING] * 3]) == found
    assert quotables(tokenizer, " ") == from_flat([FLAT_PADDING]) == []


@pytest.mark.parametrize("name", TOKENIZERS)
def test_every_answer_that_training_teaches_can_be_written(name):
    """Of those that begin and end with a word, after the space that stands behind the mark."""
    tokenizer, checked = TOKENIZERS[name](), 0
    for context in (*TEXTS, CONTEXT):
        sources = quotables(tokenizer, context)
        for sentence in (context[first:last] for first, last in sentence_spans(context)):
            words = [match.span() for match in re.finditer(r"\w+", sentence)]
            for first, (begin, _) in enumerate(words):
                for _, end in words[first : first + 3]:
                    text = f"{sentence} Answer: {sentence[begin:end]}"
                    target = (*tokenizer(text_target=text, add_special_tokens=False)["input_ids"], END)
                    assert all(token in allowed(sources, target[:at], [END]) for at, token in enumerate(target)), text
                    checked += 1
    assert checked > 50


sentence = st.lists(st.integers(3, 6), min_size=1, max_size=5).map(tuple)


@given(st.lists(sentence, min_size=1, max_size=4), st.booleans(), st.randoms())
@settings(max_examples=200, deadline=None)
def test_every_walk_ends_in_a_part_of_the_sentence_before_it(sentences, may_be_none, random):
    mark = (9,)
    sources = [Quotable((*one, *mark), (one,)) for one in sentences] + [Quotable((*mark, 8), ())] * may_be_none
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
    assert quoted in sentences
    assert part
    assert any(quoted[first : first + len(part)] == part for first in range(len(quoted)))


@given(st.lists(sentence, min_size=1, max_size=4), st.data())
@settings(max_examples=100, deadline=None)
def test_every_part_of_every_sentence_can_be_written(sentences, data):
    chosen = data.draw(st.sampled_from(sentences))
    first = data.draw(st.integers(0, len(chosen) - 1))
    last = data.draw(st.integers(first + 1, len(chosen)))
    sources = [Quotable((*one, 9), (one,)) for one in sentences]
    target = (*chosen, 9, *chosen[first:last], END)
    for at, token in enumerate(target):
        assert token in allowed(sources, target[:at], [END])


@pytest.mark.parametrize("options", [{}, {"num_beams": 3}, {"do_sample": True}], ids=str)
def test_generation_quotes_each_row_its_own_context(options):
    torch.manual_seed(0)
    tokenizer = byte_tokenizer()
    model = small_model(vocab_size=len(tokenizer), max_position_embeddings=200)
    contexts = [CONTEXT, "Dora sits. She is near."]
    config = GenerationConfig(
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id, decoder_start_token_id=1,
        max_new_tokens=120, **options,
    )  # fmt: skip
    processor = QuotedAnswers([quotables(tokenizer, one, "nothing") for one in contexts], config)
    inputs = tokenizer(contexts, return_tensors="pt", padding=True)
    inputs.pop("token_type_ids", None)
    written = model.generate(**inputs, generation_config=config, logits_processor=LogitsProcessorList([processor]))
    for ids, context in zip(written, contexts, strict=True):
        quoted, answer = split_answer(tokenizer.decode(ids, skip_special_tokens=True))
        assert answer
        if answer != "nothing":
            assert quoted in [context[first:last] for first, last in sentence_spans(context)]
            assert answer in quoted


def test_whitespace_is_no_answer():
    assert allowed([Quotable((5, 9), ((7, 5, 7),), blank=(7,))], (5, 9, 7), [END]) == [5]
    assert allowed([Quotable((5, 9), ((7, 5, 7),), blank=(7,))], (5, 9, 7, 5), [END]) == [END, 7]
    assert from_flat(flat([Quotable((5, 9), ((7, 5, 7),), blank=(7,))]))[0].blank == (7,)


def test_a_forced_first_token_is_not_of_the_quotation():
    config = GenerationConfig(eos_token_id=[2, 3], forced_bos_token_id=7)
    processor = QuotedAnswers([[Quotable((5, 9), ((5,),))]], config)
    scores = torch.zeros(1, 10)
    assert processor(torch.tensor([[1]]), scores).isfinite().all()
    assert processor(torch.tensor([[1, 7]]), scores).isfinite().nonzero().tolist() == [[0, 5]]
    assert processor(torch.tensor([[1, 7, 5, 9, 5]]), scores).isfinite()[0].nonzero()[:, 0].tolist() == [2, 3]
    assert processor(torch.tensor([[1, 7, 5, 9, 5, 3]]), scores).isfinite().all()
