"""Answers to questions about contexts, in batches of windows of like length."""

import inspect
from collections.abc import Mapping, Sequence
from functools import reduce
from operator import and_
from typing import Any

import torch
from tqdm.auto import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.modeling_outputs import QuestionAnsweringModelOutput

from ..data.length_buckets import bucket_batches
from ..masks.rules import blind, keep
from ..question_answering.decoding import Answer, WindowSpans, best_answers, best_spans
from ..question_answering.modeling import CrossMaskForQuestionAnswering
from ..question_answering.windows import Window, WindowCollator, encode_windows
from ..utils.errors import InputError

Spans = Sequence[tuple[int, int]]


def answer(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, question: str, context: str, **options: Any
) -> Answer:
    """The best answer to one question; `answer_batch` explains the options, of which `n_best` is not one.

    ```python
    >>> answer(model, tokenizer, "Where is Ann?", "Bob left. Ann is in the garden.")
    Answer(text='the garden', score=0.98, start=20, end=30, sentence=(10, 31))
    ```
    """
    for name in ("passages", "hidden"):
        if options.get(name) is not None:
            options[name] = [options[name]]
    return answer_batch(model, tokenizer, [question], [context], n_best=1, **options)[0][0]


def answer_batch(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    questions: Sequence[str],
    contexts: Sequence[str],
    *,
    n_best: int = 1,
    max_answer_length: int = 30,
    null_threshold: float = 0.0,
    passages: Sequence[Sequence[int] | None] | None = None,
    hidden: Sequence[Spans | None] | None = None,
    max_length: int = 384,
    stride: int = 128,
    batch_tokens: int = 8192,
    progress: bool = False,
) -> list[list[Answer]]:
    """The best answers to each question from its context, best first, in the order given.

    Works for every model that `AutoModelForQuestionAnswering` loads; `passages` and `hidden` need one of crossmask.

    Args:
        n_best: how many answers to give at most.
        max_answer_length: of an answer, in tokens.
        null_threshold: how much more than no answer an answer must score, where the model knows no answer.
        passages: for each context the numbers of the paragraphs, which line breaks part, that the answer may be in;
            None for all.
        hidden: for each context the characters `(first, one past the last)` that nothing reads: what stands there
            changes no answer and no score, but for its length. None for none.
        max_length, stride: of the windows that a context is cut into, in tokens, as in `encode_windows`.
        batch_tokens: tokens in a batch at most, padding included.
        progress: whether to show a bar.

    Raises:
        ValueError: texts that are empty or do not pair up, options that do not fit, a context without such a paragraph
            or such characters.
    """
    for name, value in (("n_best", n_best), ("max_answer_length", max_answer_length), ("batch_tokens", batch_tokens)):
        if value < 1:
            raise InputError(f"{name} must be at least 1, got {value}")
    windows = encode_windows(tokenizer, questions, contexts, max_length=max_length, stride=stride)
    if (passages, hidden) != (None, None) and not isinstance(model, CrossMaskForQuestionAnswering):
        raise InputError(
            f"passages and hidden must be left out for {type(model).__name__}, which takes no masks; give a "
            "CrossMaskForQuestionAnswering"
        )
    masks = [
        *([] if passages is None else [(keep, _kept_tokens(windows, passages))]),
        *([] if hidden is None else [(blind, _hidden_tokens(windows, contexts, hidden))]),
    ]
    flat = [(example, window) for example, own_windows in enumerate(windows) for window in range(len(own_windows))]
    collate = WindowCollator(tokenizer.pad_token_id or 0, tokenizer.padding_side, keep_offsets=True)
    spans_of: list[list[WindowSpans | None]] = [[None] * len(own_windows) for own_windows in windows]
    taken = inspect.signature(model.forward).parameters.keys()
    training = model.training
    model.eval()
    try:
        lengths = [len(windows[example][window]["input_ids"]) for example, window in flat]
        with tqdm(total=len(flat), unit="window", disable=not progress) as bar:
            for bucket in bucket_batches(lengths, None, batch_tokens):
                chosen = [flat[index] for index in bucket]
                batch = collate([windows[example][window] for example, window in chosen])
                rules = [rule(examples=tuple(rows[i][window] for i, window in chosen)) for rule, rows in masks]
                inputs = {name: batch[name].to(model.device) for name in taken & batch.keys()}
                if rules:
                    inputs["cross_mask"] = reduce(and_, rules)
                with torch.no_grad():
                    spans = spans_of_windows(model(**inputs), batch, n_best, max_answer_length)
                for (example, window), span in zip(chosen, spans, strict=True):
                    spans_of[example][window] = span
                bar.update(len(chosen))
    finally:
        model.train(training)
    return [
        best_answers(
            context, [span for span in spans if span is not None], n_best=n_best, null_threshold=null_threshold
        )
        for context, spans in zip(contexts, spans_of, strict=True)
    ]


