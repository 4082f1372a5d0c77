"""From scores to answers: the best spans of a context, over all of its windows.

Letters: B batch (windows), S source length, L the most tokens of an answer.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from .sentences import sentence_around


@dataclass(frozen=True)
class Answer:
    """An answer, or that there is none.

    Attributes:
        text: `context[start:end]`, to the character; "" where there is no answer.
        score: its probability among all valid spans of the context, and no answer where the model knows it, 0 to 1.
        start, end: its characters in the context, first and one past the last; None where there is no answer.
        sentence: the characters, likewise, of the sentence that it was read from (`sentences.py`).
    """

    text: str
    score: float
    start: int | None = None
    end: int | None = None
    sentence: tuple[int, int] | None = None


def span_scores(start_logits: torch.Tensor, end_logits: torch.Tensor, max_answer_length: int) -> torch.Tensor:
    """The sum of a start's and an end's score for each valid span: (B, S) twice to (B, S, L).

    A span is valid where an answer may start at its first token, end at its last, and touch no token at which it may do
    neither. The others get -inf.
    """
    lowest = torch.finfo(start_logits.dtype).min
    starts, ends = start_logits > lowest, end_logits > lowest
    gaps = (~(starts | ends)).cumsum(-1)  # equal for two tokens that have none between them

    def shifted(values: torch.Tensor, fill: float) -> torch.Tensor:
        padded = nn.functional.pad(values, (0, max_answer_length - 1), value=fill)
        return padded.unfold(-1, max_answer_length, 1)

    valid = starts[..., None] & shifted(ends, False) & (gaps[..., None] == shifted(gaps, -1))
    return (start_logits[..., None] + shifted(end_logits, 0.0)).masked_fill(~valid, -torch.inf)


def best_answers(
    context: str,
    windows: Sequence[dict[str, Any]],
    start_logits: Sequence[torch.Tensor],
    end_logits: Sequence[torch.Tensor],
    no_answer_logits: Sequence[torch.Tensor] | None = None,
    *,
    n_best: int = 1,
    max_answer_length: int = 30,
    null_threshold: float = 0.0,
) -> list[Answer]:
    """The best answers that a context has, each span once, best first.

    Where the model scores that there is none, the score of a span is what it has more than no answer has in its window,
    and no answer comes first if no span has `null_threshold` or more.

    Args:
        windows: as `encode_windows` made them. start_logits, end_logits: (S,) of each, without padding.
        no_answer_logits: () of each, or None.
        n_best: how many answers to give at most.
        max_answer_length: in tokens.

    Returns:
        one answer at least; no answer, with a score of 0, where no span is valid and the model has no score for it.
    """
    found: dict[tuple[int, int], float] = {}
    scores = []
    for index, window in enumerate(windows):
        values = span_scores(start_logits[index][None], end_logits[index][None], max_answer_length)[0].double()
        if no_answer_logits is not None:
            values = values - no_answer_logits[index]
        offsets = window["offsets"]
        empty = torch.tensor([first == last for first, last in offsets], device=values.device)
        values = values.masked_fill(empty[:, None], -torch.inf)
        scores.append(values.flatten())
        # A few more than are wanted: a token without text of its own cannot end an answer.
        top = values.flatten().topk(min(4 * n_best + 16, values.numel()))
        for value, place in zip(top.values.tolist(), top.indices.tolist(), strict=True):
            first, length = divmod(place, max_answer_length)
            if value == -torch.inf or empty[first + length]:
                continue
            span = (offsets[first][0], offsets[first + length][1])
            found[span] = max(value, found.get(span, -torch.inf))
    none = [torch.zeros(1, dtype=torch.float64, device=scores[0].device)] if no_answer_logits is not None else []
    total = torch.cat([*scores, *none]).logsumexp(0)
    ranked = sorted(found.items(), key=lambda item: (-item[1], item[0]))
    answers = [_answer(context, span, value, total) for span, value in ranked[:n_best]]
    if no_answer_logits is None:
        return answers or [Answer("", 0.0)]
    nothing = Answer("", float((-total).exp()))
    if not ranked or ranked[0][1] < null_threshold:
        return [nothing, *answers][:n_best]
    behind = sum(answer.score >= nothing.score for answer in answers[1:]) + 1
    return [*answers[:behind], nothing, *answers[behind:]][:n_best]


def _answer(context: str, span: tuple[int, int], value: float, total: torch.Tensor) -> Answer:
    probability = float((value - total).exp())
    return Answer(context[span[0] : span[1]], probability, *span, sentence_around(context, *span))
