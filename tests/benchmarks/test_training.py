"""The training benchmark runs every variant, checks sizes and counts real tokens only."""

import re

import numpy as np
import pytest
import torch

from benchmarks import corpus, training
from benchmarks.baselines import FAMILIES, SIZES, build, check_sizes
from benchmarks.batching import BATCHINGS, collate, groups, sizes
from benchmarks.variants import VARIANTS


@pytest.fixture(scope="module")
def examples() -> corpus.Corpus:
    return corpus.draw(2000, vocab_size=300)


@pytest.mark.slow
def test_a_quick_run_writes_a_line_for_every_variant(tmp_path):
    page = tmp_path / "training.md"
    training.main(["--quick", "--threads", "1", "--output", str(page)])
    text = page.read_text()
    lines = {line.split(" | ")[0].removeprefix("| "): line for line in text.splitlines() if line.startswith("| ")}
    for variant in VARIANTS:
        numbers = [
            float(number) for number in re.findall(r"[\d.]+", lines[variant.name].replace(",", "").split("|", 2)[2])
        ]
        assert len(numbers) == len(training.HEADER) - 1
        assert all(number > 0 for number in numbers), lines[variant.name]
    assert "1.00" in lines["BART, random batches"]


def test_every_batching_has_about_the_same_number_of_real_tokens(examples):
    means = {}
    for batching in BATCHINGS:
        made = [collate(group, examples, "crossmask", batching, 64) for group in groups(examples, batching, 512, 64)]
        means[batching] = np.mean([batch.real for batch in made])
    assert all(abs(mean / 512 - 1) < 0.1 for mean in means.values()), means


@pytest.mark.parametrize("batching", BATCHINGS)
def test_padding_never_counts(examples, batching):
    family = "crossmask" if batching == "packed rows" else "BART"
    batch = collate(next(groups(examples, batching, 512, 64)), examples, family, batching, 64)
    sources = batch.inputs["segment_ids" if batching == "packed rows" else "attention_mask"]
    assert batch.real == (sources > 0).sum() + (batch.inputs["labels"] != -100).sum()
    assert 0 < batch.padding < 1


def test_drawn_lengths_are_those_of_the_table():
    sources, targets = np.array(sizes(corpus.draw(20000, vocab_size=300).features)).T
    assert np.abs(np.quantile(sources, corpus.QUANTILES[1:-1]) - corpus.SOURCE_LENGTHS[1:-1]).max() <= 2
    assert targets.min() >= 3
    assert abs(np.mean(targets - sources) - 0.5) < 0.2


@pytest.mark.parametrize(("name", "vocab_size"), [("8M", 8000), ("50M", 8000), ("tiny", 300)])
def test_models_are_of_equal_size(name, vocab_size):
    with torch.device("meta"):
        check_sizes({family: build(family, SIZES[name], vocab_size).num_parameters() for family in FAMILIES})


def test_models_of_unequal_size_are_refused():
    with pytest.raises(ValueError, match=r"Marian must have the 1,000 parameters of BART within 2%, got 1,030"):
        check_sizes({"BART": 1000, "T5Gemma": 1019, "Marian": 1030})


def test_too_many_steps_for_the_corpus_are_refused(examples):
    plan = training.Plan(steps=500, tokens=512, row=64, device="cpu", products=(64,))
    with pytest.raises(ValueError, match="take fewer --steps"):
        training.plan_batches(examples, plan, 500)