def spans_of_windows(
    outputs: QuestionAnsweringModelOutput,
    batch: Mapping[str, torch.Tensor],
    n_best: int = 1,
    max_answer_length: int = 30,
) -> list[WindowSpans]:
    """The best spans of a batch, from the scores that a question answering model gave for it.

    The models of Transformers score all tokens, of which those of the context alone have characters in it.

    Args:
        outputs: `start_logits`, `end_logits` and, where the model has it, `no_answer_logits`.
        batch: as `WindowCollator(..., keep_offsets=True)` made it.
    """
    start, end = outputs.start_logits, outputs.end_logits
    if start is None or end is None:
        raise InputError("outputs must have start_logits and end_logits; give those of a question answering model")
    start, end = (logits.to(torch.promote_types(logits.dtype, torch.float32)) for logits in (start, end))
    none = getattr(outputs, "no_answer_logits", None)
    offsets = batch["offsets"].to(start.device)
    return best_spans(start, end, offsets, none, n_best=n_best, max_answer_length=max_answer_length)


def _kept_tokens(
    windows: Sequence[Sequence[Window]], passages: Sequence[Sequence[int] | None]
) -> list[list[tuple[tuple[int, int], ...]]]:
    """The tokens of chosen passages, as spans, by example and window; of all tokens where none are chosen.

    Raises:
        InputError: a passage that is not there, or passages for another number of contexts.
    """
    _check_number("passages", passages, windows)
    kept = []
    for index, (own_windows, chosen) in enumerate(zip(windows, passages, strict=True)):
        last = max(max(window["passage_ids"]) for window in own_windows)
        for number in chosen or ():
            if not 0 <= number <= last:
                raise InputError(
                    f"passages[{index}]: there is no passage {number}; the context has 0 to {last}, which line breaks "
                    "part"
                )
        kept.append(
            [
                _runs([chosen is None or passage in chosen for passage in window["passage_ids"]])
                for window in own_windows
            ]
        )
    return kept


def _hidden_tokens(
    windows: Sequence[Sequence[Window]], contexts: Sequence[str], hidden: Sequence[Spans | None]
) -> list[list[tuple[tuple[int, int], ...]]]:
    """The tokens with a character of what is hidden, as spans, by example and window.

    Raises:
        InputError: characters that are not there, or spans for another number of contexts.
    """
    _check_number("hidden", hidden, windows)
    hidden_tokens = []
    for index, (own_windows, context, spans) in enumerate(zip(windows, contexts, hidden, strict=True)):
        for start, end in spans or ():
            if not 0 <= start < end <= len(context):
                raise InputError(
                    f"hidden[{index}]: a span must be (first character, one past the last) within the {len(context)} "
                    f"of the context, got {(start, end)}"
                )
        hidden_tokens.append(
            [
                _runs([any(first < end and last > start for start, end in spans or ()) for first, last in offsets])
                for offsets in (window["offsets"] for window in own_windows)
            ]
        )
    return hidden_tokens


def _check_number(name: str, own_windowss: Sequence[Any], windows: Sequence[Any]) -> None:
    if len(own_windowss) != len(windows):
        raise InputError(
            f"{name} for {len(own_windowss)} contexts, but there are {len(windows)}; give None for those without"
        )


def _runs(chosen: Sequence[bool]) -> tuple[tuple[int, int], ...]:
    """Where runs of True are, `(first, one past the last)`."""
    borders = [
        index
        for index, (before, now) in enumerate(zip([False, *chosen], [*chosen, False], strict=True))
        if before != now
    ]
    return tuple(zip(borders[::2], borders[1::2], strict=True))
