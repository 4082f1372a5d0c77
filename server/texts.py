"""Summaries, and answers to questions about contexts."""

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from ..pipelines.inputs import PipelineInputError
from ..pipelines.questions import as_questions
from ..utils.text import is_blank
from .errors import as_bad_request, bad_request, too_large
from .events import EXAMPLE, EventStream
from .fields import brief, text_field, texts_field
from .models import TextModel
from .openapi import TEXT, TEXT_OR_LIST, describe
from .question_answering import Question, ReadingModel, WritingModel
from .service import Service


def summarization_routes(service: Service, model: TextModel) -> APIRouter:
    """/summarize and /summarize/stream."""
    router = APIRouter(tags=["summarization"])
    example = {"text": "A long text."}

    @router.post(
        "/summarize",
        summary="Summarize a text or a list of texts",
        openapi_extra=describe(
            ["text"], {"text": TEXT_OR_LIST}, example, {"application/json": {"summary_text": "..."}}
        ),
    )
    async def summarize(request: Request) -> Response:
        fields = await service.fields(request, "text", lists=("text",))
        texts, is_list = texts_field(fields, "text", service.settings)
        outputs = await service.answers(request, texts)
        return JSONResponse({"summary_text": outputs if is_list else outputs[0]})

    @router.post(
        "/summarize/stream",
        summary="Summarize a text by greedy decoding, a piece at a time, as Server-Sent Events",
        openapi_extra=describe(["text"], {"text": TEXT}, example, {"text/event-stream": EXAMPLE}),
    )
    async def summarize_stream(request: Request) -> Response:
        fields = await service.fields(request, "text")
        stream = await service.stream(request, text_field(fields, "text", service.settings), model)
        return EventStream(stream, lambda whole: {"summary_text": whole})

    return router


def answer_routes(service: Service, model: ReadingModel | WritingModel) -> APIRouter:
    """/answer: by a span of the context, or by a text that the model writes."""
    router = APIRouter(tags=["question answering"])
    example = {"question": "Where is Ann?", "context": "Bob left. Ann is in the garden."}
    answer_example: dict[str, Any] = {"answer": "the garden"}
    if isinstance(model, ReadingModel):
        answer_example |= {"score": 0.98, "start": 20, "end": 30}
    elif model.quote:
        answer_example |= {"rationale": "Ann is in the garden."}

    @router.post(
        "/answer",
        summary="Answer a question about a context, or several: a list of questions has one context, or one for each",
        openapi_extra=describe(
            ["question", "context"],
            {"question": TEXT_OR_LIST, "context": TEXT_OR_LIST},
            example,
            {"application/json": answer_example},
        ),
    )
    async def answer(request: Request) -> Response:
        fields = await service.fields(request, "question", "context", lists=("question", "context"))
        pairs, is_list = _questions(fields, service)
        outputs = await service.answers(request, pairs)
        return JSONResponse(outputs if is_list else outputs[0])

    return router


def _questions(fields: dict[str, Any], service: Service) -> tuple[list[Question], bool]:
    """The questions with their contexts, and whether they were a list. Raises ApiError."""
    most = service.settings.max_characters
    questions, is_list = texts_field(fields, "question", service.settings)
    contexts, _ = texts_field(fields, "context", service.settings)
    for name, texts in (("question", questions), ("context", contexts)):
        for text in texts:
            if is_blank(text):
                raise bad_request(f"{name} must have something in it, got {brief(text)}; give one")
    with as_bad_request(PipelineInputError):
        items = as_questions((), questions if is_list else questions[0], fields["context"])
    pairs = [(item["question"], item["context"]) for item in (items if is_list else [items])]
    for question, context in pairs:
        if len(question) + len(context) > most:
            raise too_large(
                f"question and context must have at most {most} characters together, got "
                f"{len(question) + len(context)}; cut the context"
            )
    return pairs, is_list
