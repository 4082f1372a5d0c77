"""SQuAD."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ...utils.errors import InputError
from ..text_files import read_json
from .records import Text, list_of, text_of
from .registry import register_format


@register_format("squad")
def read_squad(*, path: str | Path, group: str | None = None) -> Iterator[dict[str, Text]]:
    """SQuAD 1.1 JSON: columns `question`, `context` and `answers` (a list of text), and `group` where one is given.

    The JSON document is held in memory while it is read.
    """
    extra = {} if group is None else {"group": group}
    for place, context, question in _squad_questions(read_json(path), path):
        answers = [text_of(answer, "text", place) for answer in list_of(question, "answers", place)]
        if not answers:
            raise InputError(f"{place}: 'answers' must have at least one answer, as in SQuAD 1.1, got none; add one")
        yield {
            "question": text_of(question, "question", place),
            "context": context,
            "answers": answers,
            **extra,
        }


def _squad_questions(document: Any, path: str | Path) -> Iterator[tuple[str, str, Any]]:
    """The place, the context and the JSON object of each question."""
    for article_index, article in enumerate(list_of(document, "data", str(path))):
        for paragraph_index, paragraph in enumerate(list_of(article, "paragraphs", f"{path}, data[{article_index}]")):
            place = f"{path}, data[{article_index}].paragraphs[{paragraph_index}]"
            context = text_of(paragraph, "context", place)
            for question_index, question in enumerate(list_of(paragraph, "qas", place)):
                yield f"{place}.qas[{question_index}]", context, question
