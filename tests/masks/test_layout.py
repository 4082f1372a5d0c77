import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from mask_cases import grids, randomised

from crossmask import masks
from crossmask.masks.layout import count_in_segments

CPU = torch.device("cpu")


def test_whole_sequence():
    layout = masks.lay_out(3, CPU)
    assert layout.positions.tolist() == [[0, 1, 2]]
    assert layout.segments is None
    assert layout.length == 3


def test_padding_on_either_side_leaves_positions_alone():
    layout = masks.lay_out(4, CPU, attention_mask=torch.tensor([[0, 0, 1, 1], [1, 1, 1, 0]]))
    assert layout.segments.tolist() == [[0, 0, 1, 1], [1, 1, 1, 0]]
    assert layout.positions[0, 2:].tolist() == [0, 1]
    assert layout.positions[1, :3].tolist() == [0, 1, 2]


def test_nothing_padded_is_a_whole_sequence():
    assert masks.lay_out(4, CPU, attention_mask=torch.ones(2, 4)).segments is None


def test_positions_restart_in_each_segment():
    layout = masks.lay_out(6, CPU, segment_ids=torch.tensor([[1, 1, 2, 2, 2, 0]]))
    assert layout.positions[0, :5].tolist() == [0, 1, 0, 1, 2]
    assert layout.segments.tolist() == [[1, 1, 2, 2, 2, 0]]


def test_segments_need_not_be_contiguous():
    layout = masks.lay_out(6, CPU, segment_ids=torch.tensor([[2, 1, 2, 7, 1, 2]]))
    assert layout.positions.tolist() == [[0, 0, 1, 0, 1, 2]]


def test_padding_mask_cuts_segments():
    layout = masks.lay_out(3, CPU, segment_ids=torch.tensor([[1, 2, 2]]), attention_mask=torch.tensor([[1, 1, 0]]))
    assert layout.segments.tolist() == [[1, 2, 0]]


def test_given_positions_win():
    layout = masks.lay_out(3, CPU, position_ids=torch.tensor([[5, 3, 4]], dtype=torch.int32))
    assert layout.positions.tolist() == [[5, 3, 4]]
    assert layout.positions.dtype == torch.int64


def test_pick():
    layout = masks.lay_out(4, CPU, segment_ids=torch.tensor([[1, 2, 1, 2]])).pick(torch.tensor([2, 3]))
    assert (layout.positions.tolist(), layout.segments.tolist()) == ([[1, 1]], [[1, 2]])


@pytest.mark.parametrize("name", ["attention_mask", "segment_ids", "position_ids"])
@pytest.mark.parametrize("shape", [(2, 5), (4,), (2, 4, 4)])
def test_wrong_shape_is_refused(name, shape):
    with pytest.raises(masks.MaskError) as error:
        masks.lay_out(4, CPU, **{name: torch.ones(shape, dtype=torch.long)})
    assert name.replace("_", " ") in str(error.value)
    assert str(shape) in str(error.value)


@randomised
@given(grids(2, 7, st.integers(0, 3)))
def test_counting_in_segments(segments):
    counted = count_in_segments(segments)
    for row, counts in zip(segments.tolist(), counts_of(counted), strict=True):
        assert counts == [row[:index].count(segment) for index, segment in enumerate(row)]


def counts_of(counted: torch.Tensor) -> list[list[int]]:
    assert counted.dtype == torch.int64
    return counted.tolist()
