"""SQuAD."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from datasets import Dataset, Features, List, Value

from ...utils.errors import InputError
from ..text_files import read_json
from .records import as_text, list_of, look_up
from .registry import register_format

ANSWERS = {"text": List(Value("string")), "answer_start": List(Value("int64"))}


@register_format("squad")
def load_squad(*, path: str | Path, group: str | None = None) -> Dataset:
    """SQuAD 1.1 or 2 JSON: columns `question`, `context` and `answers`, and `group` where one is given.

    `answers` is as on the Hub: `{"text": [...], "answer_start": [...]}`, texts and the characters of the context that
    they start at; both are empty for a question that SQuAD 2 marks as impossible.
    """
    rows = []
    for place, context, question in _squad_questions(read_json(path), path):
        text = as_text(look_up(question, "question", place), place, "question")
        answers = _answers(question, str(context), place)
        row = {"question": text, "context": context, "answers": answers}
        rows.append(row | ({} if group is None else {"group": group}))
    if not rows:
        raise InputError(f"{path} has no records: expected at least one")
    string = Value("string")
    columns = {"question": string, "context": string, "answers": ANSWERS}
    columns |= {} if group is None else {"group": string}
    return Dataset.from_dict({name: [row[name] for row in rows] for name in columns}, features=Features(columns))


def _answers(question: Any, context: str, place: str) -> dict[str, list[Any]]:
    answers = list_of(question, "answers", place)
    impossible = question.get("is_impossible", False)
    if bool(answers) == bool(impossible):
        expected = "none, as is_impossible says" if impossible else "at least one, or is_impossible, as in SQuAD 2"
        raise InputError(f"{place}: {len(answers)} answers: expected {expected}")
    found: dict[str, list[Any]] = {"text": [], "answer_start": []}
    for answer in answers:
        text, start = as_text(look_up(answer, "text", place), place, "text"), look_up(answer, "answer_start", place)
        if not isinstance(text, str) or not isinstance(start, int) or context[start : start + len(text)] != text:
            raise InputError(f"{place}: the answer {str(text)[:40]!r} is not in the context at answer_start={start!r}")
        found["text"].append(text)
        found["answer_start"].append(start)
    return found


def _squad_questions(document: Any, path: str | Path) -> Iterator[tuple[str, str, Any]]:
    for article_at, article in enumerate(list_of(document, "data", str(path))):
        for paragraph_at, paragraph in enumerate(list_of(article, "paragraphs", f"{path}, data[{article_at}]")):
            place = f"{path}, data[{article_at}].paragraphs[{paragraph_at}]"
            context = as_text(look_up(paragraph, "context", place), place, "context")
            for question_at, question in enumerate(list_of(paragraph, "qas", place)):
                yield f"{place}.qas[{question_at}]", str(context), question
