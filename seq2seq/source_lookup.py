"""Drafts for assisted decoding that are copied from the source (prompt lookup decoding).

Transformers looks for the newest tokens in what the decoder has read. In an encoder-decoder the text that answers and
summaries copy is the encoder's: these drafts are taken from there.
"""

from typing import Any, cast

import torch
from transformers import GenerationConfig, GenerationMixin
from transformers.generation.candidate_generator import CandidateGenerator

LONGEST_NGRAM = 2  # as in Transformers


class SourceLookup(CandidateGenerator):
    """Proposes the tokens that follow the newest n-gram of the target where the source has it first."""

    def __init__(self, source: list[int], num_tokens: int, max_ngram: int, max_length: int):
        """
        Args:
            source: the source's ids. num_tokens: how many tokens are proposed at most.
            max_ngram: the longest n-gram to look for; shorter ones are looked for after it.
            max_length: how many tokens the target has at most in the end.

        Raises:
            ValueError: a number that is not positive.
        """
        for name, value in (("prompt_lookup_num_tokens", num_tokens), ("max_matching_ngram_size", max_ngram)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}; leave it out to decode without drafts")
        self.source, self.num_tokens, self.max_ngram, self.max_length = source, num_tokens, max_ngram, max_length
        self.after: dict[tuple[int, ...], int] = {}
        for size in range(1, max_ngram + 1):
            for end in range(size, len(source)):
                self.after.setdefault(tuple(source[end - size : end]), end)

    def get_candidates(self, input_ids: torch.LongTensor, **kwargs: Any) -> tuple[torch.LongTensor, Any]:
        """(1, T) target ids, with the proposed tokens behind them if there are any, and None for their logits."""
        newest = input_ids[0, -self.max_ngram :].tolist()
        # The model itself adds a token to what it accepts.
        count = min(self.num_tokens, self.max_length - input_ids.shape[1] - 1)
        for first in range(len(newest)):
            start = self.after.get(tuple(newest[first:]))
            if start is not None and count > 0:
                draft = input_ids.new_tensor([self.source[start : start + count]])
                return cast(torch.LongTensor, torch.cat([input_ids, draft], dim=-1)), None
        return input_ids, None

    def update_candidate_strategy(self, input_ids: torch.LongTensor, scores: torch.Tensor, num_matches: int):
        """Drafts stay as long as they are."""


class SourceLookupMixin(GenerationMixin):
    """`prompt_lookup_num_tokens` of `generate()` takes drafts from the source, of a model with one vocabulary."""

    def _get_candidate_generator(
        self,
        generation_config: GenerationConfig,
        input_ids: torch.LongTensor,
        inputs_tensor: torch.Tensor,
        *args: Any,
        **kwargs: Any,
    ) -> CandidateGenerator:
        """As Transformers does, which looks in the target, where the source is not given as ids.

        Raises:
            ValueError: a number of tokens that is not positive.
        """
        count = generation_config.prompt_lookup_num_tokens
        if count is None or inputs_tensor.is_floating_point() or bool((inputs_tensor < 0).any()):
            given = (generation_config, input_ids, inputs_tensor, *args)
            return super()._get_candidate_generator(*given, **kwargs)  # type: ignore[misc]  # a mixin is no model
        max_ngram = generation_config.max_matching_ngram_size or LONGEST_NGRAM
        return SourceLookup(inputs_tensor[0].tolist(), count, max_ngram, generation_config.max_length)
