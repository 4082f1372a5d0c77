"""Reasons that can only be quoted: whole sentences of the context, then `Answer: ` and whatever the decoder writes."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from transformers import PreTrainedTokenizerBase

from .sentences import ANSWER, has_mark, sentence_spans
from .target_tokens import Tokens, encode_targets, tokens_behind_space


class _Place(NamedTuple):
    """Where a target may be: in what it is writing, and what of it is still to be written.

    Attributes:
        left: the token ids to come of a sentence or of the mark; none where the answer has begun.
        used: the sentences of the context that are written or being written.
        is_mark: whether the mark is being written, or is written.
    """

    left: Tokens
    used: frozenset[int]
    is_mark: bool


class QuotedSentences:
    """Which tokens may follow, where a target is sentences of a context in any order, `Answer: ` and any text.

    A sentence is written at most as often as it stands in the context, and one that has `Answer:` in it never, so that
    what the first `Answer:` ends is always of the context.

    Args:
        tokenizer: of targets, a fast one.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, context: str):
        mark, texts = ANSWER.rstrip(), [context[first:last] for first, last in sentence_spans(context)]
        sentences = [text for text in texts if not has_mark(text)]
        first = [tuple(ids) for ids in encode_targets(tokenizer, [*sentences, mark])["input_ids"]]
        behind = tokens_behind_space(tokenizer, {*sentences, mark})
        self._behind = [behind[text] for text in (*sentences, mark)]
        self._places: dict[Tokens, set[_Place]] = {(): set(self._next(first, frozenset()))}

    def __call__(self, written: Tokens, ends: Sequence[int]) -> list[int] | None:
        """The ids that may follow what is written; None where all may."""
        longest = max(map(len, self._places))
        if len(written) > longest:  # beams grow by a token at a time: shorter beginnings are not asked for again
            self._places = {start: one for start, one in self._places.items() if len(start) in (0, longest)}
        known = next(length for length in range(len(written), -1, -1) if written[:length] in self._places)
        for length in range(known, len(written)):
            places, token = self._places[written[:length]], written[length]
            self._places[written[: length + 1]] = {one for place in places for one in self._after(place, token)}
        places = self._places[written]
        if any(not place.left for place in places):
            return None
        return sorted({place.left[0] for place in places}) or list(ends)

    def _after(self, place: _Place, token: int) -> Iterator[_Place]:
        if not place.left:  # in the answer
            yield place
        elif place.left[0] == token:
            left = place.left[1:]
            if left or place.is_mark:
                yield _Place(left, place.used, place.is_mark)
            else:
                yield from self._next(self._behind, place.used)

    def _next(self, texts: Sequence[Tokens], used: frozenset[int]) -> Iterator[_Place]:
        """The beginnings of the mark, and of each text that is not used; of equal ones, of the first."""
        *sentences, mark = texts
        yield _Place(mark, used, True)
        unused = {ids: index for index, ids in reversed([*enumerate(sentences)]) if index not in used}
        for ids, index in unused.items():
            if ids:
                yield _Place(ids, used | {index}, False)
