"""What pipelines for question answering are called with."""

from collections.abc import Mapping, Sequence
from string import Formatter
from typing import Any

from transformers import PreTrainedTokenizerBase

from ..seq2seq.sentences import split_answer
from .inputs import PipelineInputError, check_keys, check_text

SEPARATOR = "<sep>"
TEMPLATE = "{question}" + SEPARATOR + " {context}"
_KEYS = {"question", "context"}


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


def check_template(template: str) -> None:
    """Refuse a source template without `{question}` or `{context}`, or with more. Raises PipelineInputError."""
    try:
        names = {name for _, name, _, _ in Formatter().parse(template) if name is not None}
    except ValueError:  # a single brace
        names = set()
    if names != _KEYS:
        raise PipelineInputError(
            "source_template must have {question} and {context} and nothing else in braces, got " + repr(template)
        )


def default_template(tokenizer: PreTrainedTokenizerBase) -> str:
    """The source template of the task `question-answering`.

    Args:
        tokenizer: of sources.

    Raises:
        PipelineInputError: it lacks the separator, so that the model was trained with another template.
    """
    if SEPARATOR not in tokenizer.get_vocab():
        raise PipelineInputError(
            f"source_template must be given for a tokenizer without {SEPARATOR}, such as "
            "'question: {question} context: {context}' for T5"
        )
    return TEMPLATE


def check_quotable(tokenizer: PreTrainedTokenizerBase) -> None:
    """Refuse a tokenizer of targets that does not say where its tokens are in a text. Raises PipelineInputError."""
    if not tokenizer.is_fast:
        kind = type(tokenizer).__name__
        raise PipelineInputError(f"quote must be left out with {kind}, which has no offsets; load a fast tokenizer")


def as_answer(text: str, no_answer: str | None, quote: str | None) -> dict[str, str]:
    """What was written as `answer`, and as `rationale` where it says what the answer follows from.

    Args:
        no_answer, quote: as for `split_answer`.
    """
    rationale, answer = split_answer(text, no_answer, quote)
    return {"answer": answer, "rationale": rationale} if rationale else {"answer": answer}
