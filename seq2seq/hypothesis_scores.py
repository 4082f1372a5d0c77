"""The log-probabilities that a beam search adds up, of all of its hypotheses.

Transformers returns them together with the scores of every token of the vocabulary in every step, which take more
memory than the search.
"""

from typing import Any

import torch
from transformers import LogitsProcessor


class HypothesisScores(LogitsProcessor):
    """The last processor of a beam search: it changes nothing, and notes how probable the hypotheses are.

    It has what `compute_transition_scores` of Transformers would give for the sequences that the search returns: the
    log-probabilities of their tokens behind the prompt, under all that acts on the search.

    Args:
        beams: of the search. ends: the ids of the tokens that end a sequence.
    """

    def __init__(self, beams: int, ends: list[int]) -> None:
        self.beams, self.ends = beams, ends
        self.before: torch.Tensor | None = None  # scores of the step before, (B * beams, vocabulary)
        self.sums: dict[tuple[int, ...], tuple[float, list[float]]] = {}
        self.rows: dict[tuple[int, ...], int] = {}  # of the step before
        self.prompt = 0

    def __call__(self, input_ids: torch.LongTensor, scores: Any) -> Any:
        prefixes = [(row // self.beams, *ids) for row, ids in enumerate(input_ids.tolist())]
        if self.before is None:
            self.prompt = input_ids.shape[1]
            sums = [0.0] * len(prefixes)
        else:
            parents = [prefix[:-1] for prefix in prefixes]
            rows = torch.tensor([self.rows[parent] for parent in parents], device=scores.device)
            steps = self.before[rows, input_ids[:, -1]].tolist()
            sums = [self.sums[parent][0] + step for parent, step in zip(parents, steps, strict=True)]
        of_ends = scores[:, self.ends].tolist()
        self.sums |= dict(zip(prefixes, zip(sums, of_ends, strict=True), strict=True))
        self.rows = {prefix: row for row, prefix in enumerate(prefixes)}
        self.before = scores
        return scores

    def means(self, sequences: torch.Tensor) -> torch.Tensor:
        """The mean log-probability of a token, for sequences (B * beams, T) that the search has returned.

        Returns:
            (B * beams,) float32

        Raises:
            KeyError: one that has neither an end nor the greatest length, as further stopping criteria would leave it.
        """
        means = []
        for row, ids in enumerate(sequences.tolist()):
            written = self._without_padding(ids)
            *prefix, last = (row // self.beams, *written)
            total, of_ends = self.sums[tuple(prefix)]
            if last in self.ends:
                total += of_ends[self.ends.index(last)]
            else:
                total += float(self.before[self.rows[tuple(prefix)], last])  # type: ignore[index]  # a search has steps
            means.append(total / (len(written) - self.prompt))
        return torch.tensor(means, device=sequences.device)

    def _without_padding(self, ids: list[int]) -> list[int]:
        first_end = next((at for at in range(self.prompt, len(ids)) if ids[at] in self.ends), len(ids) - 1)
        return ids[: first_end + 1]
