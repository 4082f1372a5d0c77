"""Masks only ever close: what an encoder or a decoder does not read by itself, it does not read under any mask."""

import pytest
import torch
from attached_families import BERT, TOKENS, attached, ids, sharpen
from influences import CALLS, read
from transformers import (
    BertConfig,
    EncoderDecoderConfig,
    EncoderDecoderModel,
    Gemma3TextConfig,
    GPT2Config,
    LlamaConfig,
    OPTConfig,
)

from crossmask import attach, audit

pytestmark = pytest.mark.filterwarnings("ignore")

PART = {name: value for name, value in TOKENS.items() if name != "decoder_start_token_id"}
SIZES = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48,
    "max_position_embeddings": 64,
}  # fmt: skip
ENCODERS = {  # causal language models, as encoders
    "llama": lambda: LlamaConfig(**PART, **SIZES, num_key_value_heads=2),
    "gpt2": lambda: GPT2Config(**PART, n_embd=32, n_layer=2, n_head=4, n_positions=64),
    "gemma3": lambda: Gemma3TextConfig(
        **PART, **SIZES, num_key_value_heads=2, head_dim=8, sliding_window=3, query_pre_attn_scalar=8,
        layer_types=["sliding_attention", "full_attention"],
    ),
    "opt": lambda: OPTConfig(
        **PART, hidden_size=32, word_embed_proj_dim=32, num_hidden_layers=2, num_attention_heads=4, ffn_dim=48,
        max_position_embeddings=64,
    ),
}  # fmt: skip


def joined(encoder: str, attention: str):
    torch.manual_seed(0)
    config = EncoderDecoderConfig.from_encoder_decoder_configs(ENCODERS[encoder](), BertConfig(**PART, **BERT))
    for name, value in TOKENS.items():
        setattr(config, name, value)
    model = attach(sharpen(EncoderDecoderModel(config)))
    model.set_attn_implementation(attention)
    return model


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("encoder", ENCODERS)
@torch.no_grad()
def test_an_encoder_that_is_causal_by_itself_stays_so(encoder, attention):
    model, source = joined(encoder, attention), ids(1, 9)

    def states(tokens, **given):
        return model.get_encoder()(input_ids=tokens, **given).last_hidden_state

    alone = read(states, source)
    assert not alone.triu(1).any()
    for mask in CALLS:
        given = {"encoder_mask": mask}
        for padding in ({}, {"attention_mask": torch.ones_like(source)}):
            under_mask = read(lambda tokens, more=given | padding: states(tokens, **more), source)
            assert not (under_mask & ~alone).any(), mask


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("family", ["bart", "t5", "bert2bert", "bert2gpt2"])
@torch.no_grad()
def test_a_decoder_stays_causal(family, attention):
    model, source, target = attached(family, attention), ids(1, 9), ids(1, 9, seed=1)

    def states(tokens, **given):
        return model(input_ids=source, decoder_input_ids=tokens, **given).logits

    for mask in CALLS:
        given = {"decoder_mask": mask}
        assert not read(lambda tokens, more=given: states(tokens, **more), target).triu(1).any(), mask


def test_the_audit_finds_no_leak_in_an_encoder_that_is_causal_by_itself():
    source = ids(1, 7)
    for attention in ("sdpa", "eager"):
        model = joined("llama", attention)
        audit(model, {"input_ids": source, "labels": ids(1, 5)}).raise_if_leaking()
