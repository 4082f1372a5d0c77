"""Going on from a cache that `generate()` returned, with and without a padding mask, after sampling and beams."""

import pytest
import torch
from mask_cases import tiny_model, tokens
from transformers import EncoderDecoderCache, StaticCache

FIELDS = {
    "plain": {},
    "masks": {"encoder_mask": "causal()", "decoder_mask": "causal() & window(3)", "cross_mask": "wait_k(2)"},
    "causal across": {"cross_mask": "causal()"},
    "memory": {"memory_length": 3},
}
RETURNED = {"return_dict_in_generate": True, "do_sample": False}
each_model = pytest.mark.parametrize("fields", FIELDS.values(), ids=FIELDS)


def model_of(fields: dict):
    return tiny_model("sdpa", eos_token_id=None, **fields)


def cache_of(model, kind: str) -> EncoderDecoderCache | None:
    if kind == "dynamic":
        return None
    lengths = (12, model.config.memory_length or 6)
    return EncoderDecoderCache(*(StaticCache(config=model.config, max_cache_len=length) for length in lengths))


@each_model
@pytest.mark.parametrize("kind", ["dynamic", "static"])
@pytest.mark.parametrize("mask", ["none", "ones"])
@torch.no_grad()
def test_a_continuation_is_what_one_call_makes(fields, kind, mask):
    model, source = model_of(fields), tokens(2, 6)
    given = {"attention_mask": torch.tensor([[1] * 6, [1] * 4 + [0] * 2]), "disable_compile": True, **RETURNED}
    whole = model.generate(source, max_new_tokens=9, **given).sequences
    first = model.generate(source, max_new_tokens=4, past_key_values=cache_of(model, kind), **given)
    assert first.sequences.equal(whole[:, :5])
    if mask == "ones":
        given["decoder_attention_mask"] = torch.ones_like(first.sequences)
    given |= {"decoder_input_ids": first.sequences, "past_key_values": first.past_key_values}
    assert model.generate(source, max_new_tokens=5, **given).sequences.equal(whole)


@each_model
@torch.no_grad()
def test_padded_prefixes_go_on_from_their_cache(fields):
    model, source = model_of(fields), tokens(2, 6)
    prefixes = torch.tensor([[0, 0, 1], [1, 7, 9]])
    whole = model.generate(source, decoder_input_ids=prefixes, max_new_tokens=6, **RETURNED).sequences
    first = model.generate(source, decoder_input_ids=prefixes, max_new_tokens=2, **RETURNED)
    given = {"decoder_input_ids": first.sequences, "past_key_values": first.past_key_values}
    assert model.generate(source, **given, max_new_tokens=4, **RETURNED).sequences.equal(whole)


@each_model
@pytest.mark.parametrize(
    "options", [{"num_beams": 3, "num_return_sequences": 3}, {"num_return_sequences": 3}], ids=str
)
@torch.no_grad()
def test_the_cache_has_a_row_for_every_hypothesis(fields, options):
    """Of the source too, so that it can be reordered and used by a call in which every row has its source."""
    model, source = model_of(fields), tokens(2, 6)
    sampling = {"do_sample": "num_beams" not in options}
    out = model.generate(source, max_new_tokens=4, **{**RETURNED, **sampling}, **options)
    cache = out.past_key_values
    caches = (cache.self_attention_cache, cache.cross_attention_cache)
    assert {len(layer.keys) for part in caches for layer in part.layers} == {6}
    order = torch.tensor([2, 0, 1, 5, 5, 3])
    cache.reorder_cache(order)
    if sampling["do_sample"]:
        sources, sequences = source.repeat_interleave(3, dim=0)[order], out.sequences[order]
        expected = model(input_ids=sources, decoder_input_ids=sequences, use_cache=False).logits[:, -1]
        step = model(input_ids=sources, decoder_input_ids=sequences[:, -1:], past_key_values=cache).logits[:, -1]
        torch.testing.assert_close(step, expected, atol=1e-4, rtol=1e-4)


