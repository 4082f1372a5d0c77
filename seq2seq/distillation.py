"""What each prediction is held against: its label, smoothed, and where there is a teacher what that predicts.

Hinton et al. 2015, "Distilling the Knowledge in a Neural Network", https://arxiv.org/abs/1503.02531; for the tokens of
sequences Kim & Rush 2016, "Sequence-Level Knowledge Distillation", https://arxiv.org/abs/1606.07947.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from .linear_loss import chunk_rows


@dataclass(frozen=True)
class Distillation:
    """What a teacher predicts for a batch of B examples.

    Attributes:
        logits: the teacher's, (n, vocabulary), for the labels at n places of B * T, given as (n,) int64.
        weight: its share in the target, from 0 to 1; the label has the rest.
    """

    logits: Callable[[torch.Tensor], torch.Tensor]
    weight: float

    def __post_init__(self) -> None:
        if not 0 <= self.weight <= 1:
            raise ValueError(f"the weight of a teacher must be from 0 to 1, got {self.weight}; 0.5 is usual")


class Targets:
    """The target distributions of N labels: `1 - smoothing` at the label and `smoothing` spread over the vocabulary.

    Under a `distillation` that is `1 - weight` of it, and what the teacher predicts the rest.

    Args:
        labels: (N,) int64, all of which count. places: (N,) int64, of each among the labels of the batch.
        smoothing: from 0 to 1.
    """

    def __init__(
        self,
        labels: torch.Tensor,
        smoothing: float,
        distillation: Distillation | None = None,
        places: torch.Tensor | None = None,
    ) -> None:
        self.labels, self.smoothing, self.distillation = labels, smoothing, distillation
        self.places = torch.arange(len(labels), device=labels.device) if places is None else places
        # The teacher's logits for the labels of a chunk, and the first of these.
        self._start, self._logits = 0, torch.empty(0, 0)

    def of(self, scores: torch.Tensor, part: slice = slice(None)) -> "PartOfTargets":
        """Those of all labels, or of some, which follow the ones before. scores: (n, vocabulary), of these labels."""
        if self.distillation is None:
            return PartOfTargets(self.labels[part, None], self.smoothing, None, 0.0)
        start, stop, _ = part.indices(len(self.labels))
        with torch.no_grad():
            if not self._start <= start < stop <= self._start + len(self._logits):  # products of few rows take longer
                end = max(stop, start + chunk_rows(scores.shape[-1]))
                self._start, self._logits = start, self.distillation.logits(self.places[start:end])
            taught = self._logits[start - self._start : stop - self._start].to(scores.dtype).softmax(-1)
        return PartOfTargets(self.labels[part, None], self.smoothing, taught, self.distillation.weight)


@dataclass(frozen=True)
class PartOfTargets:
    """The target distributions of n labels (n, 1), and the teacher's share of them (n, vocabulary)."""

    labels: torch.Tensor
    smoothing: float
    taught: torch.Tensor | None
    weight: float

    def expected(self, scores: torch.Tensor) -> torch.Tensor:
        """The expected score of each label, (n,). scores: (n, vocabulary)."""
        value = (1 - self.smoothing) * scores.gather(-1, self.labels)[:, 0]
        if self.smoothing:
            value = value + self.smoothing * scores.mean(-1)
        if self.taught is not None:
            value = (1 - self.weight) * value + self.weight * (self.taught * scores).sum(-1)
        return value

    def subtract_from(self, grad: torch.Tensor) -> None:
        """Take the distributions away from (n, vocabulary), in place."""
        own = 1 - self.weight
        if self.smoothing:
            grad -= own * self.smoothing / grad.shape[-1]
        grad.scatter_add_(-1, self.labels, torch.full_like(self.labels, own * (self.smoothing - 1), dtype=grad.dtype))
        if self.taught is not None:
            grad.sub_(self.taught, alpha=self.weight)
