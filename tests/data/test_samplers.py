import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossmask.data.collator import Seq2SeqCollator
from crossmask.data.packing import PackedCollator
from crossmask.data.samplers import EpochBatches, SharedBatches, ShuffledSampler


def batches(count: int, size: int, seed: int = 0, epoch: int = 0) -> EpochBatches:
    made = EpochBatches(ShuffledSampler(count, seed), size, drop_last=False)
    made.set_epoch(epoch)
    return made


@given(count=st.integers(1, 40), size=st.integers(1, 7), processes=st.integers(1, 6), epoch=st.integers(0, 3))
def test_processes_share_batches_without_loss_or_repetition(count, size, processes, epoch):
    shares = [SharedBatches(batches(count, size), processes, at) for at in range(processes)]
    for share in shares:
        share.set_epoch(epoch)
    dealt = [list(share) for share in shares]
    assert {len(part) for part in dealt} == {len(shares[0])}
    assert sorted(index for part in dealt for batch in part for index in batch) == list(range(count))
    whole = list(batches(count, size, epoch=epoch))
    for at, together in enumerate(zip(*dealt, strict=True)):
        assert [batch for batch in together if batch] == whole[at * processes : (at + 1) * processes]


def test_epochs_and_seeds_differ_and_come_again():
    first = list(batches(50, 4))
    assert first == list(batches(50, 4))
    assert first != list(batches(50, 4, epoch=1))
    assert first != list(batches(50, 4, seed=1))


@pytest.mark.parametrize("collate", [Seq2SeqCollator(0, 1, pad_to_multiple_of=4), PackedCollator(0, 1, 4, 4)])
def test_an_empty_batch_is_a_row_of_padding(collate):
    batch = collate([])
    assert {tuple(tensor.shape) for tensor in batch.values()} == {(1, 4)}
    assert (batch["labels"] == -100).all()
    assert not batch["input_ids"].any()
