import os
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from processor_time import loops
from transformers import Trainer, TrainerCallback, TrainingArguments

from crossmask.data import packing
from crossmask.data.collator import Seq2SeqCollator
from crossmask.data.packing import PackedCollator, PackedDataset, PackedSampler, pack, packing_statistics
from crossmask.data.sources import load_split

CORPORA = Path(os.environ.get("CROSSMASK_DATA", Path(__file__).parents[2] / "../shared/data"))
PAD, START, EOS = 0, 1, 2

lengths_in_budget = st.lists(st.tuples(st.integers(1, 20), st.integers(1, 30)), min_size=1, max_size=120)


def features(lengths) -> list[dict[str, list[int]]]:
    """Examples whose tokens tell which example they are of."""
    return [{"input_ids": [10 + at] * a, "labels": [10 + at] * b} for at, (a, b) in enumerate(lengths)]


@given(lengths=lengths_in_budget, seed=st.none() | st.integers(0, 9))
def test_every_example_once_within_both_budgets(lengths, seed):
    rows = pack(lengths, (20, 30), seed)
    assert sorted(index for row in rows for index in row) == list(range(len(lengths)))
    for row in rows:
        assert sum(lengths[at][0] for at in row) <= 20
        assert sum(lengths[at][1] for at in row) <= 30


def test_first_fit_decreasing_by_hand():
    # By the fuller side: example 2 (1.0), 4 (0.75), 0 (0.6), 1 (0.5), 3 (0.25).
    lengths = [(3, 2), (2, 2), (4, 4), (1, 1), (1, 3)]
    assert pack(lengths, (5, 4)) == [[2], [4, 3], [0, 1]]


def test_statistics_by_hand():
    statistics = packing_statistics([(3, 2), (2, 2), (4, 4)], (5, 4), [[2], [0, 1]])
    assert (statistics.examples, statistics.rows) == (3, 2)
    assert (statistics.source_efficiency, statistics.target_efficiency) == (9 / 10, 8 / 8)


def test_too_long_for_a_row():
    with pytest.raises(ValueError, match=r"example 1 must have at most 5 source and 4 target tokens, .*, got 2 and 5"):
        pack([(1, 1), (2, 5)], (5, 4))
    with pytest.raises(ValueError, match="packing must have at least one example, got none"):
        pack([], (5, 4))


@given(lengths=lengths_in_budget, epochs=st.lists(st.integers(0, 50), min_size=1, max_size=4))
def test_every_epoch_has_all_examples_in_the_same_number_of_rows(lengths, epochs):
    packed = PackedDataset(features(lengths), 20, 30, seed=1)
    size = len(packed)
    for epoch in epochs:
        packed.set_epoch(epoch)
        rows = [packed[at] for at in range(len(packed))]
        assert len(rows) == size
        assert sorted(feature["input_ids"][0] - 10 for row in rows for feature in row) == list(range(len(lengths)))
        assert packed.statistics.rows == size


def test_epochs_and_seeds_differ_and_come_again():
    lengths = [(1 + at % 13, 1 + at % 17) for at in range(300)]

    def rows(seed: int, epoch: int) -> list[list[int]]:
        packed = PackedDataset(features(lengths), 20, 30, seed=seed)
        packed.set_epoch(epoch)
        return [packed.rows[at] for at in PackedSampler(packed)]

    assert rows(0, 1) == rows(0, 1)
    assert {frozenset(row) for row in rows(0, 1)} != {frozenset(row) for row in rows(0, 0)}
    assert {frozenset(row) for row in rows(0, 1)} != {frozenset(row) for row in rows(1, 1)}


def test_the_order_of_rows_differs_where_the_rows_do_not():
    packed = PackedDataset(features([(20, 30)] * 40), 20, 30)
    orders = []
    for epoch in (0, 1):
        PackedSampler(packed).set_epoch(epoch)
        orders.append(list(PackedSampler(packed)))
    assert orders[0] != orders[1]
    assert sorted(orders[0]) == sorted(orders[1]) == list(range(40))


def test_an_epoch_that_needs_more_rows_takes_those_of_the_first(monkeypatch):
    packed = PackedDataset(features([(2, 2)] * 6), 4, 4)
    monkeypatch.setattr(packing, "pack", lambda *given: [[at] for at in range(6)] if given[2][1] else pack(*given))
    packed.set_epoch(1)
    assert len(packed) == len(packed.rows) == 3
    assert sorted(index for row in packed.rows for index in row) == list(range(6))


def test_collated_rows_by_hand():
    row = [
        {"input_ids": [5, 6, EOS], "labels": [7, EOS]},
        {"input_ids": [8, EOS], "labels": [9, EOS], "decoder_prefix_ids": [11]},
    ]
    batch = PackedCollator(PAD, START, source_length=6, target_length=7)([row, row[1:]])
    assert {key: value.tolist() for key, value in batch.items()} == {
        "input_ids": [[5, 6, EOS, 8, EOS, PAD], [8, EOS, PAD, PAD, PAD, PAD]],
        "segment_ids": [[1, 1, 1, 2, 2, 0], [1, 1, 0, 0, 0, 0]],
        "decoder_input_ids": [[START, 7, START, 11, 9, PAD, PAD], [START, 11, 9, PAD, PAD, PAD, PAD]],
        "decoder_segment_ids": [[1, 1, 2, 2, 2, 0, 0], [1, 1, 1, 0, 0, 0, 0]],
        "labels": [[7, EOS, -100, 9, EOS, -100, -100], [-100, 9, EOS, -100, -100, -100, -100]],
    }
    assert {tensor.dtype for tensor in batch.values()} == {torch.int64}


