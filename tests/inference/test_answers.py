import pytest
import torch
from question_cases import tiny_reader
from transformers import BertForQuestionAnswering

from crossmask import answer, answer_batch
from crossmask.question_answering.decoding import best_answers, best_spans
from crossmask.question_answering.windows import WindowCollator, encode_windows

CONTEXTS = [
    "Ann is in the garden.\nBob sits in the kitchen with Carl.\nDora left.",
    "Carl left.",
    "The garden is near the kitchen, and Ann is there. Bob is not there. Dora sits near Carl in the garden.",
]
QUESTIONS = ["Where is Ann?", "Who left?", "Who sits near Carl?"]


@pytest.fixture(scope="module")
def reader():
    return tiny_reader(no_answer=False)


def one_by_one(model, tokenizer, n_best, **options):
    """The answers by the plainest way: each window alone, no batches."""
    found = []
    for question, context in zip(QUESTIONS, CONTEXTS, strict=True):
        (windows,) = encode_windows(tokenizer, [question], [context], **options)
        collate = WindowCollator(tokenizer.pad_token_id, keep_offsets=True)
        spans = []
        for window in windows:
            batch = collate([window])
            offsets = batch.pop("offsets")
            with torch.no_grad():
                outputs = model(**batch)
            scores = (outputs.start_logits, outputs.end_logits, offsets, outputs.no_answer_logits)
            spans += best_spans(*scores, n_best=n_best)
        found.append(best_answers(context, spans, n_best=n_best))
    return found


@pytest.mark.parametrize("batch_tokens", [1, 50, 4096])
@pytest.mark.parametrize("no_answer", [False, True])
def test_batches_change_nothing(batch_tokens, no_answer):
    model, tokenizer = tiny_reader(no_answer)
    windows = {"max_length": 18, "stride": 4}
    found = answer_batch(model, tokenizer, QUESTIONS, CONTEXTS, n_best=3, batch_tokens=batch_tokens, **windows)
    expected = one_by_one(model, tokenizer, 3, **windows)
    for own, others in zip(found, expected, strict=True):
        assert [(one.text, one.start, one.sentence) for one in own] == [
            (one.text, one.start, one.sentence) for one in others
        ]
        assert [one.score for one in own] == pytest.approx([one.score for one in others], rel=1e-3)


def test_answers_are_slices_of_the_context_in_their_sentence(reader):
    for context, own in zip(CONTEXTS, answer_batch(*reader, QUESTIONS, CONTEXTS, n_best=5), strict=True):
        assert len(own) == 5
        assert [one.score for one in own] == sorted((one.score for one in own), reverse=True)
        for one in own:
            assert one.text == context[one.start : one.end] != ""
            assert one.sentence[0] <= one.start < one.end <= one.sentence[1]
            assert 0 < one.score < 1


def test_one_question_is_a_batch_of_one(reader):
    expected = [own[0] for own in answer_batch(*reader, QUESTIONS, CONTEXTS)]
    for question, context, best in zip(QUESTIONS, CONTEXTS, expected, strict=True):
        found = answer(*reader, question, context)
        assert (found.text, found.start) == (best.text, best.start)


def test_the_model_goes_on_training(reader):
    model, _ = reader
    model.train()
    answer(*reader, QUESTIONS[0], CONTEXTS[0])
    assert model.training
    model.eval()


@pytest.mark.parametrize("max_length", [18, 384])
def test_a_chosen_paragraph_has_the_answer(reader, max_length):
    context = CONTEXTS[0]
    for passage, line in enumerate(context.splitlines()):
        found = answer(*reader, QUESTIONS[0], context, passages=[passage], max_length=max_length, stride=4)
        start = context.index(line)
        assert start <= found.start < found.end <= start + len(line)
    (own, other) = answer_batch(*reader, QUESTIONS[:2], CONTEXTS[:2], passages=[(0, 1), None])
    assert own[0].end <= context.index("Dora")
    assert other[0].text


@pytest.mark.parametrize("max_length", [18, 384])
@pytest.mark.parametrize("no_answer", [False, True])
def test_what_is_hidden_changes_nothing_and_is_never_the_answer(no_answer, max_length):
    model, tokenizer = tiny_reader(no_answer)
    start = CONTEXTS[0].index("kitchen")
    changed = CONTEXTS[0].replace("kitchen", "garden ")
    hidden = [(start, start + len("kitchen"))]
    options = {"n_best": 50, "max_length": max_length, "stride": 4}
    (found,) = answer_batch(model, tokenizer, QUESTIONS[:1], CONTEXTS[:1], hidden=[hidden], **options)
    (other,) = answer_batch(model, tokenizer, QUESTIONS[:1], [changed], hidden=[hidden], **options)
    assert [(one.text, one.start, one.score) for one in found] == [(one.text, one.start, one.score) for one in other]
    for one in found:
        assert one.start is None or one.end <= start or one.start >= hidden[0][1]
    (plain,) = answer_batch(model, tokenizer, QUESTIONS[:1], CONTEXTS[:1], **options)
    assert any(one.start is not None and one.start <= start < one.end for one in plain)


def test_a_threshold_decides_whether_there_is_an_answer():
    model, tokenizer = tiny_reader(True)
    texts = [answer(model, tokenizer, QUESTIONS[0], CONTEXTS[0], null_threshold=at).text for at in (-1e9, 1e9)]
    assert texts[0] != ""
    assert texts[1] == ""
    always_answers, _ = tiny_reader(False)
    with pytest.raises(ValueError, match=r"null_threshold must be left out for a model that always answers, got 1\.0"):
        answer(always_answers, tokenizer, QUESTIONS[0], CONTEXTS[0], null_threshold=1.0)


def test_models_of_transformers_answer_from_the_context_too(reader):
    _, tokenizer = reader
    torch.manual_seed(0)
    config = reader[0].config.encoder
    model = BertForQuestionAnswering(config).eval()
    with torch.no_grad():
        model.qa_outputs.weight.normal_(std=3.0)
    for context, own in zip(CONTEXTS, answer_batch(model, tokenizer, QUESTIONS, CONTEXTS, n_best=3), strict=True):
        assert all(one.text == context[one.start : one.end] != "" for one in own)
    with pytest.raises(ValueError, match="passages and hidden must be left out for BertForQuestionAnswering"):
        answer(model, tokenizer, QUESTIONS[0], CONTEXTS[0], hidden=[(0, 3)])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_best": 0}, "n_best must be at least 1, got 0"),
        ({"max_answer_length": 0}, "max_answer_length must be at least 1, got 0"),
        ({"batch_tokens": 0}, "batch_tokens must be at least 1, got 0"),
        ({"passages": [(3,)]}, r"passages\[0\]: there is no passage 3; the context has 0 to 2"),
        ({"passages": []}, "passages for 0 contexts, but there are 1"),
        ({"hidden": [[(3, 3)]]}, r"hidden\[0\]: a span must be \(first character, one past the last\)"),
        ({"hidden": [[(0, 999)]]}, r"hidden\[0\]: a span must be"),
        ({"hidden": [None, None]}, "hidden for 2 contexts, but there are 1"),
        ({"max_length": 9, "stride": 4}, "shorten it, raise max_length or lower stride"),
    ],
)
def test_bad_options(reader, options, message):
    with pytest.raises(ValueError, match=message):
        answer_batch(*reader, QUESTIONS[:1], CONTEXTS[:1], **options)
