import pytest
import torch

from crossmask.data.collator import Seq2SeqCollator
from crossmask.data.packing import PackedCollator, PackedDataset
from crossmask.utils.errors import InputError

PAD, START, EOS = 0, 1, 2


def collate(features, **options) -> dict[str, list]:
    return {key: value.tolist() for key, value in Seq2SeqCollator(PAD, START, **options)(features).items()}


def test_hand_example():
    batch = collate([{"input_ids": [5, 6, EOS], "labels": [7, EOS]}, {"input_ids": [8, EOS], "labels": [9, 10, EOS]}])
    assert batch == {
        "input_ids": [[5, 6, EOS], [8, EOS, PAD]],
        "attention_mask": [[1, 1, 1], [1, 1, 0]],
        "decoder_input_ids": [[START, 7, EOS], [START, 9, 10]],
        "decoder_attention_mask": [[1, 1, 1], [1, 1, 1]],
        "labels": [[7, EOS, -100], [9, 10, EOS]],
    }


def test_prefix_is_read_but_not_learned():
    features = [
        {"input_ids": [5, EOS], "labels": [7, 8, EOS], "decoder_prefix_ids": [11, 12]},
        {"input_ids": [5, EOS], "labels": [9, EOS], "decoder_prefix_ids": []},
    ]
    batch = collate(features)
    assert batch["decoder_input_ids"] == [[START, 11, 12, 7, 8], [START, 9, EOS, PAD, PAD]]
    assert batch["labels"] == [[-100, -100, 7, 8, EOS], [9, EOS, -100, -100, -100]]
    assert batch["decoder_attention_mask"][0] == [1] * 5


def test_left_padding_is_of_the_source_alone():
    features = [{"input_ids": [5, 6, EOS], "labels": [7, EOS]}, {"input_ids": [8, EOS], "labels": [9, 10, EOS]}]
    left, right = collate(features, padding_side="left"), collate(features)
    assert left["input_ids"] == [[5, 6, EOS], [PAD, 8, EOS]]
    assert left["attention_mask"] == [[1, 1, 1], [0, 1, 1]]
    for name in ("decoder_input_ids", "decoder_attention_mask", "labels"):
        assert left[name] == right[name]


def test_pad_to_multiple_of():
    batch = Seq2SeqCollator(PAD, START, pad_to_multiple_of=8)([{"input_ids": [5] * 9, "labels": [7, EOS]}])
    assert batch["input_ids"].shape == (1, 16)
    assert batch["labels"].shape == batch["decoder_input_ids"].shape == (1, 8)
    assert batch["attention_mask"].sum() == 9
    assert {tensor.dtype for tensor in batch.values()} == {torch.int64}


def test_tokens_equal_to_padding_are_still_tokens():
    batch = collate([{"input_ids": [PAD, EOS], "labels": [PAD, 7, EOS]}])
    assert batch["attention_mask"] == [[1, 1]]
    assert batch["labels"] == [[PAD, 7, EOS]]
    assert batch["decoder_attention_mask"] == [[1, 1, 1]]


@pytest.mark.parametrize("side", ["left", "right"])
def test_cross_mask_is_padded_with_the_tokens(side):
    mask = torch.tensor([[True, False], [False, True], [False, False]])
    features = [
        {"input_ids": [5, EOS], "labels": [7, EOS], "decoder_prefix_ids": [6], "cross_mask": mask},
        {"input_ids": [5, 6, EOS], "labels": [7, EOS]},
    ]
    padded = Seq2SeqCollator(PAD, START, padding_side=side)(features)["cross_mask"]
    assert padded.shape == (2, 3, 3)
    assert padded.dtype == torch.bool
    assert torch.equal(padded[0][:, 1:] if side == "left" else padded[0][:, :2], mask)
    assert padded[1].all()


@pytest.mark.parametrize("mask", [torch.ones(2, 3, dtype=torch.bool), torch.ones(2, 2)])
def test_cross_mask_of_another_shape_or_dtype(mask):
    with pytest.raises(ValueError, match=r"cross_mask of example 0 of the batch must be \(2, 2\)"):
        collate([{"input_ids": [5, EOS], "labels": [7, EOS], "cross_mask": mask}])


def test_bad_options():
    with pytest.raises(ValueError, match="padding_side must be one of left, right, got 'both'"):
        Seq2SeqCollator(PAD, START, padding_side="both")
    with pytest.raises(ValueError, match="pad_token_id and decoder_start_token_id must be token ids, got 0 and None"):
        Seq2SeqCollator(PAD, None)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("nothing", [{}, {"labels": None}, {"decoder_prefix_ids": []}])
def test_sources_alone_make_a_batch_to_predict_from(side, nothing):
    features = [{"input_ids": ids} for ids in ([5, 6, EOS], [8, EOS])]
    with_labels = collate([{**feature, "labels": [7, EOS]} for feature in features], padding_side=side)
    alone = collate([{**feature, **nothing} for feature in features], padding_side=side)
    assert alone == {name: with_labels[name] for name in ("input_ids", "attention_mask")}


@pytest.mark.parametrize(
    ("features", "message"),
    [
        ([{"labels": [EOS]}, {}], "example 1 of the batch must have labels as others have"),
        ([{"labels": None}, {"labels": [EOS]}], "example 0 of the batch must have labels as others have"),
        ([{}, {"decoder_prefix_ids": [5]}], "example 1 of the batch must have labels beside decoder_prefix_ids"),
        ([{"cross_mask": torch.ones(2, 2).bool()}], "example 0 of the batch must have labels beside cross_mask"),
        ([{"input_ids": None}], "example 0 of the batch must have input_ids"),
    ],
)
def test_features_that_do_not_go_together(features, message):
    with pytest.raises(InputError, match=message):
        collate([{"input_ids": [5, EOS], **feature} for feature in features])


def test_packing_needs_labels():
    features = [{"input_ids": [5, EOS], "labels": [7, EOS]}, {"input_ids": [5, EOS]}]
    with pytest.raises(InputError, match="an example to train on must have labels, got only input_ids"):
        PackedDataset(features, 8, 8)
    with pytest.raises(InputError, match="an example to train on must have labels, got only input_ids"):
        PackedCollator(PAD, START, 8, 8)([features])
