"""Which word of the source each word that a model wrote comes from, and how probable the model finds what it wrote.

Letters: n sequences of one source, T target tokens, S source tokens.
"""

import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..seq2seq.attention_weights import attending_eagerly

# Words, signs of their own, and each character of a script without spaces.
_UNSPACED = "\u0e00-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_WORD = re.compile(rf"[{_UNSPACED}]|(?:(?![{_UNSPACED}])\w)+(?:['’-](?:(?![{_UNSPACED}])\w)+)*|[^\w\s]")


def word_spans(text: str) -> list[tuple[int, int]]:
    """The words of a text, `(first character, one past the last)`; a punctuation mark is a word of its own."""
    return [match.span() for match in _WORD.finditer(text)]


@torch.no_grad()
def read_again(
    model: PreTrainedModel,
    inputs: Mapping[str, torch.Tensor],
    sequences: torch.Tensor,
    masks: Mapping[str, Any],
    with_attention: bool,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """One forward pass over sequences that `generate` gave for one source.

    Args:
        inputs: `input_ids` and `attention_mask`, (1, S).
        sequences: (n, 1 + T), the start token first.
        masks: of the call that generated them.

    Returns:
        the log-probability of each token, (n, T), and where it looked, (n, T, S), the mean over heads and layers, or
        None without `with_attention`.
    """
    repeated = {name: tensor.expand(len(sequences), -1) for name, tensor in inputs.items()}
    call: dict[str, Any] = {**repeated, "decoder_input_ids": sequences[:, :-1], "use_cache": False, **masks}
    if with_attention:
        with attending_eagerly(model):
            outputs = model(**call, output_attentions=True)
        weights = torch.stack(outputs.cross_attentions).float().mean(dim=(0, 2))
    else:
        outputs, weights = model(**call), None
    log_probabilities = outputs.logits.float().log_softmax(-1)
    return log_probabilities.gather(-1, sequences[:, 1:, None])[..., 0], weights


def target_offsets(tokenizer: PreTrainedTokenizerBase, ids: list[int]) -> list[tuple[int, int]]:
    """The characters of each token in the text that the ids decode to, `(first, one past the last)`."""
    text = str(tokenizer.decode(ids, skip_special_tokens=True))
    borders = [0]
    for count in range(1, len(ids) + 1):
        part = str(tokenizer.decode(ids[:count], skip_special_tokens=True))
        # A token may end within a character, which then decodes to another one.
        same = next((i for i, (a, b) in enumerate(zip(part, text, strict=False)) if a != b), min(len(part), len(text)))
        borders.append(max(borders[-1], same))
    return list(pairwise(borders))


def align(
    weights: torch.Tensor,
    source: str,
    source_offsets: Sequence[tuple[int, int]],
    target: str,
    target_offsets: Sequence[tuple[int, int]],
) -> list[dict[str, Any]]:
    """For each target word the source word that the model looked at most while it wrote it.

    Args:
        weights: (T, S). source_offsets, target_offsets: the characters of each token, S and T pairs.

    Returns:
        `source` and `target` are the words, `source_span` and `target_span` their characters, `weight` the share of
        attention, 0 to 1: over the source word's tokens the sum, over the target word's tokens the mean.
    """
    source_words, target_words = word_spans(source), word_spans(target)
    if not source_words:
        return []
    belongs = _membership(source_words, source_offsets).to(weights)
    writes = _membership(target_words, target_offsets).to(weights)
    shares = writes @ weights @ belongs.T / writes.sum(-1, keepdim=True).clamp(min=1)
    pairs = []
    for (start, end), row, tokens in zip(target_words, shares, writes, strict=True):
        if not tokens.any():
            continue
        best = int(row.argmax())
        first, last = source_words[best]
        pairs.append(
            {
                "source": source[first:last],
                "target": target[start:end],
                "weight": float(row[best]),
                "source_span": (first, last),
                "target_span": (start, end),
            }
        )
    return pairs


def _membership(words: Sequence[tuple[int, int]], offsets: Sequence[tuple[int, int]]) -> torch.Tensor:
    """(words, tokens) bool: whether a token has a character of a word."""
    return torch.tensor([[first < end and last > start for first, last in offsets] for start, end in words])
