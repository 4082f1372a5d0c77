"""Every input of `forward` with values or dtypes that mean nothing is refused in one line, and never interpreted."""

import pytest
import torch
from small_models import small_model, tokens

from crossmask import masks

B, S, T = 2, 5, 4
MASKS = {"attention_mask": S, "decoder_attention_mask": T}
IDS = {
    "segment_ids": S,
    "decoder_segment_ids": T,
    "position_ids": S,
    "decoder_position_ids": T,
    "passage_ids": S,
}


def call(**inputs):
    model = small_model()
    for name, length in (("segment_ids", S), ("decoder_segment_ids", T)):  # both or neither
        if name not in inputs and any("segment" in other for other in inputs):
            inputs[name] = torch.ones(B, length, dtype=torch.long)
    with torch.no_grad():
        return model(input_ids=tokens(B, S), decoder_input_ids=tokens(B, T, seed=1), **inputs).logits


def with_value(length: int, value, dtype: torch.dtype) -> torch.Tensor:
    tensor = torch.ones(B, length, dtype=dtype)
    tensor[1, 2] = value
    return tensor


def refused(match: str, **inputs) -> None:
    with pytest.raises(masks.MaskError, match=match) as caught:
        call(**inputs)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", MASKS)
@pytest.mark.parametrize(
    ("value", "dtype"),
    [
        (float("nan"), torch.float32),
        (float("-inf"), torch.float32),
        (0.5, torch.bfloat16),
        (-1.0, torch.float64),
        (-1, torch.int64),
        (2, torch.int64),
        (-1, torch.int8),
        (255, torch.uint8),
    ],
)
def test_padding_masks_hold_zeros_and_ones(name, value, dtype):
    mask = with_value(MASKS[name], value, dtype)
    refused("the attention mask must hold 1 for tokens and 0 for padding, got", **{name: mask})


@pytest.mark.parametrize("name", MASKS)
def test_an_additive_mask_is_refused(name):
    additive = torch.zeros(B, MASKS[name])
    additive[1, 3:] = torch.finfo(torch.float32).min
    refused("the attention mask must hold 1 for tokens", **{name: additive})


@pytest.mark.parametrize("name", MASKS)
@pytest.mark.parametrize(
    "dtype", [torch.bool, torch.uint8, torch.int32, torch.float32, torch.float64, torch.bfloat16, torch.half]
)
def test_padding_masks_of_any_dtype_are_the_same(name, dtype):
    mask = with_value(MASKS[name], 0, torch.long)
    assert call(**{name: mask.to(dtype)}).equal(call(**{name: mask}))
    assert not call(**{name: mask}).allclose(call())
    assert call(**{name: torch.ones_like(mask).to(dtype)}).equal(call())


@pytest.mark.parametrize("name", MASKS)
def test_complex_padding_masks_are_refused(name):
    refused("the attention mask must be bool or hold 1", **{name: torch.ones(B, MASKS[name], dtype=torch.complex64)})


@pytest.mark.parametrize("name", [name for name in IDS if name != "passage_ids"])
@pytest.mark.parametrize("value", [-1, -100, -(2**40)])
def test_ids_are_counted_from_zero(name, value):
    refused(f"ids must be integers from 0 up, got {value}", **{name: with_value(IDS[name], value, torch.long)})


@pytest.mark.parametrize("name", ["position_ids", "decoder_position_ids"])
def test_padding_may_have_any_number(name):
    """As tokenizers and collators write it; only where a token stands must numbers mean something."""
    mask = "decoder_attention_mask" if "decoder" in name else "attention_mask"
    padded = {mask: with_value(IDS[name], 0, torch.long)}
    assert call(**padded, **{name: with_value(IDS[name], -1, torch.long)})[0].equal(
        call(**padded, **{name: with_value(IDS[name], 1, torch.long)})[0]
    )
    refused("got -1", **padded, **{name: torch.full((B, IDS[name]), -1)})


@pytest.mark.parametrize("name", IDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.bool, torch.complex64])
def test_ids_that_are_not_integers_are_refused(name, dtype):
    """Also where the numbers are whole: what an accelerator has is never looked at, so only the dtype can decide."""
    refused("ids must be integers, got torch", **{name: torch.ones(B, IDS[name], dtype=dtype)})


