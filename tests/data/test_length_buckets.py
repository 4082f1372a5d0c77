import numpy as np
import pytest
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st

from crossmask.data.length_buckets import BucketSampler, bucket_batches

lengths = st.lists(st.tuples(st.integers(1, 60), st.integers(1, 60)), min_size=1, max_size=80)


@given(lengths=lengths, max_tokens=st.integers(1, 400), seed=st.none() | st.integers(0, 9))
def test_every_index_once_within_the_budget(lengths, max_tokens, seed):
    sources, targets = zip(*lengths, strict=True)
    batches = bucket_batches(sources, targets, max_tokens, seed)
    assert sorted(index for batch in batches for index in batch) == list(range(len(lengths)))
    for batch in batches:
        padded = len(batch) * (max(sources[at] for at in batch) + max(targets[at] for at in batch))
        assert padded <= max_tokens or len(batch) == 1


def test_longest_first_without_a_seed():
    sources = [3, 9, 4, 3, 7]
    batches = bucket_batches(sources, sources, 20)
    assert batches == [[1], [4], [2, 0], [3]]
    assert bucket_batches(sources, sources, 20) == batches


def test_seeds_shuffle():
    sources = [at % 10 + 1 for at in range(100)]
    first, again, other = (bucket_batches(sources, sources, 40, seed) for seed in (1, 1, 2))
    assert first == again
    assert first != other
    assert sorted(map(sorted, first)) != sorted(map(sorted, other))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([1], [1, 2], 9), "must be of the same number, at least 1, got 1 and 2"),
        (([], [], 9), "must be of the same number, at least 1, got 0 and 0"),
        (([1], [1], 0), "max_tokens must be at least 1, got 0"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        bucket_batches(*arguments)


def test_the_sampler_gives_every_example_once_in_every_epoch_and_others_in_the_next():
    rng = np.random.default_rng(0)
    features = Dataset.from_dict(
        {name: [[5] * int(n) for n in rng.integers(1, 30, 200)] for name in ("input_ids", "labels")}
    )
    sampler = BucketSampler(features, max_tokens=200, seed=3)
    epochs = []
    for epoch in (0, 1, 0):
        sampler.set_epoch(epoch)
        epochs.append(list(sampler))
        assert sorted(index for batch in sampler for index in batch) == list(range(200))
        assert len(sampler) == len(epochs[0])
    assert epochs[0] == epochs[2] != epochs[1]
    assert list(BucketSampler(features, max_tokens=200, seed=4)) != epochs[0]
