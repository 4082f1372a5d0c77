"""A row of the source that serves several rows of the target is as good as a copy for each."""

import pytest
import torch
from small_models import pad, small_model, tokens

from crossmask.attention.dense import fold_mask

FIELDS = {
    "plain": {},
    "memory": {"memory_length": 3},
    "additive": {"cross_attention_score": "additive"},
    "masks": {"encoder_mask": "causal()", "cross_mask": "wait_k(2) | ~heads({0: window(1), 'rest': full()})"},
}


@pytest.mark.parametrize("attention", ["sdpa", "eager", "blockwise"])
@pytest.mark.parametrize("fields", FIELDS.values(), ids=FIELDS.keys())
@torch.no_grad()
def test_shared_rows_are_repeated_rows(fields, attention):
    model = small_model(attention=attention, **fields)
    source, attention_mask = pad([tokens(6, seed=1), tokens(4, seed=2)], "left")
    target = tokens(6, 5, seed=3)
    encoded = model.get_encoder()(input_ids=source, attention_mask=attention_mask).last_hidden_state
    options = {"decoder_input_ids": target, "output_attentions": attention == "eager"}
    shared = model(encoder_outputs=(encoded,), attention_mask=attention_mask, **options)
    repeated = model(
        encoder_outputs=(encoded.repeat_interleave(3, 0),),
        attention_mask=attention_mask.repeat_interleave(3, 0),
        **options,
    )
    torch.testing.assert_close(shared.logits, repeated.logits)
    if attention == "eager":
        for a, b in zip(shared.cross_attentions, repeated.cross_attentions, strict=True):
            torch.testing.assert_close(a, b)


@pytest.mark.parametrize("attention", ["sdpa", "blockwise"])
@torch.no_grad()
def test_beams_over_a_static_cache(attention):
    model = small_model(attention=attention, cross_mask="wait_k(2)")
    source, attention_mask = pad([tokens(6, seed=1), tokens(4, seed=2)], "right")
    options = {"attention_mask": attention_mask, "num_beams": 3, "max_new_tokens": 8, "min_new_tokens": 8}
    static = model.generate(source, cache_implementation="static", disable_compile=True, **options)
    assert torch.equal(static, model.generate(source, **options))
    assert torch.equal(static, model.generate(source, use_cache=False, **options))


@torch.no_grad()
def test_beams_keep_one_copy_of_the_source():
    model, source = small_model(), tokens(2, 5)
    rows = []
    model.model.decoder.layers[0].cross_attn.k_proj.register_forward_hook(lambda *call: rows.append(len(call[2])))
    out = model.generate(source, num_beams=3, max_new_tokens=6, min_new_tokens=6, return_dict_in_generate=True)
    assert rows == [2]  # computed at the first step, once an example
    # The cache that is returned has a row for each hypothesis, so that it can be reordered and gone on from.
    for cache in (out.past_key_values.cross_attention_cache, out.past_key_values.self_attention_cache):
        assert len(cache.layers[0].keys) == 6


def test_rows_that_do_not_come_out_even_are_refused():
    model = small_model()
    with pytest.raises(
        ValueError, match=r"the number of target rows must be that of the source, 2, or a multiple of it, got 3"
    ):
        model(input_ids=tokens(2, 5), decoder_input_ids=tokens(3, 4))


def test_a_folded_mask_has_the_rows_in_turn():
    mask = torch.rand(6, 1, 2, 5) > 0.5
    folded = fold_mask(mask, 3)
    assert folded.shape == (2, 1, 6, 5)
    assert torch.equal(folded[1, 0], torch.cat([mask[3, 0], mask[4, 0], mask[5, 0]]))
    assert torch.equal(fold_mask(mask[:1], 3)[0, 0], mask[0, 0].repeat(3, 1))
