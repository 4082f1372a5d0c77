"""The answers to a question, as SQuAD's files, the Hub and plain records have them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeGuard

from ..utils.errors import InputError
from .records import check_text, column, excerpt, text_column


def answer_texts(record: Mapping[str, Any]) -> tuple[str, ...]:
    """The different texts of a record's answers, none where the question has no answer.

    They are `answer` (one text), or `answers`: a list of texts, `{"text": [...]}` as SQuAD has them on the Hub, or
    `[{"text": ...}, ...]` as its files do.

    Raises:
        InputError: neither is there, or is one of these.
    """
    if "answers" not in record:
        fix = "add 'answer' (a text) or 'answers' (a list of texts, or SQuAD's {'text': [...]})"
        return (text_column(record, "answer", fix),)
    answers = record["answers"]
    kind = type(answers).__name__
    if isinstance(answers, Mapping):
        kind = "a mapping without 'text'" if "text" not in answers else f"'text' as {type(answers['text']).__name__}"
        answers = answers.get("text")
    if not _is_list(answers):
        wanted = "a list of texts or SQuAD's {'text': [...]}"
        raise InputError(f"column 'answers' must hold {wanted}, got {kind} in {excerpt(record)}")
    texts = (answer.get("text") if isinstance(answer, Mapping) else answer for answer in answers)
    return tuple(dict.fromkeys(check_text(text, "answers", record) for text in texts))


def answer_spans(record: Mapping[str, Any], context: str, fix: str) -> list[tuple[int, int]]:
    """The characters of `context` that a record's answers are, `(first, one past the last)`; none of no answer.

    Raises:
        InputError: `answers` have no `answer_start` as SQuAD's have (`fix` ends the message), or do not stand in the
            context there.
    """
    answers = column(record, "answers", fix)
    if _is_list(answers) and all(isinstance(answer, Mapping) for answer in answers):
        answers = {name: [answer.get(name) for answer in answers] for name in ("text", "answer_start")}
    texts, starts = (answers.get(name) if isinstance(answers, Mapping) else None for name in ("text", "answer_start"))
    if not _is_list(texts) or not _is_list(starts) or any(type(start) is not int for start in starts):
        wanted = "{'text': [...], 'answer_start': [...]}"
        raise InputError(f"column 'answers' must be {wanted}, got {excerpt({'answers': answers})}; {fix}")
    if len(texts) != len(starts):
        raise InputError(f"column 'answers' has {len(texts)} texts and {len(starts)} starts in {excerpt(record)}")
    spans = []
    for text, start in zip(texts, starts, strict=True):
        if not isinstance(text, str) or not text or start < 0 or not context.startswith(text, start):
            raise InputError(f"the answer {text!r} is not in the context at answer_start={start}: {excerpt(record)}")
        spans.append((start, start + len(text)))
    return spans


def _is_list(value: Any) -> TypeGuard[Sequence[Any]]:
    return isinstance(value, Sequence) and not isinstance(value, str | bytes)
