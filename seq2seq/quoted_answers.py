"""Generation of answers that can only be quoted: a sentence of the context, `Answer: `, and a part of that sentence.

Letters: B batch, T target length so far, V vocabulary.
"""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import torch
from transformers import GenerationConfig, LogitsProcessor, PreTrainedTokenizerBase

from .sentences import ANSWER, sentence_spans

_ENDS = (-1, -2, -3)  # of the fields of a `Quotable` in a flat list
FLAT_PADDING = -1  # of no sentence


class Quotable(NamedTuple):
    """What may be written of one sentence, in token ids.

    Attributes:
        sentence: with the mark behind it; all of it is written.
        part: the sentence as it stands behind the mark, of which one run of tokens is written, and none where it is
            empty.
        blank: those of the part that are whitespace, which by themselves are no answer.
    """

    sentence: tuple[int, ...]
    part: tuple[int, ...]
    blank: tuple[int, ...] = ()


def quotables(tokenizer: PreTrainedTokenizerBase, context: str, no_answer: str | None = None) -> list[Quotable]:
    """What may be written of each sentence of a context.

    Args:
        tokenizer: of targets, a fast one.
        no_answer: may be written behind the mark alone.
    """
    sentences = [context[first:last] for first, last in sentence_spans(context)]
    marked = [f"{sentence} {ANSWER}" for sentence in sentences]
    found = []
    if sentences:
        texts = [mark + sentence for mark, sentence in zip(marked, sentences, strict=True)]
        encoded = _encode(tokenizer, texts, return_offsets_mapping=True)
        for mark, text, ids, offsets in zip(
            marked, texts, encoded["input_ids"], encoded["offset_mapping"], strict=True
        ):
            border = next(at for at, (_, end) in enumerate(offsets) if end > len(mark))
            part = list(zip(ids, offsets, strict=True))[border:]
            blank = {token for token, span in part if not text[slice(*span)].strip()}
            found.append(Quotable(tuple(ids[:border]), tuple(ids[border:]), tuple(sorted(blank))))
    if no_answer is not None:
        (ids,) = _encode(tokenizer, [f"{ANSWER}{no_answer}"])["input_ids"]
        found.append(Quotable(tuple(ids), ()))
    return found


def _encode(tokenizer: PreTrainedTokenizerBase, texts: list[str], **options: Any) -> Any:
    return tokenizer(text_target=texts, add_special_tokens=False, verbose=False, **options)


def flat(sentences: Iterable[Quotable]) -> list[int]:
    """All in one list of whole numbers, for a batch to carry; `from_flat` reads it, with padding."""
    return [number for one in sentences for ids, end in zip(one, _ENDS, strict=True) for number in (*ids, end)]


def from_flat(numbers: Sequence[int]) -> list[Quotable]:
    """What `flat` made a list of."""
    found: list[Quotable] = []
    fields: list[tuple[int, ...]] = []
    ids: list[int] = []
    for number in numbers:
        if number >= 0:
            ids.append(number)
            continue
        fields.append(tuple(ids))
        ids = []
        if number == _ENDS[-1]:
            found.append(Quotable(*fields))
            fields = []
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
    >>> allowed([Quotable((5, 6, 9), (5, 6))], (5, 6, 9), ends=[2])
    [5, 6]
    >>> allowed([Quotable((5, 6, 9), (5, 6))], (5, 6, 9, 5), ends=[2])
    [2, 6]
    ```
    """
    found: set[int] = set()
    for sentence, part, blank in sentences:
        if written[: len(sentence)] != sentence[: len(written)]:
            continue
        if len(written) < len(sentence):
            found.add(sentence[len(written)])
            continue
        run = written[len(sentence) :]
        if not part or any(token not in blank for token in run):
            found.update(ends)
        starts = (at for at in range(len(part)) if part[at : at + len(run)] == run)
        found.update(part[at + len(run)] for at in starts if at + len(run) < len(part))
    return sorted(found)
