"""Masks only ever close, also in the parts of a bridge, whose attention is that of Transformers."""

import pytest
import torch
from bridge_families import QUICK_DECODERS, bridge_of, decoder_of, encoder_of, ids, sharpen
from influences import CALLS, LENGTH, read
from transformers import AutoModel

from crossmask.bridge import CrossMaskBridgeForConditionalGeneration as Bridge

pytestmark = pytest.mark.filterwarnings("ignore")

CAUSAL = ["llama", "gpt2", "opt"]
BOTH = pytest.mark.parametrize("attention", ["sdpa", "eager"])


@BOTH
@pytest.mark.parametrize("family", ["bert", "t5", "modernbert", *CAUSAL])
@torch.no_grad()
def test_an_encoder_reads_nothing_that_it_does_not_read_by_itself(family, attention):
    encoder = AutoModel.from_config(decoder_of(family).config) if family in CAUSAL else encoder_of(family)
    model = Bridge.from_encoder_decoder_pretrained(sharpen(encoder, seed=2), decoder_of("llama"))
    model.set_attn_implementation(attention)
    source, target = ids(1, LENGTH), ids(1, 3, seed=1)

    def states(tokens, **given):
        return model(input_ids=tokens, decoder_input_ids=target, **given).encoder_last_hidden_state

    alone = read(states, source)
    for mask in CALLS:
        under_mask = read(lambda tokens, given=mask: states(tokens, encoder_mask=given), source)
        assert not (under_mask & ~alone).any(), mask
    assert not (under_mask & ~torch.eye(LENGTH, dtype=torch.bool)).any()  # where nothing may be seen


@BOTH
@pytest.mark.parametrize("family", QUICK_DECODERS)
@torch.no_grad()
def test_a_decoder_reads_nothing_that_comes_later(family, attention):
    model = bridge_of(decoder=family, attention=attention)
    source, target = ids(1, 5), ids(1, LENGTH, seed=1)

    def states(tokens, **given):
        return model(input_ids=source, decoder_input_ids=tokens, **given).logits

    for mask in CALLS:
        under_mask = read(lambda tokens, given=mask: states(tokens, decoder_mask=given), target)
        assert not under_mask.triu(1).any(), mask
    assert not (under_mask & ~torch.eye(LENGTH, dtype=torch.bool)).any()  # where nothing may be seen


@pytest.mark.parametrize("family", QUICK_DECODERS)
@torch.no_grad()
def test_a_query_with_nothing_to_see_is_the_same_with_a_cache(family):
    model = bridge_of(decoder=family)
    options = {"max_new_tokens": 6, "eos_token_id": None, "decoder_mask": "drop((0, 3))"}
    source, prompt = ids(2, 5), ids(2, 2, seed=1)
    outputs = [
        model.generate(source, decoder_input_ids=prompt, use_cache=use_cache, **options) for use_cache in (True, False)
    ]
    assert torch.equal(*outputs)
