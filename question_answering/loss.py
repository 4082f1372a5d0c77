"""The loss of answers: cross-entropy of start and end, over the tokens and, where the model has it, no answer.

Letters: B batch, S source length.
"""

import torch
from torch import nn

from ..masks.fast_paths import fast_path_allowed

IGNORED = -100
"""The position of an answer that the loss leaves out."""
NO_ANSWER = -1
"""The position of an answer that is not there."""


def answer_loss(
    start_logits: torch.Tensor,
    end_logits: torch.Tensor,
    no_answer_logits: torch.Tensor | None,
    start_positions: torch.Tensor,
    end_positions: torch.Tensor,
    num_items_in_batch: torch.Tensor | int | None = None,
) -> torch.Tensor:
    """Half the cross-entropy of the start and half that of the end; the mean, or the sum over `num_items_in_batch`.

    The score of no answer is one for both ends: half of it stands beside the scores of either. So it can be compared
    with the sum of a start's and an end's score.

    Args:
        start_logits, end_logits: (B, S), the lowest number where no answer may be.
        no_answer_logits: (B,), or None.
        start_positions, end_positions: (B,) int64: first and last token of the answer, -1 for no answer, -100 for
            an example that does not count.
        num_items_in_batch: how many examples count in the whole batch of an optimizer step.

    Raises:
        ValueError: positions that no answer can have. They are looked at on CPU only, and never under a tracer.
        TypeError: positions that are not int64.
    """
    both = ((start_logits, start_positions, "start"), (end_logits, end_positions, "end"))
    for logits, positions, side in both:
        _check(logits, positions, f"{side}_positions", no_answer_logits is not None)
    _check_order(start_positions, end_positions)
    total = start_logits.new_zeros(())
    for logits, positions, _ in both:
        if no_answer_logits is not None:
            logits = torch.cat((logits, no_answer_logits[:, None] / 2), dim=-1)
            positions = torch.where(positions == NO_ANSWER, logits.shape[1] - 1, positions)
        total = total + nn.functional.cross_entropy(logits, positions, ignore_index=IGNORED, reduction="sum") / 2
    if num_items_in_batch is None:
        num_items_in_batch = (start_positions != IGNORED).sum()
    if not torch.is_tensor(num_items_in_batch):
        return total / max(num_items_in_batch, 1)
    return total / num_items_in_batch.to(total.device).clamp(min=1)


def _check(logits: torch.Tensor, positions: torch.Tensor, name: str, knows_no_answer: bool) -> None:
    if positions.dtype != torch.int64:
        raise TypeError(f"{name} must be int64, got {positions.dtype}; write {name}.long()")
    if positions.shape != logits.shape[:1]:
        raise ValueError(f"{name} must be ({logits.shape[0]},), the batch's, got {tuple(positions.shape)}")
    if not fast_path_allowed(logits, positions):
        return
    length = logits.shape[1]
    wrong = (positions >= length) | ((positions < 0) & (positions != NO_ANSWER) & (positions != IGNORED))
    for row in wrong.nonzero().flatten().tolist():
        raise ValueError(
            f"{name} must be from 0 to {length - 1}, {NO_ANSWER} for no answer or {IGNORED} to be ignored, got "
            f"{int(positions[row])} in example {row}"
        )
    if not knows_no_answer and bool((positions == NO_ANSWER).any()):
        raise ValueError(
            f"{name} has {NO_ANSWER}, no answer, which this model has no score for; set no_answer=True in the config, "
            f"or {IGNORED} to leave such examples out"
        )
    scores = logits.detach().gather(1, positions.clamp(min=0)[:, None])[:, 0]
    for row in ((positions >= 0) & (scores == torch.finfo(logits.dtype).min)).nonzero().flatten().tolist():
        raise ValueError(
            f"{name}: token {int(positions[row])} of example {row} may be no answer: it is not of the context, or "
            f"cross_mask forbids it; a window without the answer has {NO_ANSWER} or {IGNORED}"
        )


def _check_order(starts: torch.Tensor, ends: torch.Tensor) -> None:
    if not fast_path_allowed(starts, ends):
        return
    wrong = (starts > ends) | ((starts < 0) & (starts != ends))
    for row in wrong.nonzero().flatten().tolist():
        raise ValueError(
            f"end_positions must not be before start_positions, and below 0 where these are, got {int(starts[row])} "
            f"to {int(ends[row])} in example {row}"
        )
