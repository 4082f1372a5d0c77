"""Tiny encoders and causal language models of many families, whose attention is not flat."""

import torch
from transformers import AutoModel, AutoModelForCausalLM, PreTrainedModel
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from crossmask.bridge import CrossMaskBridgeForConditionalGeneration

VOCABULARY = 60
SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
GROUPED = {"num_key_value_heads": 2, "head_dim": 8}
DECODERS: dict[str, dict] = {
    "llama": GROUPED,
    "gpt2": {"n_inner": 48},
    "gemma3_text": {**GROUPED, "sliding_window": 4, "layer_types": ["sliding_attention", "full_attention"] * 2},
    "mistral": {**GROUPED, "sliding_window": 4},
    "opt": {"ffn_dim": 48, "word_embed_proj_dim": 32},
    "falcon": {"new_decoder_architecture": False, "multi_query": True},
    # The rest is tested by make test-slow.
    "qwen2": GROUPED,
    "qwen3": GROUPED,
    "gemma": GROUPED,
    "gemma2": {**GROUPED, "sliding_window": 4, "layer_types": ["sliding_attention", "full_attention"] * 2},
    "gpt_neox": {},
    "gptj": {"rotary_dim": 4, "n_inner": 48},
    "phi": GROUPED,
    "phi3": GROUPED,
    "smollm3": {**GROUPED, "no_rope_layers": [1, 1, 0]},
    "olmo": GROUPED,
    "olmo2": GROUPED,
    "bloom": {},
    "stablelm": GROUPED,
    "cohere": GROUPED,
    "granite": GROUPED,
    "starcoder2": GROUPED,
    "modernbert-decoder": {"global_attn_every_n_layers": 2, "local_attention": 8},
    "mixtral": {**GROUPED, "num_local_experts": 2},
    "helium": GROUPED,
    "codegen": {"rotary_dim": 4, "n_inner": 48},
    "biogpt": {},
    "xglm": {"d_model": 32, "ffn_dim": 48, "attention_heads": 4, "num_layers": 3},
    "lfm2": {"num_key_value_heads": 2, "layer_types": ["conv", "full_attention"] * 2},
}
ENCODERS: dict[str, dict] = {
    "bert": {},
    "roberta": {"pad_token_id": 1, "type_vocab_size": 1},
    "t5": {"d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 3, "num_heads": 4},
    "modernbert": {"global_attn_every_n_layers": 2, "local_attention": 8},
    # The rest is tested by make test-slow.
    "distilbert": {"dim": 32, "hidden_dim": 48, "n_layers": 3, "n_heads": 4},
    "electra": {"embedding_size": 32},
    "mpnet": {"pad_token_id": 1},
    "albert": {"embedding_size": 16},
    "xlm-roberta": {"pad_token_id": 1, "type_vocab_size": 1},
    "bart": {"d_model": 32, "encoder_layers": 3, "decoder_layers": 1, "encoder_attention_heads": 4,
             "decoder_attention_heads": 4, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48},
    "deberta-v2": {"relative_attention": True, "pos_att_type": ["p2c", "c2p"]},
}  # fmt: skip
QUICK_DECODERS, QUICK_ENCODERS = list(DECODERS)[:6], list(ENCODERS)[:4]


def sharpen(model: PreTrainedModel, seed: int) -> PreTrainedModel:
    """Weights at which attention prefers some tokens and every layer counts."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.25)
            elif ("norm" in name.lower() or "ln" in name.lower()) and name.endswith("weight"):
                parameter.copy_(0.6 + 0.8 * torch.rand(parameter.shape, generator=generator))
    return model.eval()


def _config(family: str, fields: dict, **changes):
    layers = fields.get("layer_types")
    sizes = dict(SIZES, num_hidden_layers=len(layers)) if layers else SIZES
    config = CONFIG_MAPPING[family](**{**sizes, **fields, **changes})
    for name, value in vars(config).items():
        if isinstance(value, float) and "drop" in name:  # a draw is not the same twice
            setattr(config, name, 0.0)
    return config


def decoder_of(family: str, **changes) -> PreTrainedModel:
    torch.manual_seed(0)
    return sharpen(AutoModelForCausalLM.from_config(_config(family, DECODERS[family], **changes)), seed=1)


def encoder_of(family: str, **changes) -> PreTrainedModel:
    torch.manual_seed(0)
    return sharpen(AutoModel.from_config(_config(family, ENCODERS.get(family, {}), hidden_size=32, **changes)), seed=2)


def open_blocks(
    model: CrossMaskBridgeForConditionalGeneration, seed: int = 3
) -> CrossMaskBridgeForConditionalGeneration:
    """Blocks that are no longer closed, and look at some source tokens more than at others."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for block in model.bridge:
            for parameter in block.parameters():
                if parameter.ndim > 1:
                    parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
            if block.gate is not None:
                block.gate.fill_(0.7)
    return model


def bridge_of(
    encoder: str = "bert", decoder: str = "llama", opened: bool = True, attention: str | None = None, **fields
) -> CrossMaskBridgeForConditionalGeneration:
    model = CrossMaskBridgeForConditionalGeneration.from_encoder_decoder_pretrained(
        encoder_of(encoder), decoder_of(decoder), **fields
    )
    if attention is not None:
        model.set_attn_implementation(attention)
    return open_blocks(model) if opened else model


def ids(*shape: int, seed: int = 0) -> torch.Tensor:
    """Random ids, none of them special."""
    return torch.randint(4, VOCABULARY, shape, generator=torch.Generator().manual_seed(seed))


def packed_and_alone(model: CrossMaskBridgeForConditionalGeneration) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits (1, 8, vocabulary) of two examples that share a row, and of the same examples one by one."""
    sources, targets = [ids(1, n, seed=n) for n in (4, 6)], [ids(1, n, seed=10 + n) for n in (5, 3)]
    packed = model(
        input_ids=torch.cat(sources, 1),
        segment_ids=torch.tensor([[1] * 4 + [2] * 6]),
        decoder_input_ids=torch.cat(targets, 1),
        decoder_segment_ids=torch.tensor([[1] * 5 + [2] * 3]),
    ).logits
    alone = [model(input_ids=s, decoder_input_ids=t).logits for s, t in zip(sources, targets, strict=True)]
    return packed, torch.cat(alone, 1)
