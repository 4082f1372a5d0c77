import itertools
import math

import pytest
import torch

from crossmask.question_answering.decoding import Answer, WindowSpans, best_answers, best_spans, span_scores

LOWEST = torch.finfo(torch.float32).min
CONTEXT = "Ann is here. Bob is not, nor is Carl."


def by_search(start, end, longest):
    """All valid spans of a row with their scores, by the definition."""
    length = len(start)
    found = {}
    for first, last in itertools.combinations_with_replacement(range(length), 2):
        inside = all(max(start[at], end[at]) > LOWEST for at in range(first, last + 1))
        if start[first] > LOWEST and end[last] > LOWEST and inside and last - first < longest:
            found[first, last] = start[first] + end[last]
    return found


def random_scores(rows, length, seed, closed):
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randn(2, rows, length, generator=generator)
    both = torch.rand(rows, length, generator=generator) < closed
    one = torch.rand(2, rows, length, generator=generator) < closed / 2
    return scores.masked_fill(both | one, LOWEST)


@pytest.mark.parametrize("longest", [1, 3, 20])
@pytest.mark.parametrize("closed", [0.0, 0.3, 1.0])
def test_span_scores_against_a_search(longest, closed):
    start, end = random_scores(4, 9, longest, closed)
    found = span_scores(start, end, longest)
    assert found.shape == (4, 9, longest)
    for row in range(4):
        expected = by_search(start[row].tolist(), end[row].tolist(), longest)
        valid = {(f, f + k): v.item() for f in range(9) for k, v in enumerate(found[row, f]) if v > -math.inf}
        assert valid.keys() == expected.keys()
        assert all(valid[span] == pytest.approx(expected[span]) for span in valid)


@pytest.mark.parametrize("no_answer", [False, True])
def test_best_spans_against_a_search(no_answer):
    start, end = random_scores(3, 8, 5, 0.2)
    none = torch.tensor([0.5, -1.0, 2.0]) if no_answer else None
    first = torch.arange(8) * 4
    offsets = torch.stack((first, first + 3), -1)
    offsets[4] = 16  # a token without characters
    windows = best_spans(start, end, offsets.expand(3, -1, -1), none, n_best=4, max_answer_length=3)
    for row, window in enumerate(windows):
        expected = by_search(start[row].tolist(), end[row].tolist(), 3)
        scores = {span: score - (none[row].item() if no_answer else 0) for span, score in expected.items()}
        scores = {span: score for span, score in scores.items() if 4 not in span}
        ranked = sorted(scores.items(), key=lambda item: -item[1])[:4]
        assert [(4 * f, 4 * k + 3) for (f, k), _ in ranked] == [(f, k) for _, f, k in window.spans]
        assert [score for score, *_ in window.spans] == pytest.approx([score for _, score in ranked])
        assert window.log_total == pytest.approx(math.log(sum(map(math.exp, scores.values()))))
        assert window.no_answer == no_answer


def test_the_best_over_all_windows_each_span_once():
    windows = [
        WindowSpans([(2.0, 0, 3), (1.0, 7, 11)], math.log(math.exp(2) + math.exp(1)), False),
        WindowSpans([(3.0, 7, 11), (0.0, 13, 16)], math.log(math.exp(3) + 1), False),
    ]
    total = math.exp(2) + math.exp(1) + math.exp(3) + 1
    answers = best_answers(CONTEXT, windows, n_best=5)
    assert answers == [
        Answer("here", pytest.approx(math.exp(3) / total), 7, 11, (0, 12)),
        Answer("Ann", pytest.approx(math.exp(2) / total), 0, 3, (0, 12)),
        Answer("Bob", pytest.approx(1 / total), 13, 16, (13, 37)),
    ]
    assert [answer.text for answer in best_answers(CONTEXT, windows)] == ["here"]
    for answer in answers:
        assert CONTEXT[answer.start : answer.end] == answer.text


@pytest.mark.parametrize(
    ("threshold", "expected"),
    [(0.0, ["Ann", "", "Bob"]), (1.5, ["", "Ann", "Bob"]), (-9.0, ["Ann", "", "Bob"])],
)
def test_no_answer_stands_where_its_score_puts_it(threshold, expected):
    windows = [WindowSpans([(1.0, 0, 3), (-1.0, 13, 16)], math.log(math.exp(1) + math.exp(-1)), True)]
    answers = best_answers(CONTEXT, windows, n_best=3, null_threshold=threshold)
    assert [answer.text for answer in answers] == expected
    assert sum(answer.score for answer in answers) == pytest.approx(1.0)
    nothing = answers[expected.index("")]
    assert (nothing.start, nothing.end, nothing.sentence) == (None, None, None)


def test_a_low_threshold_prefers_an_answer():
    windows = [WindowSpans([(-2.0, 0, 3)], -2.0, True)]
    assert best_answers(CONTEXT, windows)[0].text == ""
    assert best_answers(CONTEXT, windows, null_threshold=-3.0)[0].text == "Ann"


@pytest.mark.parametrize("knows", [False, True])
def test_where_no_span_is_valid_there_is_no_answer(knows):
    scores = torch.full((1, 4), LOWEST)
    none = torch.zeros(1) if knows else None
    windows = best_spans(scores, scores, torch.zeros(1, 4, 2, dtype=torch.long), none)
    assert best_answers(CONTEXT, windows) == [Answer("", 1.0 if knows else 0.0)]
