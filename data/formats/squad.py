"""SQuAD."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ...utils.errors import InputError
from ..text_files import read_json
from .records import list_of, look_up, text_of
from .registry import register_format


@register_format("squad")
def read_squad(*, path: str | Path, group: str | None = None) -> Iterator[dict[str, Any]]:
    """SQuAD 1.1 or 2 JSON: columns `question`, `context` and `answers`, and `group` where one is given.

    `answers` is as on the Hub, `{"text": [...], "answer_start": [...]}`: texts, and the characters of the context that
    they start at. Both are empty for a question that SQuAD 2 calls impossible. The JSON document is held in memory
    while it is read.
    """
    extra = {} if group is None else {"group": group}
    for place, context, question in _squad_questions(read_json(path), path):
        yield {
            "question": text_of(question, "question", place),
            "context": context,
            "answers": _answers(question, context, place),
            **extra,
        }


def _answers(question: Any, context: str, place: str) -> dict[str, list[Any]]:
    answers = list_of(question, "answers", place)
    if bool(answers) == bool(question.get("is_impossible", False)):
        raise InputError(
            f"{place}: 'answers' must have at least one answer, or none where is_impossible is true, got "
            f"{len(answers)}; correct one of them"
        )
    columns: dict[str, list[Any]] = {"text": [], "answer_start": []}
    for answer in answers:
        text, start = text_of(answer, "text", place), look_up(answer, "answer_start", place)
        if type(start) is not int or start < 0 or context[start : start + len(text)] != text:
            raise InputError(
                f"{place}: 'answer_start' must be where {text[:40]!r} starts in the context, got {start!r}; correct it"
            )
        columns["text"].append(text)
        columns["answer_start"].append(start)
    return columns


def _squad_questions(document: Any, path: str | Path) -> Iterator[tuple[str, str, Any]]:
    """The place, the context and the JSON object of each question."""
    for article_index, article in enumerate(list_of(document, "data", str(path))):
        for paragraph_index, paragraph in enumerate(list_of(article, "paragraphs", f"{path}, data[{article_index}]")):
            place = f"{path}, data[{article_index}].paragraphs[{paragraph_index}]"
            context = text_of(paragraph, "context", place)
            for question_index, question in enumerate(list_of(paragraph, "qas", place)):
                yield f"{place}.qas[{question_index}]", context, question
