"""Latency by hand, and by SimulEval's own scorers."""

import json
import random

import pytest

from crossmask.streaming.latency import (
    Latency,
    average_lagging,
    differentiable_average_lagging,
    length_adaptive_average_lagging,
)


@pytest.mark.parametrize(
    ("delays", "source", "target", "al", "laal", "dal"),
    [
        ([1, 2, 3, 4], 4, 4, 1, 1, 1),  # an ideal writer, one word behind
        ([3, 4, 5, 5, 5], 5, 5, 3, 3, 3),  # wait-3
        ([4, 4, 4, 4], 4, 4, 4, 4, 4),  # offline: only the first word counts for AL, each costs a word for DAL
        ([2, 4], 4, 4, 2.5, 2.5, 2),  # too short for its reference: (2 + 4 - 1) / 2
        ([1, 2, 3, 4], 4, 2, -0.5, 1, 1),  # too long: AL falls below zero
        ([1, 3], 8, 2, 0, 0, 1),  # never reads to the end: (1 + 3 - 4) / 2; then (1 + 5 - 4) / 2
        ([5, 5], 4, 2, 5, 5, 5),  # later than the source is long
        ([2], 2, None, 2, 2, 2),
    ],
)
def test_by_hand(delays, source, target, al, laal, dal):
    assert average_lagging(delays, source, target) == pytest.approx(al)
    assert length_adaptive_average_lagging(delays, source, target) == pytest.approx(laal)
    assert differentiable_average_lagging(delays, source) == pytest.approx(dal)


def test_a_corpus_is_the_mean_of_its_sentences_that_say_something():
    latency = Latency.of([[1, 2], [], [2, 2]], [2, 5, 2], ["a b", "c", "d e"])
    assert pytest.approx((1.5, 1.5, 1.5)) == (latency.AL, latency.LAAL, latency.DAL)


def test_bad_input():
    with pytest.raises(ValueError, match="delays must have one for each target word, got none"):
        average_lagging([], 3)
    with pytest.raises(ValueError, match="source_length must be at least 1, got 0"):
        differentiable_average_lagging([1], 0)
    with pytest.raises(ValueError, match="target_length must be at least 1, got 0"):
        length_adaptive_average_lagging([1], 1, 0)
    with pytest.raises(ValueError, match="at least one of 2 translations must not be empty"):
        Latency.of([[], []], [1, 2], ["a", "b"])


@pytest.mark.slow
def test_as_simuleval_scores_the_same_logs():
    instances = pytest.importorskip("simuleval.evaluator.instance", reason="SimulEval is not installed")
    scorers = pytest.importorskip("simuleval.evaluator.scorers.latency_scorer", reason="SimulEval is not installed")
    rng, delays, sources, references, logged = random.Random(0), [], [], [], {}
    for index in range(200):
        source, words = rng.randint(1, 20), rng.randint(0 if index else 1, 25)
        delays.append(sorted(rng.randint(1, source) for _ in range(words)))
        sources.append(source)
        references.append(" ".join("w" * rng.randint(1, 22)))
        entry = {"index": index, "delays": delays[-1], "source_length": source, "reference": references[-1]}
        logged[index] = instances.LogInstance(json.dumps({**entry, "prediction": "", "source": ""}))
    ours = Latency.of(delays, sources, references)
    for name in ("AL", "LAAL", "DAL"):
        theirs = scorers.LATENCY_SCORERS_DICT[name](computation_aware=False, use_ref_len=True)(logged)
        assert getattr(ours, name) == pytest.approx(theirs, abs=1e-9), name
