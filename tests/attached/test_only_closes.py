"""Masks only ever close: what an encoder or a decoder does not read by itself, it does not read under any mask."""

import pytest
import torch
from attached_families import BERT, TOKENS, attached, ids, sharpen
from bridge_families import decoder_of
from influences import CALLS, LENGTH, read
from transformers import BertConfig, EncoderDecoderConfig, EncoderDecoderModel

from crossmask import attach, audit

pytestmark = pytest.mark.filterwarnings("ignore")

CAUSAL = ["llama", "gpt2", "gemma3_text", "opt"]
BOTH = pytest.mark.parametrize("attention", ["sdpa", "eager"])


def joined(encoder: str, attention: str):
    torch.manual_seed(0)
    decoder = BertConfig(vocab_size=TOKENS["vocab_size"], **BERT)
    config = EncoderDecoderConfig.from_encoder_decoder_configs(decoder_of(encoder).config, decoder)
    for name, value in TOKENS.items():
        setattr(config, name, value)
    model = attach(sharpen(EncoderDecoderModel(config)))
    model.set_attn_implementation(attention)
    return model


@BOTH
@pytest.mark.parametrize("encoder", CAUSAL)
@torch.no_grad()
def test_an_encoder_that_is_causal_by_itself_stays_so(encoder, attention):
    model, source = joined(encoder, attention), ids(1, LENGTH)

    def states(tokens, **given):
        return model.get_encoder()(input_ids=tokens, **given).last_hidden_state

    alone = read(states, source)
    assert not alone.triu(1).any()
    for mask in CALLS:
        for padding in (None, torch.ones_like(source)):
            call = {"encoder_mask": mask, "attention_mask": padding}
            under_mask = read(lambda tokens, given=call: states(tokens, **given), source)
            assert not (under_mask & ~alone).any(), mask


@BOTH
@pytest.mark.parametrize("family", ["bart", "t5", "bert2bert", "bert2gpt2"])
@torch.no_grad()
def test_a_decoder_stays_causal(family, attention):
    model, source, target = attached(family, attention), ids(1, LENGTH), ids(1, LENGTH, seed=1)

    def states(tokens, **given):
        return model(input_ids=source, decoder_input_ids=tokens, **given).logits

    for mask in CALLS:
        under_mask = read(lambda tokens, given=mask: states(tokens, decoder_mask=given), target)
        assert not under_mask.triu(1).any(), mask


@BOTH
def test_the_audit_finds_no_leak_in_an_encoder_that_is_causal_by_itself(attention):
    model = joined("llama", attention)
    batch = {"input_ids": ids(1, 7), "labels": ids(1, 5)}
    for mask in (None, "window(4, 4)"):
        assert audit(model, {**batch, "encoder_mask": mask}).ok, mask
