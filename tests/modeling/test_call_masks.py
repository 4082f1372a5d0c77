"""Masks that tell examples, passages, heads and layers apart, in the model and in `generate()`."""

import pytest
import torch
from small_models import pad, small_config, small_model, tokens

from crossmask import masks

PASSAGES = torch.tensor([[0, 0, 0, 1, 1, 2, 2]])


def generate(model, source, **given):
    return model.generate(source, do_sample=False, min_new_tokens=5, max_new_tokens=5, **given)


@pytest.mark.parametrize("beams", [1, 3])
@torch.no_grad()
def test_each_example_has_its_own_mask(beams):
    model = small_model()
    rows = [tokens(6, seed=1), tokens(4, seed=2), tokens(5, seed=3)]
    spans = ([(0, 2)], [(1, 2), (3, 4)], [(2, 5)])
    for side in ("left", "right"):
        source, attention_mask = pad(rows, side)
        rule = masks.keep(examples=spans)
        together = generate(model, source, attention_mask=attention_mask, cross_mask=rule, num_beams=beams)
        for row, (alone, own) in enumerate(zip(rows, spans, strict=True)):
            expected = generate(model, alone[None], cross_mask=masks.keep(*own), num_beams=beams)
            assert torch.equal(together[row : row + 1], expected)


@torch.no_grad()
def test_passages_are_encoded_each_on_its_own():
    encoder, source = small_model().get_encoder(), tokens(1, 7)
    together = encoder(input_ids=source, passage_ids=PASSAGES, encoder_mask="passages()").last_hidden_state
    for first, last in ((0, 3), (3, 5), (5, 7)):
        alone = encoder(input_ids=source[:, first:last]).last_hidden_state
        torch.testing.assert_close(together[:, first:last], alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("beams", [1, 2])
@torch.no_grad()
def test_an_answer_from_a_chosen_passage_knows_no_other(beams):
    model, source = small_model(encoder_mask="passages()"), tokens(2, 7)
    other = source.clone()
    other[:, :5] = tokens(2, 5, seed=5)
    given = {"passage_ids": PASSAGES.expand(2, -1), "num_beams": beams}
    chosen = {"cross_mask": masks.keep(passages=[2]), **given}
    assert torch.equal(generate(model, source, **chosen), generate(model, other, **chosen))
    assert not torch.equal(generate(model, source, **given), generate(model, other, **given))
    alone = generate(small_model(), source[:, 5:], num_beams=beams)
    assert torch.equal(generate(model, source, **chosen), alone)


@torch.no_grad()
def test_heads_and_layers_in_config_and_call():
    text = "layers({0: heads({0: wait_k(1), 'rest': full()}), 1: prefix(2)})"
    source, target = tokens(2, 5), tokens(2, 3, seed=1)
    config, call = small_model(attention="eager", cross_mask=text), small_model(attention="eager")
    out = config(input_ids=source, decoder_input_ids=target, output_attentions=True)
    same = call(input_ids=source, decoder_input_ids=target, cross_mask=text)
    assert torch.equal(out.logits, same.logits)
    first, second = (weights != 0 for weights in out.cross_attentions)
    assert first[0, 0].tolist() == [[k <= q for k in range(5)] for q in range(3)]
    assert first[:, 1:].all()
    assert second[0, 3].tolist() == [[True, True, False, False, False]] * 3
    cached = generate(config, source)
    assert torch.equal(cached, generate(config, source, use_cache=False))


@torch.no_grad()
def test_random_holds_in_training_only():
    model, source, target = small_model(), tokens(2, 5), tokens(2, 3, seed=1)
    given = {"input_ids": source, "decoder_input_ids": target, "use_cache": False}
    plain = model(**given).logits
    assert torch.equal(model(**given, cross_mask=masks.random(0.5, 0)).logits, plain)
    model.train()
    dropped = model(**given, cross_mask=masks.random(0.5, 0)).logits
    assert not torch.equal(dropped, plain)
    assert torch.equal(dropped, model(**given, cross_mask=masks.random(0.5, 0)).logits)
    assert not torch.equal(dropped, model(**given, cross_mask=masks.random(0.5, 1)).logits)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"cross_mask": "window(0) & ~window(0)"},
            "cross_mask must allow something, got window(left=0) & ~window(left=0), which never allows anything",
        ),
        (
            {"cross_mask": {"0": "causal() & ~causal()", "rest": "full()"}},
            "cross_mask must allow something, got causal() & ~causal(), which never allows anything",
        ),
        (
            {"encoder_mask": "heads({4: full(), 'rest': causal()})"},
            "a head must be a number from 0 to 3, since there are 4, got head 4",
        ),
        (
            {"decoder_mask": "layers({0: causal(), 5: full()})"},
            "a layer must be a number from 0 to 1, since there are 2, got layer 5",
        ),
    ],
)
def test_bad_masks_are_refused_by_the_config(fields, message):
    with pytest.raises(Exception, match="_mask") as error:
        small_config(**fields)
    assert message in str(error.value)


def test_a_call_that_contradicts_the_config_is_refused():
    model, source = small_model(cross_mask="causal()"), tokens(1, 4)
    with pytest.raises(masks.MaskError) as error:
        model(input_ids=source, decoder_input_ids=tokens(1, 2), cross_mask="~causal()")
    assert "cross_mask must allow something, got causal() & ~causal(), which never allows anything" in str(error.value)


@pytest.mark.parametrize("name", ["crossmask", "cross_masks", "encoder_masks"])
def test_a_misspelt_mask_is_not_ignored(name):
    source = tokens(2, 6)
    meant = {"crossmask": "cross_mask"}.get(name, name.removesuffix("s"))
    with pytest.raises(TypeError, match=f"no argument is called {name}; did you mean {meant}"):
        small_model()(input_ids=source, labels=source, **{name: masks.blind((1, 3))})
