"""Generation of answers that can only be quoted: a sentence of the context, `Answer: `, and a part of that sentence.

Letters: B batch, T target length so far, V vocabulary.
"""

import re
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import torch
from transformers import GenerationConfig, LogitsProcessor, PreTrainedTokenizerBase

from .sentences import ANSWER, sentence_spans

_SENTENCE_ENDS, _PART_ENDS, _BLANK_ENDS = -1, -2, -3  # in a flat list, what stands before
FLAT_PADDING = -1  # of no sentence
# Where an answer may begin or end inside what stands between spaces, as in `(garden),`.
_BEGINS, _ENDS = re.compile(r"(?<=[^\w\s])(?=\w)"), re.compile(r"(?<=\w)(?=[^\w\s])")


class Quotable(NamedTuple):
    """What may be written of one sentence, in token ids.

    Attributes:
        sentence: with the mark behind it; all of it is written.
        parts: the sentence as it stands behind the mark, of which one run of tokens is written, and none where there
            are no parts. Some tokenizers cut a word and its punctuation otherwise than the word alone: for them the
            sentence is there again, from such words on and up to such words.
        blank: tokens of the parts that are whitespace, which by themselves are no answer.
    """

    sentence: tuple[int, ...]
    parts: tuple[tuple[int, ...], ...]
    blank: tuple[int, ...] = ()


def quotables(tokenizer: PreTrainedTokenizerBase, context: str, no_answer: str | None = None) -> list[Quotable]:
    """What may be written of each sentence of a context.

    Args:
        tokenizer: of targets, a fast one.
        no_answer: may be written behind the mark alone.
    """
    found = [_quotable(tokenizer, context[first:last]) for first, last in sentence_spans(context)]
    if no_answer is not None:
        (ids,) = _encode(tokenizer, [f"{ANSWER}{no_answer}"])["input_ids"]
        found.append(Quotable(tuple(ids), ()))
    return found


def _quotable(tokenizer: PreTrainedTokenizerBase, sentence: str) -> Quotable:
    begins = [0, *(match.start() for match in _BEGINS.finditer(sentence))]
    ends = [*(match.start() for match in _ENDS.finditer(sentence)), len(sentence)]
    spans = [(begin, end) for begin in begins for end in ends if begin < end]
    spans.sort(key=lambda span: span[0] - span[1])  # the whole sentence first
    mark = f"{sentence} {ANSWER}".rstrip()  # the space behind it may be a token of what follows
    texts = [f"{mark} {sentence[begin:end]}" for begin, end in spans]
    encoded = _encode(tokenizer, texts, return_offsets_mapping=True)
    quoted: tuple[int, ...] = ()
    parts: list[tuple[int, ...]] = []
    blank: set[int] = set()
    for text, ids, offsets in zip(texts, encoded["input_ids"], encoded["offset_mapping"], strict=True):
        border = next(at for at, (_, end) in enumerate(offsets) if end > len(mark))
        quoted, part = quoted or tuple(ids[:border]), tuple(ids[border:])
        if not any(_follow(longer, part) is not None for longer in parts):
            parts.append(part)
        blank |= {token for token, span in zip(part, offsets[border:], strict=True) if not text[slice(*span)].strip()}
    return Quotable(quoted, tuple(parts), tuple(sorted(blank)))


def _follow(part: tuple[int, ...], run: tuple[int, ...]) -> set[int] | None:
    """The tokens that stand behind a run wherever a part has it; None where it does not have it."""
    starts = [at for at in range(len(part) - len(run) + 1) if part[at : at + len(run)] == run]
    return {part[at + len(run)] for at in starts if at + len(run) < len(part)} if starts else None


def _encode(tokenizer: PreTrainedTokenizerBase, texts: list[str], **options: Any) -> Any:
    return tokenizer(text_target=texts, add_special_tokens=False, verbose=False, **options)


def flat(sentences: Iterable[Quotable]) -> list[int]:
    """All in one list of whole numbers, for a batch to carry; `from_flat` reads it, with padding."""
    found: list[int] = []
    for sentence, parts, blank in sentences:
        found += [*sentence, _SENTENCE_ENDS]
        found += [number for part in parts for number in (*part, _PART_ENDS)]
        found += [*blank, _BLANK_ENDS]
    return found


def from_flat(numbers: Sequence[int]) -> list[Quotable]:
    """What `flat` made a list of."""
    found: list[Quotable] = []
    sentence: tuple[int, ...] = ()
    parts: list[tuple[int, ...]] = []
    ids: list[int] = []
    for number in numbers:
        if number >= 0:
            ids.append(number)
            continue
        if number == _SENTENCE_ENDS:
            sentence = tuple(ids)
        elif number == _PART_ENDS:
            parts.append(tuple(ids))
        else:
            found.append(Quotable(sentence, tuple(parts), tuple(ids)))
            parts = []
        ids = []
    return found


class QuotedAnswers(LogitsProcessor):
    """Forbids every token with which a target would be no quoted answer.

    Args:
        sources: for each source of the batch, what may be written.
        config: of the generation; its end tokens may follow a part, its `forced_bos_token_id` comes first.

    A target that stops at `max_new_tokens` may end before its answer.
    """

    def __init__(self, sources: Sequence[Sequence[Quotable]], config: GenerationConfig):
        ends = config.eos_token_id
        self.sources, self.ends = sources, [ends] if isinstance(ends, int) else list(ends or ())
        self.prompt_length = 1 if config.forced_bos_token_id is None else 2

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        """(B * beams, T) and (B * beams, V) to (B * beams, V), -inf for what is forbidden."""
        if input_ids.shape[1] < self.prompt_length:
            return scores
        beams = input_ids.shape[0] // len(self.sources)
        forbidden = torch.ones_like(scores, dtype=torch.bool)
        for row, ids in enumerate(input_ids[:, self.prompt_length :].tolist()):
            if any(token in self.ends for token in ids):
                forbidden[row] = False  # padding follows
            else:
                forbidden[row, allowed(self.sources[row // beams], tuple(ids), self.ends)] = False
        return scores.masked_fill(forbidden, -torch.inf)  # type: ignore[return-value]


def allowed(sentences: Iterable[Quotable], written: tuple[int, ...], ends: Sequence[int]) -> list[int]:
    """The tokens that may follow what is written.

    ```python
    >>> allowed([Quotable((5, 6, 9), ((5, 6),))], (5, 6, 9), ends=[2])
    [5, 6]
    >>> allowed([Quotable((5, 6, 9), ((5, 6),))], (5, 6, 9, 5), ends=[2])
    [2, 6]
    ```
    """
    found: set[int] = set()
    for sentence, parts, blank in sentences:
        if written[: len(sentence)] != sentence[: len(written)]:
            continue
        if len(written) < len(sentence):
            found.add(sentence[len(written)])
            continue
        run = written[len(sentence) :]
        following = [tokens for part in parts if (tokens := _follow(part, run)) is not None]
        found.update(*following)
        if not parts or (following and any(token not in blank for token in run)):
            found.update(ends)
    return sorted(found)
