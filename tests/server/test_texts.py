"""Summaries and answers, by models that write them and by models that point at them."""

import asyncio
from json import dumps

import pytest

pytest.importorskip("fastapi")

from question_cases import tiny_reader
from servers import TEXTS, asked, events, in_process, small

from crossmask import translate_batch
from crossmask.inference import answer_batch
from crossmask.inference.generate_translator import GenerateTranslator
from crossmask.pipelines.questions import as_answer
from crossmask.server import Settings
from crossmask.server.models import TextModel
from crossmask.server.question_answering import ReadingModel, WritingModel

JSON = {"content-type": "application/json"}
CONTEXTS = ["ann is in the garden", "bob left . ann sits near carl", "dora sits in the kitchen and bob is not there"]


def reading() -> ReadingModel:
    model, tokenizer = tiny_reader(False)
    return ReadingModel(model, tokenizer, "tiny")


def writing(task: str, **options) -> TextModel:
    return TextModel(GenerateTranslator(*small()), "tiny", task, **options)


def answering(template: str) -> WritingModel:
    return WritingModel(writing("question-answering"), template)


def test_summaries_of_a_text_and_of_a_list_with_a_prefix():
    model = writing("summarization", prefix="two cats ")
    wanted = translate_batch(*small(), [f"two cats {text}" for text in TEXTS[:3]], progress=False)
    requests = {"json": {"text": TEXTS[0]}}, {"json": {"text": [*TEXTS[:3], " "]}}, {"data": {"text": TEXTS[0]}}
    one, several, form = (answer.json() for answer in asked(model, None, *requests, path="/summarize"))
    assert one == form == {"summary_text": wanted[0]}
    assert several == {"summary_text": [*wanted, ""]}
    (answer,) = asked(model, None, {"json": {"text": TEXTS[0]}}, path="/summarize/stream")
    assert events(answer.text)[-1] == ("end", {"summary_text": wanted[0]})
    (answer,) = asked(model, None, {"json": {"q": TEXTS[0]}}, path="/translate")
    assert answer.status_code == 404


def test_answers_by_spans_equal_answer_batch():
    model, tokenizer = tiny_reader(False)
    wanted = answer_batch(model, tokenizer, ["where is ann ?"] * 3, CONTEXTS)
    wanted = [
        {"answer": a.text, "score": pytest.approx(a.score, rel=1e-4), "start": a.start, "end": a.end}
        for a, *_ in wanted
    ]
    requests = [{"json": {"question": "where is ann ?", "context": context}} for context in CONTEXTS]
    requests += [{"json": {"question": ["where is ann ?"] * 3, "context": CONTEXTS}}]
    requests += [{"json": {"question": ["where is ann ?"] * 2, "context": CONTEXTS[0]}}]
    *singly, together, shared = (answer.json() for answer in asked(reading(), None, *requests, path="/answer"))
    assert singly == wanted
    assert together == wanted
    assert shared == [wanted[0]] * 2


def test_answers_that_are_written_are_cut_out_of_what_is_written():
    template = "{question} {context}"
    model = answering(template)
    (wanted,) = translate_batch(*small(), ["two {context} old man"], progress=False)
    # Braces in a question are text.
    request = {"json": {"question": "two {context}", "context": "old man"}}
    (answer,) = asked(model, None, request, path="/answer")
    assert answer.json() == {"answer": wanted.strip()}
    assert as_answer("Ann is here. Answer: the garden ", None, None) == {
        "answer": "the garden",
        "rationale": "Ann is here.",
    }


@pytest.mark.parametrize("model", [reading, lambda: answering("{question}{context}")])
def test_questions_that_cannot_be_used(model):
    cases = [
        ({"question": "where ?"}, 400, "context must be a text that is not empty, got nothing"),
        ({"question": " ", "context": "a"}, 400, "question must have something in it"),
        ({"question": "a", "context": ["a", "\n"]}, 400, "context must have something in it"),
        ({"question": "a", "context": ["a", "b"]}, 400, "context must be a text, as question is one"),
        ({"question": ["a", "b"], "context": ["a", "b", "c"]}, 400, "one for each of 2 questions, got 3"),
        ({"question": "a" * 60, "context": "b" * 60}, 413, "at most 100 characters together, got 120"),
        ({"question": "\u200b", "context": "a"}, 400, "question must have something in it"),
        ({"question": "a\ud800", "context": "b"}, 400, "question must be valid Unicode, got a lone surrogate"),
        ({"question": ["a", "b"], "context": ["c", "d\0"]}, 400, "context[1] must be without NUL, got one at"),
        ({"question": "a", "context": "b", "top_k": 3}, 400, "got 'top_k'"),
    ]

    async def main():
        async with in_process(model(), Settings(max_characters=100)) as client:
            return [await client.post("/answer", content=dumps(fields), headers=JSON) for fields, _, _ in cases]

    for answer, (_, status, message) in zip(asyncio.run(main()), cases, strict=True):
        assert answer.status_code == status, message
        assert message in answer.json()["error"]


def test_a_context_that_a_writing_model_cannot_take_is_413():
    request = {"json": {"question": "a", "context": "two cats " * 99}}
    (answer,) = asked(answering("{question} {context}"), None, request, path="/answer")
    assert answer.status_code == 413
    assert "what is read for question 1 must have at most" in answer.json()["error"]
    assert answer.json()["error"].endswith("; cut the context")


def test_a_question_that_leaves_no_place_for_a_context_is_413():
    (answer,) = asked(reading(), None, {"json": {"question": "where " * 400, "context": "a"}}, path="/answer")
    assert answer.status_code == 413
    assert "question 1 must have at most 252 tokens, got 400; shorten it" in answer.json()["error"]
