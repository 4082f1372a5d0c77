"""SQuAD."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from datasets import Dataset

from ...utils.errors import InputError
from ..text_files import read_json
from .records import as_text, list_of, look_up, to_dataset
from .registry import register_format


@register_format("squad")
def load_squad(*, path: str | Path, group: str | None = None) -> Dataset:
    """SQuAD 1.1 JSON: columns `question`, `context` and `answers` (a list of text), and `group` where one is given."""
    document = read_json(path)
    rows = []
    for place, context, question in _squad_questions(document, path):
        answers = [
            as_text(look_up(answer, "text", place), place, "text") for answer in list_of(question, "answers", place)
        ]
        if not answers:
            raise InputError(f"{place}: no answers: expected at least one, as in SQuAD 1.1")
        rows.append({"question": as_text(look_up(question, "question", place), place, "question"), "context": context})
        rows[-1] |= {"answers": answers} | ({} if group is None else {"group": group})
    return to_dataset(rows, ("question", "context", "answers", *(() if group is None else ("group",))), path)


def _squad_questions(document: Any, path: str | Path) -> Iterator[tuple[str, str, Any]]:
    for article_at, article in enumerate(list_of(document, "data", str(path))):
        for paragraph_at, paragraph in enumerate(list_of(article, "paragraphs", f"{path}, data[{article_at}]")):
            place = f"{path}, data[{article_at}].paragraphs[{paragraph_at}]"
            context = as_text(look_up(paragraph, "context", place), place, "context")
            for question_at, question in enumerate(list_of(paragraph, "qas", place)):
                yield f"{place}.qas[{question_at}]", str(context), question
