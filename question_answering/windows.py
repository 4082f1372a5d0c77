"""Question and context as windows of tokens: what the encoder reads at once, and where its tokens are in the text.

A context that is longer than an encoder takes is cut into windows that overlap, each behind the whole question.
"""

import re
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence

from .loss import NO_ANSWER

Window = dict[str, Any]
"""`input_ids`, `passage_ids` (as the model takes them), `token_type_ids` where the tokenizer has them, and `offsets`.

`offsets` has the characters of the context that each token is from, `(first, one past the last)`, without whitespace
at its ends; `(0, 0)` for tokens of the question and special ones. With answers there are also `start_positions` and
`end_positions`: the answer's tokens, or -1 twice where the window does not hold it whole.
"""

_PARAGRAPH = re.compile(r"[^\n]*\S[^\n]*")
_FILL = {"passage_ids": -1, "token_type_ids": 0, "attention_mask": 0}


def encode_windows(
    tokenizer: Any,
    questions: Sequence[str],
    contexts: Sequence[str],
    *,
    max_length: int = 384,
    stride: int = 128,
    answers: Sequence[tuple[int, int] | None] | None = None,
) -> list[list[Window]]:
    """The windows of each question and its context, in the order of the text.

    The context's paragraphs, which line breaks part, are its passages, counted from 0.

    Args:
        tokenizer: a fast one of Transformers, the encoder's.
        max_length: tokens in a window at most, with those of the question and special ones.
        stride: how many tokens of the context neighbouring windows share. An answer that is longer than this may be
            whole in none of them.
        answers: for each context the characters of the answer, `(first, one past the last)`, None where it has none.

    Raises:
        ValueError: a tokenizer without offsets, other numbers of questions and contexts, an empty text, an answer
            outside of its context, or a question that leaves no place for the context.
    """
    if not getattr(tokenizer, "is_fast", False):
        raise ValueError(
            f"{type(tokenizer).__name__} does not tell from which characters a token is; load a fast tokenizer"
        )
    _check_texts(questions, contexts)
    if answers is not None:
        _check_answers(contexts, answers)
    _check_lengths(tokenizer, questions, max_length, stride)
    side = tokenizer.truncation_side
    tokenizer.truncation_side = "right"  # the windows are to come in the order of the text
    try:
        encoded = tokenizer(
            list(questions),
            list(contexts),
            truncation="only_second",
            max_length=max_length,
            stride=stride,
            padding=False,
            return_overflowing_tokens=True,
            return_offsets_mapping=True,
        )
    finally:
        tokenizer.truncation_side = side
    windows: list[list[Window]] = [[] for _ in questions]
    starts = [[match.start() for match in _PARAGRAPH.finditer(context)] for context in contexts]
    for index, example in enumerate(encoded["overflow_to_sample_mapping"]):
        context = contexts[example]
        is_context = [part == 1 for part in encoded.sequence_ids(index)]
        offsets = [
            _trim(context, first, last) if inside else (0, 0)
            for (first, last), inside in zip(encoded["offset_mapping"][index], is_context, strict=True)
        ]
        window: Window = {
            "input_ids": encoded["input_ids"][index],
            "passage_ids": [
                max(bisect_right(starts[example], first) - 1, 0) if inside else -1
                for (first, _), inside in zip(offsets, is_context, strict=True)
            ],
            "offsets": offsets,
        }
        if "token_type_ids" in encoded:
            window["token_type_ids"] = encoded["token_type_ids"][index]
        if answers is not None:
            window["start_positions"], window["end_positions"] = _tokens_of(answers[example], window)
        windows[example].append(window)
    return windows


def longest_question(tokenizer: Any, max_length: int = 384, stride: int = 128) -> int:
    """The most tokens of a question that leave a place for the context; arguments are those of `encode_windows`."""
    return max_length - stride - tokenizer.num_special_tokens_to_add(pair=True) - 1


def _trim(context: str, first: int, last: int) -> tuple[int, int]:
    """The characters without whitespace at their ends, which some tokenizers count to a word."""
    part = context[first:last]
    first += len(part) - len(part.lstrip())
    return first, max(first, last - (len(part) - len(part.rstrip())))


def _tokens_of(answer: tuple[int, int] | None, window: Window) -> tuple[int, int]:
    """First and last token that share a character with an answer, -1 twice where the window has not all of it."""
    if answer is None:
        return NO_ANSWER, NO_ANSWER
    spans = [
        (index, *span)
        for index, (span, passage) in enumerate(zip(window["offsets"], window["passage_ids"], strict=True))
        if passage >= 0 and span[0] < span[1]
    ]
    if not spans or spans[0][1] > answer[0] or spans[-1][2] < answer[1]:
        return NO_ANSWER, NO_ANSWER
    inside = [index for index, first, last in spans if first < answer[1] and last > answer[0]]
    return (inside[0], inside[-1]) if inside else (NO_ANSWER, NO_ANSWER)


