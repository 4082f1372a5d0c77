"""What a call cannot obey is refused or said: keywords, attention weights, padding, caches, numbers, lengths."""

import logging

import pytest
import torch
from mask_cases import tiny_model, tokens
from transformers import DynamicCache, EncoderDecoderCache

MISSPELT = {
    "segments_ids": "segment_ids",
    "decoder_segments_ids": "decoder_segment_ids",
    "atention_mask": "attention_mask",
    "passages_ids": "passage_ids",
    "crossmask": "cross_mask",
    "postion_ids": "position_ids",
    "num_item_in_batch": "num_items_in_batch",
}
OF_TRANSFORMERS = {"cu_seq_lens_q": "segment_ids", "max_length_k": "segment_ids", "is_causal": "encoder_mask"}
SOURCE, TARGET = tokens(2, 6), tokens(2, 4, seed=1)


def calls(model) -> dict:
    """Every forward pass of a model, as a function of further keywords."""
    states = model.get_encoder()(SOURCE).last_hidden_state
    return {
        "whole": lambda **given: model(input_ids=SOURCE, decoder_input_ids=TARGET, **given),
        "headless": lambda **given: model.model(input_ids=SOURCE, decoder_input_ids=TARGET, **given),
        "encoder": lambda **given: model.get_encoder()(SOURCE, **given),
        "decoder": lambda **given: model.get_decoder()(TARGET, encoder_hidden_states=states, **given),
        "generate": lambda **given: model.generate(SOURCE, max_new_tokens=2, **given),
    }


each_call = pytest.mark.parametrize("call", ["whole", "headless", "encoder", "decoder", "generate"])


@each_call
@pytest.mark.parametrize("name", MISSPELT)
def test_a_misspelt_keyword_is_refused_with_the_nearest(name, call):
    with pytest.raises(
        (TypeError, ValueError), match=f"no argument is called {name}; (did you mean|it takes)"
    ) as info:
        calls(tiny_model())[call](**{name: torch.ones(2, 6)})
    if call in ("whole", "generate"):
        assert f"did you mean {MISSPELT[name]}?" in str(info.value)


@each_call
@pytest.mark.parametrize("name", OF_TRANSFORMERS)
def test_what_transformers_knows_and_we_replace_is_refused(name, call):
    with pytest.raises(
        (TypeError, ValueError), match=f"{name} has no effect on this model; give {OF_TRANSFORMERS[name]}"
    ):
        calls(tiny_model())[call](**{name: torch.ones(2)})


@each_call
def test_what_transformers_knows_is_taken(call):
    given = {"output_hidden_states": True, "return_dict_in_generate": True} if call == "generate" else {}
    calls(tiny_model())[call](output_attentions=True, **given)
    if call != "generate":
        calls(tiny_model())[call](output_hidden_states=True, return_dict=True, cu_seq_lens_q=None)


@pytest.mark.parametrize("backend", ["sdpa", "blockwise"])
@each_call
def test_attention_weights_that_are_not_there_are_said(call, backend, caplog, monkeypatch):
    caplog.set_level(logging.WARNING)
    monkeypatch.setattr(logging.getLogger("crossmask"), "propagate", True)
    logging.Logger.warning_once.cache_clear()
    given = {"return_dict_in_generate": True} if call == "generate" else {}
    out = calls(tiny_model(backend))[call](output_attentions=True, **given)
    found = [value for name, value in out.items() if "attentions" in name]
    assert all(value is None or all(one is None for one in value) for value in found)
    assert "output_attentions" in caplog.text
    assert 'set_attn_implementation("eager")' in caplog.text
    eager = calls(tiny_model("eager"))[call](output_attentions=True, **given)
    assert all(eager[name] for name in eager if "attentions" in name)


def test_additive_attention_has_weights_under_any_backend():
    model = tiny_model("sdpa", cross_attention_score="additive")
    out = model(input_ids=SOURCE, decoder_input_ids=TARGET, output_attentions=True)
    assert len(out.cross_attentions) == 2
    assert out.encoder_attentions is None


@pytest.mark.parametrize("call", ["forward", "generate"])
def test_padding_without_a_mask_is_said_once(call, monkeypatch):
    said = []
    monkeypatch.setattr(logging.Logger, "warning_once", lambda self, text, *rest: said.append(text))
    model, padded = tiny_model(), SOURCE.clone()
    run = (lambda **g: model(labels=TARGET, **g)) if call == "forward" else (lambda **g: model.generate(**g))
    padded[1, 4:] = 0
    run(input_ids=padded)
    assert any("attention_mask" in text for text in said)
    said.clear()
    run(input_ids=padded, attention_mask=(padded != 0).long())
    run(input_ids=SOURCE)
    if call == "forward":
        model(
            input_ids=padded,
            labels=TARGET,
            segment_ids=(padded != 0).long(),
            decoder_segment_ids=torch.ones(2, 4).long(),
        )
    assert not said