@each_model
@pytest.mark.parametrize("kind", ["dynamic", "static"])
@pytest.mark.parametrize("returned", [1, 2, 4])
@torch.no_grad()
def test_sequences_of_a_beam_search_go_on_from_its_cache(fields, kind, returned):
    """The search returns them by score, and its cache has them as the last step left them."""
    model, source = model_of(fields), tokens(3, 6)
    given = {"attention_mask": torch.tensor([[1] * 6, [1] * 4 + [0] * 2, [1] * 5 + [0]]), "disable_compile": True}
    beams = {"num_beams": 4, "num_return_sequences": returned, "past_key_values": cache_of(model, kind)}
    first = model.generate(source, max_new_tokens=5, **given, **beams, **RETURNED)
    given["attention_mask"] = given["attention_mask"].repeat_interleave(returned, 0)
    given |= {"decoder_input_ids": first.sequences, "max_new_tokens": 4}
    sources = source.repeat_interleave(returned, 0)
    expected = model.generate(sources, **given, **RETURNED).sequences
    assert model.generate(sources, past_key_values=first.past_key_values, **given, **RETURNED).sequences.equal(
        expected
    )


@each_model
@pytest.mark.parametrize("options", [{"num_beams": 3}, {"num_return_sequences": 3, "do_sample": True}], ids=str)
@torch.no_grad()
def test_several_hypotheses_go_on_from_a_cache_of_one(fields, options):
    model, source = model_of(fields), tokens(2, 6)
    first = model.generate(source, max_new_tokens=4, **RETURNED)
    given = {"decoder_input_ids": first.sequences, "max_new_tokens": 4, **RETURNED, **options}
    torch.manual_seed(0)
    expected = model.generate(source, **given).sequences
    torch.manual_seed(0)
    assert model.generate(source, past_key_values=first.past_key_values, **given).sequences.equal(expected)


@torch.no_grad()
def test_a_cache_of_other_sequences_or_a_full_one_is_refused():
    model, source = model_of({}), tokens(4, 6)
    first = model.generate(source, max_new_tokens=4, **RETURNED)
    given = {"decoder_input_ids": first.sequences[:2], "past_key_values": first.past_key_values}
    with pytest.raises(ValueError, match="past_key_values hold 4 sequences, but decoder_input_ids 2"):
        model.generate(source[:2], **given, max_new_tokens=2)
    cache = model.generate(source, max_new_tokens=11, past_key_values=cache_of(model, "static"), **RETURNED)
    step = {"decoder_input_ids": tokens(4, 2), "past_key_values": cache.past_key_values}
    with pytest.raises(ValueError, match="must have places for 13 target tokens, got 12"):
        model(input_ids=source, **step)


@pytest.mark.parametrize("cache", [((torch.zeros(2, 2, 3, 8),) * 4,) * 2, "cache"], ids=["tuple", "text"])
def test_what_is_not_a_cache_is_refused_before_the_first_step(cache):
    with pytest.raises(ValueError, match="past_key_values must be an EncoderDecoderCache or a DynamicCache, got"):
        model_of({}).generate(tokens(2, 6), past_key_values=cache, max_new_tokens=2)


@torch.no_grad()
def test_sources_that_are_shared_go_on_over_a_cache_that_is_not():
    """The encoder's output may have a row an example, and the cache a row a hypothesis."""
    model, source = model_of({"cross_mask": "wait_k(2)"}), tokens(2, 6)
    source_mask = torch.tensor([[1] * 6, [1] * 4 + [0] * 2])
    out = model.generate(
        source, attention_mask=source_mask, num_return_sequences=3, max_new_tokens=4, **{**RETURNED, "do_sample": True}
    )
    encoded = model.get_encoder()(source, attention_mask=source_mask)
    given = {"encoder_outputs": encoded, "attention_mask": source_mask}
    expected = model(**given, decoder_input_ids=out.sequences, use_cache=False).logits[:, -1]
    step = model(**given, decoder_input_ids=out.sequences[:, -1:], past_key_values=out.past_key_values).logits[:, -1]
    torch.testing.assert_close(step, expected, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_a_cache_without_its_tokens_is_refused():
    model, source = model_of({}), tokens(2, 6)
    first = model.generate(source, max_new_tokens=4, **RETURNED)
    for given in ({}, {"decoder_input_ids": first.sequences[:, -1:]}, {"decoder_input_ids": first.sequences[:, :4]}):
        with pytest.raises(ValueError, match="past_key_values hold 4 target tokens, so decoder_input_ids must be all"):
            model.generate(source, past_key_values=first.past_key_values, **given, max_new_tokens=2)