def _check_texts(questions: Sequence[str], contexts: Sequence[str]) -> None:
    for name, texts in (("questions", questions), ("contexts", contexts)):
        if isinstance(texts, str | bytes):
            raise ValueError(f"{name} must be a list of texts, got {type(texts).__name__}; write [text]")
        for index, text in enumerate(texts):
            if not isinstance(text, str):
                raise ValueError(f"{name}[{index}] must be text, got {type(text).__name__}")
            if not text.strip():
                raise ValueError(f"{name}[{index}] is empty; leave the example out")
    if len(questions) != len(contexts) or not len(questions):
        raise ValueError(
            f"{len(questions)} questions and {len(contexts)} contexts; give one context for each question"
        )


def _check_answers(contexts: Sequence[str], answers: Sequence[tuple[int, int] | None]) -> None:
    if len(answers) != len(contexts):
        raise ValueError(f"{len(answers)} answers and {len(contexts)} contexts; give one for each, or None")
    for index, (context, answer) in enumerate(zip(contexts, answers, strict=True)):
        if answer is not None and not 0 <= answer[0] < answer[1] <= len(context):
            raise ValueError(
                f"answers[{index}] must be (first character, one past the last) within the {len(context)} of the "
                f"context, got {tuple(answer)}"
            )


def _check_lengths(tokenizer: Any, questions: Sequence[str], max_length: int, stride: int) -> None:
    if stride < 0:
        raise ValueError(f"stride must be at least 0, got {stride}")
    longest = longest_question(tokenizer, max_length, stride)
    encoded = tokenizer(list(questions), add_special_tokens=False, verbose=False)["input_ids"]
    for index, ids in enumerate(encoded):
        if len(ids) > longest:
            raise ValueError(
                f"questions[{index}] has {len(ids)} tokens, which leave {longest - len(ids) + stride + 1} of "
                f"max_length={max_length} to the context, no more than stride={stride}; shorten it, raise max_length "
                "or lower stride"
            )


@dataclass(frozen=True)
class WindowCollator:
    """Pads windows to a batch.

    ```python
    >>> collate = WindowCollator.for_tokenizer(tokenizer)
    >>> model(**collate(encode_windows(tokenizer, ["Where is Ann?"], ["Ann is here."])[0]))
    ```

    Args:
        pad_token_id: fills `input_ids`. padding_side: where.
        keep_offsets: whether batches have `offsets`, for `best_spans`; models do not take them.

    Called with windows, it returns `input_ids`, `attention_mask`, `passage_ids` and, where the windows have them,
    `token_type_ids`, (B, S) int64 each; `start_positions` and `end_positions`, (B,), where they have answers; and
    `offsets`, (B, S, 2), where these are kept.
    """

    pad_token_id: int
    padding_side: str = "right"
    keep_offsets: bool = False

    @classmethod
    def for_tokenizer(cls, tokenizer: Any) -> "WindowCollator":
        """A collator that pads as a tokenizer does.

        Raises:
            ValueError: it has no padding token.
        """
        if tokenizer.pad_token_id is None:
            raise ValueError(f"{type(tokenizer).__name__} has no padding token; set tokenizer.pad_token")
        return cls(tokenizer.pad_token_id, tokenizer.padding_side)

    def __call__(self, windows: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        rows = {name: [torch.tensor(window[name]) for window in windows] for name in ("input_ids", "passage_ids")}
        rows["attention_mask"] = [torch.ones_like(row) for row in rows["input_ids"]]
        if all("token_type_ids" in window for window in windows):
            rows["token_type_ids"] = [torch.tensor(window["token_type_ids"]) for window in windows]
        fill = {"input_ids": self.pad_token_id, **_FILL}
        batch = {
            name: pad_sequence(row, batch_first=True, padding_value=fill[name], padding_side=self.padding_side)
            for name, row in rows.items()
        }
        if self.keep_offsets:
            offsets = [torch.tensor(window["offsets"]) for window in windows]
            batch["offsets"] = pad_sequence(offsets, batch_first=True, padding_side=self.padding_side)
        if all("start_positions" in window for window in windows):
            shift = [batch["input_ids"].shape[1] - len(row) for row in rows["input_ids"]]
            left = shift if self.padding_side == "left" else [0] * len(shift)
            for name in ("start_positions", "end_positions"):
                given = [window[name] for window in windows]
                moved = [at + by if at >= 0 else at for at, by in zip(given, left, strict=True)]
                batch[name] = torch.tensor(moved)
        return batch