@pytest.mark.parametrize("name", IDS)
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16, torch.int32])
def test_ids_of_any_integer_dtype_are_the_same(name, dtype):
    ids = torch.tensor([1, 1, 1, 2, 2]).expand(B, -1)[:, : IDS[name]]
    assert call(**{name: ids.to(dtype)}).equal(call(**{name: ids.clone()}))


@pytest.mark.parametrize("name", [*MASKS, *IDS])
@pytest.mark.parametrize("shape", [(B,), (B, 1), (B, 9), (3, None), (B, None, 1)])
def test_inputs_of_another_shape_are_refused(name, shape):
    length = {**MASKS, **IDS}[name]
    tensor = torch.ones([length if size is None else size for size in shape], dtype=torch.long)
    with pytest.raises(ValueError, match=r"must be \(|columns") as caught:
        call(**{name: tensor})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", [*MASKS, *IDS])
def test_lists_are_refused(name):
    with pytest.raises(ValueError, match="must be a torch tensor, got list"):
        masks.lay_out(3, torch.device("cpu"), **{name.removeprefix("decoder_"): [[1, 1, 1]]})


@pytest.mark.parametrize("name", [*MASKS, *IDS])
def test_a_tracer_has_no_values_to_look_at(name):
    """Values are taken as they are then: nothing is refused, and nothing of them stays in the graph."""
    length = {**MASKS, **IDS}[name]

    def lay_out(tensor):
        return masks.lay_out(length, torch.device("cpu"), **{name.removeprefix("decoder_"): tensor}).positions

    ones = torch.ones(B, length, dtype=torch.long)
    traced = torch.jit.trace(lay_out, (ones,), check_trace=False)
    other = with_value(length, 0, torch.long)
    assert traced(other).equal(lay_out(other).expand_as(traced(other)))


@pytest.mark.parametrize(
    ("inputs", "match"),
    [
        ({"input_ids": tokens(B, S).tolist()}, "Encoder's ids must be a torch tensor, got list"),
        ({"input_ids": tokens(B, S)[0]}, r"Encoder's ids must be \(batch, length\), got \(5,\)"),
        ({"input_ids": tokens(B, S).float()}, "Encoder's ids must be int64, got torch.float32"),
        ({"input_ids": tokens(B, S) + 1000}, "ids must be from 0 to .*, the vocabulary of CrossMaskEncoder, got"),
        ({"decoder_input_ids": -tokens(B, T)}, "ids must be from 0 to .*, the vocabulary of CrossMaskDecoder, got -"),
        (
            {"input_ids": None, "inputs_embeds": torch.ones(S, 32)},
            r"Encoder's inputs_embeds must be \(batch, length, ",
        ),
        ({"input_ids": None, "inputs_embeds": torch.ones(B, S, 3)}, r"inputs_embeds must be \(batch, length, "),
        ({"labels": tokens(T)}, r"labels must be \(batch, target\), got \(4,\)"),
        ({"example_ids": torch.arange(3)}, r"example_ids must be \(2,\), one for each row, got \(3,\)"),
    ],
    ids=str,
)
def test_tokens_of_another_kind_are_refused(inputs, match):
    given = {"input_ids": tokens(B, S), "decoder_input_ids": tokens(B, T, seed=1), **inputs}
    with pytest.raises(ValueError, match=match) as caught:
        small_model()(**given)
    assert "\n" not in str(caught.value)


def test_a_memory_has_no_more_groups_than_tokens():
    model = small_model(memory_length=2)
    segments = {"segment_ids": torch.full((B, S), 2**31), "decoder_segment_ids": torch.ones(B, T, dtype=torch.long)}
    with pytest.raises(ValueError, match="segment_ids must number the examples of a row from 1 without gaps"):
        model(input_ids=tokens(B, S), decoder_input_ids=tokens(B, T), **segments)


@pytest.mark.parametrize("name", ["num_beams", "num_return_sequences"])
@pytest.mark.parametrize("value", [0, -1, 1.5, True])
def test_numbers_of_sequences_are_whole_and_positive(name, value):
    with pytest.raises(ValueError, match=f"{name} must be an integer of at least 1, got {value}"):
        small_model().generate(tokens(B, S), max_new_tokens=2, do_sample=True, **{name: value})
