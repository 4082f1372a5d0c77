"""What is blind changes no bit; what could be read is refused."""

import pytest
import torch
from small_models import small_model, tokens
from torch.nn.attention import flex_attention as flex

from crossmask import masks
from crossmask.attention.backends import BACKENDS
from crossmask.attention.blockwise import BlockwiseMask
from crossmask.attention.packed import ExamplesMask
from crossmask.attention.varlen import Varlen
from crossmask.seq2seq import mask_compiler

pytestmark = pytest.mark.usefixtures("without_kernels")
KINDS = {
    **{name: {"on": name} for name in BACKENDS},
    "additive": {"cross_attention_score": "additive"},
    "memory": {"memory_length": 3},
    "masks": {
        "encoder_mask": "window(3)",
        "cross_mask": {"0": "wait_k(2)", "1": "heads({0: causal(), 'rest': full()})"},
    },
}
SPAN = masks.blind((2, 4))


def model_of(on: str | None = None, **fields):
    model = small_model(**fields)
    model.config._attn_implementation = on or "sdpa"  # set_attn_implementation looks for the flash_attn package
    return model


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
    model = model_of(**KINDS[kind])
    under = torch.zeros(2, 7, dtype=torch.bool)
    under[:, 2:4] = True
    one, other = sources(under)
    labels = tokens(2, 4, seed=1)
    given = {"encoder_mask": SPAN, "cross_mask": SPAN}
    assert not torch.equal(model(input_ids=one, labels=labels).logits, model(input_ids=other, labels=labels).logits)
    for a, b in zip(bits(model, one, labels, **given), bits(model, other, labels, **given), strict=True):
        assert torch.equal(a, b)
    with torch.no_grad():  # FlexAttention runs here, and blocks above
        assert torch.equal(
            model(input_ids=one, labels=labels, **given).logits, model(input_ids=other, labels=labels, **given).logits
        )
    for beams in (1, 3):
        how = {"num_beams": beams, "num_return_sequences": beams, "max_new_tokens": 5, "do_sample": False, **given}
        wanted = {"return_dict_in_generate": True, "output_scores": True}
        a, b = (model.generate(source, **how, **wanted) for source in (one, other))
        assert torch.equal(a.sequences, b.sequences)
        assert all(torch.equal(x, y) for x, y in zip(a.scores, b.scores, strict=True))
        if beams > 1:
            assert torch.equal(a.sequences_scores, b.sequences_scores)


FORMS = {"blockwise": BlockwiseMask, "flex_attention": flex.BlockMask, "flash_attention_2": Varlen}


@pytest.mark.parametrize("name", BACKENDS)
@pytest.mark.parametrize("kind", ["padded", "packed"])
def test_no_bit_changes_in_long_rows(name, kind, monkeypatch):
    """Rows of several blocks of queries; each example has spans of its own, which cross the blocks' borders."""
    compiled = []

    def keep(name, requests):
        compiled_masks = compile_masks(name, requests)
        compiled.extend(compiled_masks)
        return compiled_masks

    compile_masks = mask_compiler.compile_masks
    monkeypatch.setattr(mask_compiler, "compile_masks", keep)
    model = model_of(name, max_position_embeddings=400, initializer_range=0.2)
    length = 200
    segments, targets = torch.ones(2, length).long(), torch.ones(2, 9).long()
    segments[1, 180:] = 0
    under = torch.zeros(2, length).bool()
    if kind == "packed":
        segments[:, 150:180], targets[:, 5:] = 2, 2
        segments[0, 180:] = 2
        rule = masks.blind(examples=[[(20, 140)], [(0, 7)], [(60, 70), (120, 130)], []])
        given = {"segment_ids": segments, "decoder_segment_ids": targets}
        under[0, 20:140] = under[0, 150:157] = under[1, 60:70] = under[1, 120:130] = True
    else:
        rule = masks.blind(examples=[[(60, 70), (120, 199)], [(0, 130)]])
        given = {"attention_mask": segments}
        under[0, 60:70] = under[0, 120:199] = under[1, :130] = True
    one, other = sources(under)
    given |= {"encoder_mask": rule, "cross_mask": rule}
    labels = tokens(2, 9, seed=1)
    for a, b in zip(bits(model, one, labels, **given), bits(model, other, labels, **given), strict=True):
        assert torch.equal(a, b)
    assert all(weight.grad.abs().sum() > 0 for weight in model.parameters())
    compiled.clear()
    with torch.no_grad():
        a, b = (model(input_ids=source, labels=labels, **given).logits for source in (one, other))
    assert torch.equal(a, b)
    forms = FORMS | {"blockwise": ExamplesMask} if kind == "packed" else FORMS
    assert {type(mask) for mask in compiled} == {forms.get(name, torch.Tensor)}
    elsewhere = one.clone()
    elsewhere[~under] = (elsewhere[~under] - 3) % 36 + 4
    assert not torch.equal(bits(model, elsewhere, labels, **given)[0], bits(model, one, labels, **given)[0])


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
        ({"cross_mask": SPAN}, "encoder_mask must have blind((2, 4)) in every layer and head"),
        ({"encoder_mask": SPAN}, "cross_mask must have blind((2, 4)) in every layer and head"),
        (
            {"encoder_mask": SPAN, "cross_mask": masks.blind((2, 3))},
            "encoder_mask must have blind((2, 3)) in every layer and head",
        ),
        (
            {"encoder_mask": SPAN | masks.causal(), "cross_mask": SPAN},
            "encoder_mask must have blind((2, 4)) in every layer and head",
        ),
        ({"encoder_mask": ~SPAN, "cross_mask": SPAN}, "encoder_mask must have blind((2, 4)) in every layer and head"),
        (
            {"encoder_mask": f"layers({{0: {SPAN}, 1: full()}})", "cross_mask": SPAN},
            "encoder_mask must have blind((2, 4))",
        ),
        (
            {"encoder_mask": SPAN, "cross_mask": f"heads({{0: full(), 'rest': {SPAN}}})"},
            "cross_mask must have blind((2, 4))",
        ),
        (
            {"decoder_mask": SPAN},
            "decoder_mask must be without blind spans, which are of source tokens, got blind((2, 4))",
        ),
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
    with pytest.raises(masks.MaskError, match="encoder_mask must have blind"):
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


