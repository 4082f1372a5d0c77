"""Generation that copies the source and puts labelled brackets around runs of its words, and nothing else.

Letters: B batch, T target length so far, V vocabulary.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from transformers import LogitsProcessor


class BracketTokens(NamedTuple):
    """Ids of the tokens that are not copied: one of each label opens a bracket, one closes it, one ends the text."""

    openings: tuple[int, ...]
    closing: int
    end: int


class CopyState:
    """Where in the source a target is, and whether a bracket is open there.

    Args:
        words: the word of each token of the source, ascending; brackets stand before and behind whole words.
    """

    def __init__(self, tokens: Sequence[int], words: Sequence[int]):
        self.tokens, self.words = tokens, words
        self.copied = 0
        self.opened: tuple[int, int] | None = None  # the label's token, and how many tokens were copied before it
        self.spans: list[tuple[int, int, int]] = []  # label's token, first word, last word
        self.ended = False

    @property
    def between_words(self) -> bool:
        at = self.copied
        return at in (0, len(self.tokens)) or self.words[at] != self.words[at - 1]

    def allowed(self, brackets: BracketTokens) -> list[int]:
        """The tokens that may come next; none after the end."""
        if self.ended:
            return []
        found = []
        if self.copied < len(self.tokens):
            found.append(self.tokens[self.copied])
        if not self.between_words:
            return found
        if self.opened is not None:
            return [*found, brackets.closing] if self.copied > self.opened[1] else found
        return [*found, *brackets.openings] if self.copied < len(self.tokens) else [brackets.end]

    def take(self, token: int, brackets: BracketTokens) -> None:
        """Go on by one token, which must be allowed."""
        if token == brackets.end:
            self.ended = True
        elif self.opened is None and self.between_words and token in brackets.openings:
            self.opened = (token, self.copied)
        elif self.opened is not None and token == brackets.closing and self.copied > self.opened[1]:
            self.close()
        else:
            self.copied += 1

    def close(self) -> None:
        """Close the bracket that is open, if any, behind what was copied."""
        if self.opened is not None and self.copied > self.opened[1]:
            label, before = self.opened
            self.spans.append((label, self.words[before], self.words[self.copied - 1]))
        self.opened = None


class CopyWithBrackets(LogitsProcessor):
    """Forbids every token with which the target would not be the source with brackets around some of its words.

    Args:
        tokens: of each source of the batch, what is to be copied.
        words: the word of each of these tokens.
        brackets: the ids of all other tokens.
        prompt_length: how many tokens of a target come before the copy, the start token by default.

    A target that stops at `max_new_tokens` may be cut off inside of a bracket; give the number of
    tokens that the source with its brackets has.
    """

    def __init__(
        self,
        tokens: Sequence[Sequence[int]],
        words: Sequence[Sequence[int]],
        brackets: BracketTokens,
        prompt_length: int = 1,
    ):
        self.tokens, self.words, self.brackets, self.prompt_length = tokens, words, brackets, prompt_length

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        """(B * beams, T) and (B * beams, V) to (B * beams, V), -inf for what is forbidden."""
        beams = input_ids.shape[0] // len(self.tokens)
        forbidden = torch.ones_like(scores, dtype=torch.bool)
        for row, ids in enumerate(input_ids[:, self.prompt_length :].tolist()):
            state = read_copy(self.tokens[row // beams], self.words[row // beams], ids, self.brackets)
            if state.ended:
                forbidden[row] = False  # padding follows
            else:
                forbidden[row, state.allowed(self.brackets)] = False
        return scores.masked_fill(forbidden, -torch.inf)  # type: ignore[return-value]


def read_copy(tokens: Sequence[int], words: Sequence[int], ids: Sequence[int], brackets: BracketTokens) -> CopyState:
    """Where a target with these ids is."""
    state = CopyState(tokens, words)
    for token in ids:
        if state.ended:
            break
        state.take(token, brackets)
    return state