def test_sources_of_another_vocabulary_have_their_own_padding():
    row = features([(2, 2)])
    alike, own = (PackedCollator(PAD, START, 4, 4, source_pad_token_id=pad)([row]) for pad in (None, 33))
    assert own["input_ids"][0, 2:].tolist() == [33, 33]
    assert alike["input_ids"][0, 2:].tolist() == [PAD, PAD] == own["decoder_input_ids"][0, 2:].tolist()
    own["input_ids"][own["input_ids"] == 33] = PAD
    for name, tensor in alike.items():
        assert torch.equal(own[name], tensor), name


@given(lengths=st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=12))
def test_packed_segments_are_the_padded_examples(lengths):
    examples = features(lengths)
    examples[0]["decoder_prefix_ids"] = [3, 4]
    packed = PackedDataset(examples, 12, 12)
    batch = PackedCollator(PAD, START, 12, 12)([packed[at] for at in range(len(packed))])
    for at, row in enumerate(packed.rows):
        for segment, index in enumerate(row, start=1):
            alone = Seq2SeqCollator(PAD, START)([examples[index]])
            source, target = batch["segment_ids"][at] == segment, batch["decoder_segment_ids"][at] == segment
            assert torch.equal(batch["input_ids"][at][source], alone["input_ids"][0])
            for name in ("decoder_input_ids", "labels"):
                assert torch.equal(batch[name][at][target], alone[name][0])


def test_collator_refuses_rows_of_another_size():
    with pytest.raises(
        ValueError, match="row 0 of the batch must have at most 3 source and 9 target tokens, got 4 and 4"
    ):
        PackedCollator(PAD, START, 3, 9)([features([(2, 2), (2, 2)])])


class Recorder(torch.nn.Module):
    """A model that keeps what it was fed."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.fed: list[list] = []

    def forward(self, input_ids, segment_ids, decoder_input_ids, decoder_segment_ids, labels):
        self.fed.append(input_ids.tolist())
        return {"loss": self.weight * input_ids.float().mean()}


class PackedTrainer(Trainer):
    def _get_train_sampler(self, train_dataset=None):
        return PackedSampler(train_dataset or self.train_dataset)


class StopAt(TrainerCallback):
    def __init__(self, step: int):
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        control.should_training_stop = state.global_step >= self.step


@pytest.mark.parametrize("workers", [0, 1])
def test_trainer_resumes_in_the_middle_of_an_epoch(tmp_path, workers):
    lengths = [(1 + at % 13, 1 + at % 17) for at in range(60)]

    def train(stop: int = 1000, resume: str | None = None) -> list[list]:
        model = Recorder()
        arguments = TrainingArguments(
            output_dir=str(tmp_path / "run"),
            num_train_epochs=3,
            per_device_train_batch_size=4,
            save_steps=1,
            report_to=[],
            disable_tqdm=True,
            use_cpu=True,
            dataloader_num_workers=workers,
        )
        packed = PackedDataset(features(lengths), 20, 30, seed=5)
        collate = PackedCollator(PAD, START, 20, 30)
        trainer = PackedTrainer(
            model, arguments, data_collator=collate, train_dataset=packed, callbacks=[StopAt(stop)]
        )
        trainer.train(resume_from_checkpoint=resume)
        return model.fed

    whole = train()
    steps = len(whole) // 3
    assert whole[:steps] != whole[steps : 2 * steps]
    stop = steps + 2
    assert train(stop) == whole[:stop]
    assert train(resume=str(tmp_path / "run" / f"checkpoint-{stop}")) == whole[stop:]


@pytest.mark.skipif(not CORPORA.is_dir(), reason=f"no corpora at {CORPORA}: set CROSSMASK_DATA")
def test_multi30k_is_packed_tightly_and_fast():
    folder = CORPORA / "multi30k"
    pairs = load_split({"format": "lines", "source": folder / "train.en.gz", "target": folder / "train.de.gz"})
    # Words and their punctuation stand in for tokens.
    lengths = [(len(a.split()) + 3, len(b.split()) + 4) for a, b in zip(pairs["source"], pairs["target"], strict=True)]
    assert loops(pack, lengths, (256, 256), 0, most=3000) < 3000  # it takes 250
    rows = pack(lengths, (256, 256), seed=0)
    statistics = packing_statistics(lengths, (256, 256), rows)
    assert max(statistics.source_efficiency, statistics.target_efficiency) > 0.97
    assert min(statistics.source_efficiency, statistics.target_efficiency) > 0.93
