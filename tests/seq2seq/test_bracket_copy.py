"""Generation under the constraint: what may follow what, by hand and at random."""

import random
from itertools import pairwise

import pytest
import torch

from crossmask.seq2seq.bracket_copy import BracketTokens, CopyState, CopyWithBrackets, read_copy

BRACKETS = BracketTokens(openings=(20, 21), closing=30, end=2)
TOKENS, WORDS = [5, 6, 7, 5], [0, 0, 1, 2]  # the first word has two tokens


@pytest.mark.parametrize(
    ("written", "allowed"),
    [
        ([], {5, 20, 21}),
        ([5], {6}),  # inside of a word
        ([5, 6], {7, 20, 21}),
        ([20], {5}),  # no empty bracket
        ([20, 5], {6}),
        ([20, 5, 6], {7, 30}),  # no bracket in a bracket
        ([20, 5, 6, 30], {7, 20, 21}),
        ([20, 5, 6, 7, 5], {30}),  # no end inside of a bracket
        ([5, 6, 7, 5], {2}),
        ([5, 6, 7, 21, 5, 30], {2}),
        ([5, 6, 7, 5, 2], set()),
    ],
)
def test_what_may_come_next(written, allowed):
    assert set(read_copy(TOKENS, WORDS, written, BRACKETS).allowed(BRACKETS)) == allowed


def test_spans_are_of_words():
    state = read_copy(TOKENS, WORDS, [20, 5, 6, 30, 21, 7, 5, 30, 2], BRACKETS)
    assert (state.spans, state.ended) == ([(20, 0, 0), (21, 1, 2)], True)
    cut_off = read_copy(TOKENS, WORDS, [5, 6, 21, 7], BRACKETS)
    cut_off.close()
    assert cut_off.spans == [(21, 1, 1)]


def test_any_way_through_is_a_copy_with_brackets_around_words():
    draw = random.Random(0)
    for _ in range(200):
        words = sorted(draw.randrange(6) for _ in range(draw.randint(1, 9)))
        # A token of the source may look like one of the constraint.
        tokens = [draw.choice([5, 6, 20, 30]) for _ in words]
        state, written = CopyState(tokens, words), []
        while not state.ended:
            written.append(draw.choice(state.allowed(BRACKETS)))
            state.take(written[-1], BRACKETS)
        assert written[-1] == 2
        assert state.copied == len(tokens)
        assert state.opened is None
        ends = [(first, last) for _, first, last in state.spans]
        assert all(first <= last for first, last in ends)
        assert all(before[1] < after[0] for before, after in pairwise(ends))
        assert len(written) == len(tokens) + 2 * len(ends) + 1
        if not {20, 30} & set(tokens):
            assert [token for token in written if token not in (20, 21, 30, 2)] == tokens


def test_each_row_is_held_to_its_own_source_whatever_the_beams():
    constraint = CopyWithBrackets([TOKENS, [8]], [WORDS, [0]], BRACKETS)
    ids = torch.tensor([[1, 5, 6], [1, 20, 5], [1, 8, 2], [1, 20, 8]])
    found = constraint(ids, torch.zeros(4, 40))
    allowed = [set(row.isfinite().nonzero()[:, 0].tolist()) for row in found]
    assert allowed == [{7, 20, 21}, {6}, set(range(40)), {30}]
