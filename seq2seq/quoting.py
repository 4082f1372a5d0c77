"""Generation that can only quote the context of a question, as far as the task option `quote` says.

Letters: B batch, T target length so far, V vocabulary.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from transformers import GenerationConfig, LogitsProcessor, PreTrainedTokenizerBase

from .quoted_answers import allowed, quotables
from .quoted_sentences import QuotedSentences
from .target_tokens import Tokens

QUOTES = ("answer", "sentences")
Quotation = Callable[[Tokens, Sequence[int]], list[int] | None]
"""From the token ids written so far and the end tokens to the ids that may follow; None where all may."""


def quotation(tokenizer: PreTrainedTokenizerBase, context: str, quote: str, no_answer: str | None = None) -> Quotation:
    """What may be written of a context.

    Args:
        tokenizer: of targets, a fast one.
        quote: `"answer"`, one sentence (up to three neighbouring ones) and an answer that is part of it; or
            `"sentences"`, any number of sentences and then any answer. Both have `Answer: ` before the answer.
        no_answer: an answer that may be written without a sentence where answers are quoted.
    """
    if quote == "sentences":
        return QuotedSentences(tokenizer, context)
    return partial(allowed, quotables(tokenizer, context, no_answer))


class Quoting(LogitsProcessor):
    """Forbids every token with which a target would not be a quotation.

    Where other settings of the generation forbid all that may be quoted, such as `no_repeat_ngram_size` in a sentence
    that repeats itself, they do not count.

    Args:
        sources: for each source of the batch, what may be written.
        config: the model's settings of generation. options: those of the call. Their end tokens may follow an answer,
            their `forced_bos_token_id` comes first.

    A target that stops at `max_new_tokens` may end before its answer.
    """

    def __init__(
        self, sources: Sequence[Quotation], config: GenerationConfig, options: Mapping[str, Any] | None = None
    ):
        given = options or {}
        config = given.get("generation_config") or config
        end, first, pad = (
            given[name] if given.get(name) is not None else getattr(config, name)
            for name in ("eos_token_id", "forced_bos_token_id", "pad_token_id")
        )
        ends = [] if end is None else torch.as_tensor(end).reshape(-1).tolist()
        self.sources, self.ends = sources, ends
        self.padding = ends if pad is None else [pad]
        self.prompt_length = 1 if first is None else 2

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        """(B * beams, T) and (B * beams, V) to (B * beams, V), -inf for what is forbidden."""
        if input_ids.shape[1] < self.prompt_length:
            return scores
        beams = input_ids.shape[0] // len(self.sources)
        found = torch.full_like(scores, -torch.inf)
        for row, ids in enumerate(input_ids[:, self.prompt_length :].tolist()):
            has_ended = any(token in self.ends for token in ids)
            tokens = self.padding if has_ended else self.sources[row // beams](tuple(ids), self.ends)
            if tokens is None:
                found[row] = scores[row]
                continue
            kept = scores[row, tokens]
            found[row, tokens] = kept if bool(kept.isfinite().any()) else torch.zeros_like(kept)
        return found  # type: ignore[return-value]


def with_quoting(options: Mapping[str, Any], sources: Sequence[Quotation], config: GenerationConfig) -> dict[str, Any]:
    """Options of `generate` with the constraint beside the processors that they have already."""
    constraint = Quoting(sources, config, options)
    return {**options, "logits_processor": [*(options.get("logits_processor") or ()), constraint]}