@pytest.mark.parametrize("smoothing", [-1, -1e-9, 1.5, float("nan")])
def test_smoothing_outside_of_zero_to_one_is_refused(smoothing):
    with pytest.raises(ValueError, match="smoothing must be from 0 to 1, got"):
        tiny_model()(input_ids=SOURCE, labels=TARGET, smoothing=smoothing)


@torch.no_grad()
def test_a_cache_of_the_target_alone_is_taken():
    model = tiny_model()
    expected = model(input_ids=SOURCE, decoder_input_ids=TARGET).logits
    cache = DynamicCache()
    found = [
        model(input_ids=SOURCE, decoder_input_ids=TARGET[:, i : i + 1], past_key_values=cache).logits for i in range(4)
    ]
    torch.testing.assert_close(torch.cat(found, dim=1), expected, atol=1e-4, rtol=1e-4)
    assert cache.get_seq_length() == 4
    out = model(input_ids=SOURCE, decoder_input_ids=TARGET, past_key_values=DynamicCache())
    assert isinstance(out.past_key_values, EncoderDecoderCache)
    assert model.generate(SOURCE, past_key_values=DynamicCache()).equal(model.generate(SOURCE))


@pytest.mark.parametrize("cache", [((torch.ones(1),),), "cache", {"a": 1}])
def test_what_is_not_a_cache_is_refused(cache):
    with pytest.raises(ValueError, match="past_key_values must be an EncoderDecoderCache or a DynamicCache, got "):
        tiny_model()(input_ids=SOURCE, decoder_input_ids=TARGET, past_key_values=cache)


@pytest.mark.parametrize(
    ("asked", "fix"),
    [
        ({"max_new_tokens": 70}, "max_new_tokens=64"),
        ({"max_length": 66}, "max_length=65"),
        ({"max_new_tokens": 62, "decoder_input_ids": tokens(2, 3)}, "max_new_tokens=61"),  # and a start token
    ],
)
def test_generation_ends_with_the_positions(asked, fix, monkeypatch):
    said = []
    monkeypatch.setattr(logging.Logger, "warning_once", lambda self, text, *rest: said.append(text))
    model = tiny_model(eos_token_id=None)
    assert model.generate(SOURCE, **asked).shape[1] == 65
    assert f"goes beyond max_position_embeddings=64: generation stops at {fix}" in " ".join(said)
    said.clear()
    name, most = fix.split("=")
    assert model.generate(SOURCE, **{**asked, name: int(most)}).shape[1] == 65
    assert not said


@pytest.mark.parametrize("asked", [{"min_new_tokens": 65, "max_new_tokens": 90}, {"min_length": 66, "max_length": 90}])
def test_a_shortest_target_beyond_the_positions_is_refused_before_the_first_step(asked):
    model, steps = tiny_model(), []
    model.get_decoder().register_forward_pre_hook(lambda *_: steps.append(1))
    with pytest.raises(ValueError, match="max_position_embeddings=64 allows no target of at least 66 tokens"):
        model.generate(SOURCE, **asked)
    assert not steps


ENCODED_UNDER = {"a rule": "window(1)", "a tensor": torch.ones(2, 6, dtype=torch.bool), "nothing": None}


@pytest.mark.parametrize("mask", ENCODED_UNDER.values(), ids=ENCODED_UNDER)
@torch.no_grad()
def test_an_encoder_mask_beside_encoder_outputs_has_to_be_theirs(mask):
    model = tiny_model()
    encoded = model.get_encoder()(SOURCE, encoder_mask=mask)
    expected = model(input_ids=SOURCE, decoder_input_ids=TARGET, encoder_mask=mask).logits
    given = {"decoder_input_ids": TARGET, "encoder_outputs": encoded}
    assert model(**given).logits.equal(expected)
    assert model(**given, encoder_mask=mask).logits.equal(expected)
    tokens_of = model.generate(SOURCE, encoder_mask=mask)
    assert model.generate(encoder_outputs=encoded, encoder_mask=mask).equal(tokens_of)
    assert model.generate(encoder_outputs=encoded, num_beams=2).equal(
        model.generate(SOURCE, encoder_mask=mask, num_beams=2)
    )
    for call in (lambda **g: model(**given, **g), lambda **g: model.generate(encoder_outputs=encoded, **g)):
        with pytest.raises(
            ValueError, match=r"encoder_mask window\(left=3\) has no effect on encoder_outputs that were made"
        ):
            call(encoder_mask="window(3)")
    as_tuple = model.get_encoder()(SOURCE, encoder_mask=mask, return_dict=False)
    assert model(decoder_input_ids=TARGET, encoder_outputs=as_tuple).logits.equal(expected)
