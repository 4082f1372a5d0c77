"""What is blind changes no bit; what could be read is refused."""

import pytest
import torch
from small_models import small_model, tokens

from crossmask import masks

KINDS = {
    "eager": {"attention": "eager"},
    "sdpa": {"attention": "sdpa"},
    "additive": {"cross_attention_score": "additive"},
    "memory": {"memory_length": 3},
    "masks": {
        "encoder_mask": "window(3)",
        "cross_mask": {"0": "wait_k(2)", "1": "heads({0: causal(), 'rest': full()})"},
    },
}
SPAN = masks.blind((2, 4))


def bits(model, source, labels, **given) -> list[torch.Tensor]:
    model.zero_grad()
    out = model(input_ids=source, labels=labels, **given)
    out.loss.backward()
    return [out.logits.detach(), out.loss.detach(), *(weight.grad.clone() for weight in model.parameters())]


def sources(mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Two batches that differ under the mask only."""
    source = tokens(*mask.shape)
    return source, torch.where(mask, tokens(*mask.shape, seed=7), source)


@pytest.mark.parametrize("kind", KINDS)
def test_no_bit_changes(kind):
    model = small_model(**KINDS[kind])
    under = torch.zeros(2, 7, dtype=torch.bool)
    under[:, 2:4] = True
    one, other = sources(under)
    labels = tokens(2, 4, seed=1)
    given = {"encoder_mask": SPAN, "cross_mask": SPAN}
    assert not torch.equal(model(input_ids=one, labels=labels).logits, model(input_ids=other, labels=labels).logits)
    for a, b in zip(bits(model, one, labels, **given), bits(model, other, labels, **given), strict=True):
        assert torch.equal(a, b)
    for beams in (1, 2):
        how = {"num_beams": beams, "max_new_tokens": 5, "do_sample": False, "output_scores": True, **given}
        a, b = (model.generate(source, return_dict_in_generate=True, **how) for source in (one, other))
        assert torch.equal(a.sequences, b.sequences)
        assert all(torch.equal(x, y) for x, y in zip(a.scores, b.scores, strict=True))


def test_packed_and_padded_examples_have_their_own_spans():
    model = small_model()
    rule = masks.blind(examples=[[(0, 2)], [(1, 2)], []])
    segments = torch.tensor([[1, 1, 1, 2, 2, 2, 2], [1, 1, 1, 0, 0, 0, 0]])
    under = torch.tensor([[1, 1, 0, 0, 1, 0, 0], [0] * 7]).bool()
    one, other = sources(under)
    targets = {"labels": tokens(2, 5, seed=1), "decoder_segment_ids": torch.tensor([[1, 1, 2, 2, 2], [1, 1, 0, 0, 0]])}
    given = {"segment_ids": segments, "encoder_mask": rule, "cross_mask": rule, **targets}
    assert torch.equal(model(input_ids=one, **given).logits, model(input_ids=other, **given).logits)
    moved = one.clone()
    moved[0, 2] = (moved[0, 2] - 3) % 36 + 4
    assert not torch.equal(model(input_ids=moved, **given).logits, model(input_ids=one, **given).logits)


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"cross_mask": SPAN}, "encoder_mask: blind((2, 4)) does not hold"),
        ({"encoder_mask": SPAN}, "cross_mask: blind((2, 4)) does not hold"),
        ({"encoder_mask": SPAN, "cross_mask": masks.blind((2, 3))}, "encoder_mask: blind((2, 3)) does not hold"),
        ({"encoder_mask": SPAN | masks.causal(), "cross_mask": SPAN}, "encoder_mask: blind((2, 4)) does not hold"),
        ({"encoder_mask": ~SPAN, "cross_mask": SPAN}, "encoder_mask: blind((2, 4)) does not hold"),
        ({"encoder_mask": f"layers({{0: {SPAN}, 1: full()}})", "cross_mask": SPAN}, "encoder_mask: blind((2, 4))"),
        ({"encoder_mask": SPAN, "cross_mask": f"heads({{0: full(), 'rest': {SPAN}}})"}, "cross_mask: blind((2, 4))"),
        ({"decoder_mask": SPAN}, "decoder_mask: blind((2, 4)) hides source tokens"),
    ],
)
def test_half_blind_is_refused(given, named):
    model, source = small_model(), tokens(1, 6)
    for call in (
        lambda: model(input_ids=source, labels=tokens(1, 3), **given),
        lambda: model.generate(source, max_new_tokens=2, **given),
    ):
        with pytest.raises(masks.MaskError) as error:
            call()
        assert named in str(error.value)


def test_half_blind_is_refused_beside_a_memory():
    model = small_model(memory_length=2)
    with pytest.raises(masks.MaskError, match="encoder_mask: blind"):
        model(input_ids=tokens(1, 6), labels=tokens(1, 3), cross_mask=SPAN)
    with pytest.raises(masks.MaskError, match="cannot be combined with memory_length"):
        model(input_ids=tokens(1, 6), labels=tokens(1, 3), cross_mask="prefix(1)")


def test_blindness_in_every_head_and_layer_holds_whatever_else_they_do():
    model = small_model()
    whole = {
        "encoder_mask": f"layers({{0: causal() & {SPAN}, 1: {SPAN}}})",
        "cross_mask": f"heads({{0: window(3) & {SPAN}, 'rest': {SPAN}}})",
    }
    under = torch.zeros(1, 7, dtype=torch.bool)
    under[:, 2:4] = True
    one, other = sources(under)
    labels = tokens(1, 4, seed=1)
    assert torch.equal(
        model(input_ids=one, labels=labels, **whole).logits, model(input_ids=other, labels=labels, **whole).logits
    )
