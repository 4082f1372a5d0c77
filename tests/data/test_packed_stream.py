import json
import subprocess
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pytest
from datasets import IterableDataset
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from crossmask.data.packed_stream import PackedStream
from crossmask.data.packing import PackedCollator

Batches = list[list[list[int]]]
BUDGET = (20, 30)


def example(at: int) -> dict[str, list[int]]:
    """An example whose tokens tell which one it is."""
    return {"input_ids": [10 + at] * (1 + at * 7 % 13), "labels": [10 + at] * (1 + at * 5 % 17)}


def generate(shards: list[int]) -> Iterator[dict[str, list[int]]]:
    for shard in shards:
        yield from (example(at) for at in range(shard * 40, shard * 40 + 40))


def sharded(shards: int) -> IterableDataset:
    return IterableDataset.from_generator(generate, gen_kwargs={"shards": list(range(shards))})


def numbers(batches) -> Batches:
    """Which examples are in which row."""
    return [[[int(feature["input_ids"][0]) - 10 for feature in row] for row in batch] for batch in batches]


def flat(batches: Batches) -> list[int]:
    return [index for batch in batches for row in batch for index in row]


def stream(count: int = 90, buffer: int = 32, **options) -> PackedStream:
    return PackedStream([example(at) for at in range(count)], *BUDGET, batch_size=2, buffer=buffer, **options)


@settings(max_examples=30, deadline=None)
@given(
    count=st.integers(1, 120), buffer=st.integers(1, 50), processes=st.integers(1, 4), accumulation=st.integers(1, 3)
)
def test_every_example_once_within_both_budgets_in_the_same_number_of_batches(count, buffer, processes, accumulation):
    share = {"processes": processes, "accumulation": accumulation}
    dealt = [numbers(stream(count, buffer, **share, process=at)) for at in range(processes)]
    assert {len(part) for part in dealt} == {len(dealt[0])}
    assert sorted(index for part in dealt for index in flat(part)) == list(range(count))
    for row in (row for part in dealt for batch in part for row in batch):
        lengths = [(len(example(at)["input_ids"]), len(example(at)["labels"])) for at in row]
        assert all(sum(side) <= budget for side, budget in zip(zip(*lengths, strict=True), BUDGET, strict=True))


def test_processes_share_the_steps_of_one():
    alone = numbers(stream(accumulation=2))
    both = [numbers(stream(processes=2, process=at)) for at in (0, 1)]
    together = [batch for pair in zip(*both, strict=True) for batch in pair]
    assert [batch for batch in together if batch] == alone


def test_only_the_last_step_is_not_full():
    sizes = [sum(map(len, step)) for step in zip(*[iter(numbers(stream(accumulation=3)))] * 3, strict=False)]
    batches = numbers(stream(accumulation=3))
    assert [len(batch) for batch in batches[:-3]] == [2] * (len(batches) - 3)
    assert len(sizes) > 2


def test_epochs_and_seeds_differ_and_come_again():
    first = numbers(stream(epochs=2))
    assert first == numbers(stream(epochs=2))
    assert first != numbers(stream(epochs=2, seed=1))
    assert sorted(flat(first)) == sorted([*range(90)] * 2)
    later = stream()
    later.set_epoch(1)
    assert numbers(later) != numbers(stream())


@pytest.mark.parametrize("source", ["list", "datasets"])
@pytest.mark.parametrize("stop", [1, 5, 9, 13])
def test_it_resumes_where_it_was_also_with_another_number_of_processes(source, stop):
    def make(**options) -> PackedStream:
        examples = [example(at) for at in range(120)] if source == "list" else sharded(3)
        return PackedStream(examples, *BUDGET, batch_size=2, buffer=32, epochs=2, **options)

    whole = numbers(make(processes=2))
    first = make(processes=2)
    batches = iter(first)
    assert numbers(next(batches) for _ in range(stop)) == whole[:stop]
    state = json.loads(json.dumps(first.state_dict()))
    again = make(processes=2)
    again.load_state_dict(state)
    assert numbers(again) == whole[stop:]
    assert numbers(again) == whole  # the next pass starts anew
    alone = make(accumulation=2)
    alone.load_state_dict(state)
    assert numbers(alone)[::2] == whole[stop:]


@pytest.mark.parametrize("source", ["list", "datasets"])
def test_workers_share_the_stream(source):
    examples = [example(at) for at in range(120)] if source == "list" else sharded(3)
    dealt = []
    for process in (0, 1):
        made = PackedStream(examples, *BUDGET, batch_size=2, buffer=16, processes=2, process=process)
        dealt.append(numbers(DataLoader(made, batch_size=None, num_workers=2, collate_fn=list)))
    assert len(dealt[0]) == len(dealt[1])
    assert sorted(flat(dealt[0] + dealt[1])) == list(range(120))


def test_statistics_and_prepared_features():
    made = PackedStream(range(500), *BUDGET, batch_size=2, buffer=100, prepare=lambda portion: map(example, portion))
    batches = [PackedCollator(0, 1, *BUDGET)(batch) for batch in made]
    statistics = made.statistics
    assert statistics.examples == 500
    assert statistics.rows == sum(len(batch["input_ids"]) for batch in batches)
    real = sum(int((batch["segment_ids"] > 0).sum()) for batch in batches)
    assert statistics.source_efficiency == pytest.approx(real / (statistics.rows * BUDGET[0]))
    assert max(statistics.source_efficiency, statistics.target_efficiency) > 0.9


@pytest.mark.parametrize("workers", [0, 2])
def test_a_stream_of_few_portions_that_never_ends_gives_every_worker_some(workers):
    loader = DataLoader(stream(20, buffer=32, epochs=None), batch_size=None, num_workers=workers, collate_fn=list)
    assert set(flat(numbers(islice(loader, 20)))) == set(range(20))


def test_a_stream_of_nothing_that_never_ends_is_refused():
    with pytest.raises(ValueError, match="the stream must give an example in every epoch, got none in a whole epoch"):
        next(iter(stream(70, epochs=None, prepare=lambda examples: [])))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_stream_of_next_to_nothing_is_not(workers):
    some = stream(70, epochs=None, prepare=lambda examples: [e for e in examples if e["input_ids"][0] == 79])
    loader = DataLoader(some, batch_size=None, num_workers=workers, collate_fn=list)
    assert set(flat(numbers(islice(loader, 3)))) == {69}


@pytest.mark.slow
@pytest.mark.parametrize("options", [[], ["--text"]])
def test_memory_does_not_grow_with_the_stream(options):
    command = [sys.executable, "-m", "benchmarks.streams", "--pairs", "100000", *options]
    run = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=True)
    resident = [float(line.split("|")[2].replace(",", "")) for line in run.stdout.splitlines()[2:]]
    assert len(resident) > 5
    assert resident[-1] < resident[1] + 30  # MiB


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        (iter([]), {}, "list_iterator, which can be read once"),
        ([], {"buffer": 0}, "buffer must be at least 1, got 0"),
        ([], {"process": 2, "processes": 2}, "process must be at least 0 and less than processes=2, got 2"),
    ],
)
def test_bad_arguments(source, options, message):
    with pytest.raises((TypeError, ValueError), match=message):
        PackedStream(source, *BUDGET, batch_size=2, **options)
