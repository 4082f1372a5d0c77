"""From scores to answers: the best spans of a context, over all of its windows.

Letters: B batch (windows), S source length, L the most tokens of an answer.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import nn
from transformers.modeling_outputs import QuestionAnsweringModelOutput

from ..seq2seq.sentences import sentence_around


@dataclass(frozen=True)
class Answer:
    """An answer, or that there is none.

    Attributes:
        text: `context[start:end]`, to the character; "" where there is no answer.
        score: its probability among all valid spans of the context, and no answer where the model knows it, 0 to 1.
        start, end: its characters in the context, first and one past the last; None where there is no answer.
        sentence: the characters, likewise, of the sentence that it was read from (`sentence_spans`).
    """

    text: str
    score: float
    start: int | None = None
    end: int | None = None
    sentence: tuple[int, int] | None = None


class WindowSpans(NamedTuple):
    """The best spans of a window.

    Attributes:
        spans: score, first character and one past the last, best first.
        log_total: the logarithm of the sum of the exponentials of the scores of all valid spans, -inf without any.
        no_answer: whether the scores are what a span has more than no answer has, whose own is then 0.
    """

    spans: list[tuple[float, int, int]]
    log_total: float
    no_answer: bool


def span_scores(start_logits: torch.Tensor, end_logits: torch.Tensor, max_answer_length: int) -> torch.Tensor:
    """The sum of a start's and an end's score for each valid span: (B, S) twice to (B, S, L).

    A span is valid where an answer may start at its first token, end at its last, and touches no token at which it may
    do neither. The others get -inf.
    """
    lowest = torch.finfo(start_logits.dtype).min
    starts, ends = start_logits > lowest, end_logits > lowest
    gaps = (~(starts | ends)).cumsum(-1)  # equal for two tokens that have none between them

    def shifted(values: torch.Tensor, fill: float) -> torch.Tensor:
        return nn.functional.pad(values, (0, max_answer_length - 1), value=fill).unfold(-1, max_answer_length, 1)

    valid = starts[..., None] & shifted(ends, False) & (gaps[..., None] == shifted(gaps, -1))
    return (start_logits[..., None] + shifted(end_logits, 0.0)).masked_fill(~valid, -torch.inf)


def best_spans(
    start_logits: torch.Tensor,
    end_logits: torch.Tensor,
    offsets: torch.Tensor,
    no_answer_logits: torch.Tensor | None = None,
    *,
    n_best: int = 1,
    max_answer_length: int = 30,
) -> list[WindowSpans]:
    """The best spans of each window.

    Args:
        start_logits, end_logits: (B, S), the lowest number where no answer may be.
        offsets: (B, S, 2) int64, the characters of each token; a token without any starts and ends no answer.
        no_answer_logits: (B,), or None.
        n_best: how many spans of a window to keep at most.
        max_answer_length: in tokens.
    """
    wordless = offsets[..., 0] == offsets[..., 1]
    values = span_scores(start_logits, end_logits, max_answer_length)
    last = nn.functional.pad(wordless, (0, max_answer_length - 1), value=True).unfold(-1, max_answer_length, 1)
    values = values.masked_fill(wordless[..., None] | last, -torch.inf)
    if no_answer_logits is not None:
        values = values - no_answer_logits[:, None, None]
    flat = values.flatten(1)
    totals = flat.logsumexp(-1).tolist()
    top = flat.topk(min(n_best, flat.shape[1]))
    windows = []
    for row, (scores, places) in enumerate(zip(top.values.tolist(), top.indices.tolist(), strict=True)):
        spans = []
        for score, place in zip(scores, places, strict=True):
            first, length = divmod(place, max_answer_length)
            if score > -math.inf:
                spans.append((score, int(offsets[row, first, 0]), int(offsets[row, first + length, 1])))
        windows.append(WindowSpans(spans, totals[row], no_answer_logits is not None))
    return windows


def best_answers(
    context: str, windows: Sequence[WindowSpans], *, n_best: int = 1, null_threshold: float = 0.0
) -> list[Answer]:
    """The best answers that a context has over all of its windows, each span once, best first.

    Where the model scores that there is none, that comes first if no span has a score of `null_threshold` or more.

    Args:
        windows: as `best_spans` found them, with the same `n_best` or more.

    Returns:
        at least one: no answer, with a score of 0, where no span is valid and the model has no score for that.
    """
    scores: dict[tuple[int, int], float] = {}
    for window in windows:
        for score, start, end in window.spans:
            scores[start, end] = max(score, scores.get((start, end), -math.inf))
    knows_no_answer = any(window.no_answer for window in windows)
    totals = [window.log_total for window in windows] + [0.0] * knows_no_answer
    log_total = float(torch.tensor(totals, dtype=torch.float64).logsumexp(0))
    ranked = sorted(scores.items(), key=lambda item: (-item[1], item[0]))[:n_best]
    answers = [
        Answer(context[start:end], math.exp(score - log_total), start, end, sentence_around(context, start, end))
        for (start, end), score in ranked
    ]
    if not knows_no_answer:
        return answers or [Answer("", 0.0)]
    if not ranked or ranked[0][1] < null_threshold:
        place = 0
    else:
        place = max(1, sum(score >= 0 for _, score in ranked))
    answers.insert(place, Answer("", math.exp(-log_total)))
    return answers[:n_best]


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
        raise ValueError("outputs must have start_logits and end_logits; give those of a question answering model")
    start, end = (logits.to(torch.promote_types(logits.dtype, torch.float32)) for logits in (start, end))
    none = getattr(outputs, "no_answer_logits", None)
    offsets = batch["offsets"].to(start.device)
    return best_spans(start, end, offsets, none, n_best=n_best, max_answer_length=max_answer_length)
