"""What pipelines for question answering are called with."""

from collections.abc import Mapping, Sequence
from typing import Any

from .inputs import PipelineInputError, check_keys, check_text


def as_questions(
    inputs: Sequence[Any], question: str | Sequence[str] | None, context: str | Sequence[str] | None
) -> Any:
    """The inputs of a call: those given, or made of a question and a context, or of lists of these.

    Raises:
        PipelineInputError: both, neither, or lists that do not pair up.
    """
    if inputs:
        if question is not None or context is not None:
            raise PipelineInputError("question and context must be left out beside other inputs; put them into these")
        return inputs[0] if len(inputs) == 1 else list(inputs)
    if question is None or context is None:
        raise PipelineInputError(
            "question and context must be given together, or {'question': ..., 'context': ...} in their place"
        )
    if isinstance(question, str):
        if not isinstance(context, str):
            raise PipelineInputError(f"context must be a text, as question is one, got {type(context).__name__}")
        return {"question": question, "context": context}
    contexts = [context] * len(question) if isinstance(context, str) else list(context)
    if len(contexts) != len(question):
        raise PipelineInputError(
            f"context must be one text, or one for each of {len(question)} questions, got {len(contexts)}"
        )
    return [{"question": one, "context": text} for one, text in zip(question, contexts, strict=True)]


def create_sample(question: str | Sequence[str], context: str | Sequence[str]) -> Any:
    """The input, or the list of inputs, of questions and their contexts."""
    return as_questions((), question, context)


def check_question(item: Any, name: str, optional: Sequence[str]) -> tuple[str, str]:
    """The question and the context of an input. Raises PipelineInputError."""
    if not isinstance(item, Mapping):
        raise PipelineInputError(
            f"{name} must be {{'question': ..., 'context': ...}}, got {type(item).__name__}; put both into a mapping"
        )
    check_keys(item, name, ("question", "context"), optional)
    question, context = (check_text(item[key], f"{name}: {key!r}") for key in ("question", "context"))
    return question, context
