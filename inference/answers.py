"""Answers to questions about contexts, in batches of windows of like length."""

import inspect
from collections.abc import Sequence
from functools import reduce
from operator import and_
from typing import Any

import torch
from tqdm.auto import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..data.length_buckets import bucket_batches
from ..masks.rules import blind, keep
from ..question_answering.decoding import Answer, WindowSpans, best_answers, spans_of_windows
from ..question_answering.modeling import CrossMaskForQuestionAnswering
from ..question_answering.window_masks import Spans, hidden_tokens, kept_tokens
from ..question_answering.windows import WindowCollator, encode_windows
from ..utils.errors import InputError


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
    if null_threshold and not getattr(model.config, "no_answer", True):
        raise InputError(
            f"null_threshold must be left out for a model that always answers, got {null_threshold}; train one with "
            "no_answer: true"
        )
    windows = encode_windows(tokenizer, questions, contexts, max_length=max_length, stride=stride)
    if (passages, hidden) != (None, None) and not isinstance(model, CrossMaskForQuestionAnswering):
        raise InputError(
            f"passages and hidden must be left out for {type(model).__name__}, which takes no masks; give a "
            "CrossMaskForQuestionAnswering"
        )
    masks = [
        *([] if passages is None else [(keep, kept_tokens(windows, passages))]),
        *([] if hidden is None else [(blind, hidden_tokens(windows, contexts, hidden))]),
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