@pytest.mark.parametrize("way", ["call", "config", "memory"])
@torch.no_grad()
def test_encoder_outputs_say_what_they_are_blind_to(way):
    """Over an encoder's output a blind span is checked against what that output was made under."""
    text = str(SPAN)
    fields = {"encoder_mask": text, "cross_mask": text} if way == "config" else {}
    model = model_of(**fields, **({"memory_length": 3} if way == "memory" else {}))
    given = {} if way == "config" else {"cross_mask": SPAN}
    source, target = tokens(2, 7), tokens(2, 4, seed=1)
    encoded = model.get_encoder()(source, encoder_mask=None if way == "config" else SPAN)
    expected = model(input_ids=source, decoder_input_ids=target, encoder_mask=SPAN, cross_mask=SPAN).logits
    assert torch.equal(model(encoder_outputs=encoded, decoder_input_ids=target, **given).logits, expected)
    options = {"max_new_tokens": 4, "num_beams": 2}
    blind = model.generate(source, encoder_mask=SPAN, cross_mask=SPAN, **options)
    assert torch.equal(model.generate(encoder_outputs=encoded, **given, **options), blind)
    if way == "config":
        return
    readable = model.get_encoder()(source)
    everything = {"output_hidden_states": True, "return_dict": False}
    for tensors in (
        model.get_encoder()(source, encoder_mask=SPAN, **everything),
        list(encoded.values()),
        dict(encoded),
    ):
        assert torch.equal(model(encoder_outputs=tensors, decoder_input_ids=target, **given).logits, expected)
        if way == "call":
            with pytest.raises(masks.MaskError, match=r"cross_mask must have blind\(\(2, 4\)\) in every layer"):
                model(encoder_outputs=tensors, decoder_input_ids=target)
    for outputs in (readable, (readable[0],), type(readable).__mro__[1](readable[0])):
        with pytest.raises(masks.MaskError, match=r"encoder_mask must have blind\(\(2, 4\)\) in every layer"):
            model(encoder_outputs=outputs, decoder_input_ids=target, cross_mask=SPAN)
        if not isinstance(outputs, tuple):
            with pytest.raises(masks.MaskError, match=r"encoder_mask must have blind\(\(2, 4\)\) in every layer"):
                model.generate(encoder_outputs=outputs, cross_mask=SPAN)
    if way == "call":  # hidden from the encoder, and read by the decoder at the span itself
        with pytest.raises(masks.MaskError, match=r"cross_mask must have blind\(\(2, 4\)\) in every layer"):
            model(encoder_outputs=encoded, decoder_input_ids=target)


@torch.no_grad()
def test_a_mask_that_is_too_long_for_a_text_is_remembered_as_it_is():
    """Spans of a large batch have no text, but blindness over the encoder's output is checked all the same."""
    hidden = masks.blind(examples=[((2, 4),)] * 3000)
    with pytest.raises(masks.MaskError, match="32,768"):
        str(hidden)
    model = model_of(hidden_size=8, intermediate_size=8)
    source, target = tokens(3000, 5), tokens(3000, 2, seed=1)
    encoded = model.get_encoder()(source, encoder_mask=hidden)
    expected = model(input_ids=source, decoder_input_ids=target, encoder_mask=hidden, cross_mask=hidden).logits
    assert torch.equal(model(encoder_outputs=encoded, decoder_input_ids=target, cross_mask=hidden).logits, expected)
    with pytest.raises(masks.MaskError, match=r"must have blind.* in every layer and head"):
        model(encoder_outputs=encoded, decoder_input_ids=target)


@pytest.mark.parametrize(
    "outputs", [torch.ones(1, 5, 32), (), "states", (None,), {"hidden": 1}, (torch.ones(5, 32),)], ids=str
)
def test_what_is_not_an_encoder_output_is_refused(outputs):
    model = model_of()
    with pytest.raises(ValueError, match="encoder_outputs must be the encoder's output or a tuple"):
        model(encoder_outputs=outputs, decoder_input_ids=tokens(1, 3))


@pytest.mark.parametrize(
    "given", [{"encoder_mask": SPAN}, {"cross_mask": SPAN}, {"cross_mask": SPAN & masks.wait_k(2)}]
)
def test_half_blind_is_refused_under_a_compiler_too(given):
    torch._dynamo.reset()
    torch.compiler.set_stance("default")  # the fixture runs compiled functions as they are
    compiled = torch.compile(model_of(), backend="eager")
    with pytest.raises(masks.MaskError, match=r"must have blind\(\(2, 4\)\) in every layer"):
        compiled(input_ids=tokens(2, 7), decoder_input_ids=tokens(2, 4), use_cache=False, **given)
