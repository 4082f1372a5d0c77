"""What pipelines for question answering are called with."""

from collections.abc import Mapping, Sequence
from string import Formatter
from typing import Any

from transformers import PreTrainedTokenizerBase

from ..seq2seq.quoting import QUOTES
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


def names_in(template: str) -> tuple[str, ...]:
    """The names in braces of a template. Raises ValueError for a single brace, and for a format behind a name."""
    fields = [field for field in Formatter().parse(template) if field[1] is not None]
    for _, name, spec, conversion in fields:
        if spec or conversion:
            raise ValueError(f"{{{name}}} must have nothing behind the name, got {spec or conversion!r}")
    return tuple(str(name) for _, name, _, _ in fields)


def check_options(source_template: str | None = None, no_answer: str | None = None, quote: str | None = None) -> None:
    """Refuse a template without `{question}` or `{context}`, or with more, and what else cannot be. None is left out.

    Raises:
        PipelineInputError: with the option and what it must be.
    """
    for name, value in (("source_template", source_template), ("no_answer", no_answer)):
        if value is not None and (not isinstance(value, str) or not value.strip()):
            raise PipelineInputError(f"{name} must be a text, got {value!r}")
    if quote not in (None, *QUOTES):
        raise PipelineInputError(f"quote must be one of {', '.join(QUOTES)}, got {quote!r}")
    if source_template is None:
        return
    try:
        names = set(names_in(source_template))
    except ValueError:
        names = set()
    if names != _KEYS:
        raise PipelineInputError(
            "source_template must have {question} and {context} and nothing else in braces, got "
            f"{source_template!r}"
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
