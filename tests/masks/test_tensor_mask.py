import numpy as np
import pytest
import torch

from crossmask import masks
from crossmask.masks.tensor_mask import as_mask


@pytest.mark.parametrize("dtype", [torch.bool, torch.int64, torch.int32, torch.uint8])
@pytest.mark.parametrize("shape", [(2, 3), (2, 4, 3), (2, 5, 4, 3)])
def test_booleans_and_zeros_and_ones_are_taken(dtype, shape):
    allowed = torch.rand(shape) > 0.5
    mask = masks.tensor(allowed.to(dtype))
    assert mask.allowed.dtype == torch.bool
    assert mask.allowed.equal(allowed)
    assert not mask.repeat_last


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.complex64])
def test_floats_are_refused_and_say_how_to_fix_them(dtype):
    with pytest.raises(masks.MaskError) as error:
        masks.tensor(torch.zeros(2, 3, dtype=dtype))
    assert str(dtype) in str(error.value)
    assert "`mask > 0.5` for ones and zeros, `mask == 0` for an additive mask" in str(error.value)


@pytest.mark.parametrize("value", [2, -1, 255])
def test_other_integers_are_refused(value):
    with pytest.raises(masks.MaskError, match="must hold 0 and 1 only"):
        masks.tensor(torch.tensor([[0, 1, value]]))


@pytest.mark.parametrize("shape", [(3,), (), (1, 1, 1, 2, 2)])
def test_wrong_number_of_dimensions_is_refused(shape):
    with pytest.raises(masks.MaskError) as error:
        masks.tensor(torch.ones(shape, dtype=torch.bool))
    assert str(shape) in str(error.value)
    assert "(batch, target, source)" in str(error.value)


@pytest.mark.parametrize("value", [[[True]], np.ones((2, 3), dtype=bool)])
def test_only_tensors_are_tensors(value):
    with pytest.raises(masks.MaskError, match="a tensor mask must be a torch tensor, got"):
        masks.tensor(value)


def test_reading_what_a_caller_passed():
    rule, tensor_mask = masks.wait_k(3), masks.tensor(torch.ones(1, 1, dtype=torch.bool), repeat_last=True)
    assert as_mask(None) is None
    assert as_mask(rule) is rule
    assert as_mask("wait_k(3)") == rule
    assert as_mask(tensor_mask) is tensor_mask
    assert as_mask(torch.tensor([[1, 0]])).allowed.tolist() == [[True, False]]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("casual()", "cross_mask: a rule must have a known name, got 'casual' in the mask"),
        (torch.ones(2, 2), "cross_mask: a tensor mask must be boolean"),
        (3, "cross_mask must be a mask, its text or a boolean tensor, got int"),
        ([[True]], "cross_mask must be a mask, its text or a boolean tensor, got list"),
        (masks.causal, "cross_mask must be a mask, its text or a boolean tensor, got type"),
    ],
)
def test_errors_name_the_argument(value, message):
    with pytest.raises(masks.MaskError) as error:
        as_mask(value, "cross_mask")
    assert str(error.value).startswith(message)
