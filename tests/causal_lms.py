"""Small causal language models of Transformers' families, with random weights."""

import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, PreTrainedModel

SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 280}
WIDE = {"intermediate_size": 48, "num_key_value_heads": 2, "initializer_range": 0.3}
# What a recipe's `model` says of each.
MODELS = {
    "llama": WIDE,
    "mistral": {**WIDE, "sliding_window": 16},
    "qwen3": {**WIDE, "head_dim": 8},
    "gemma3_text": {**WIDE, "head_dim": 8, "query_pre_attn_scalar": 8, "sliding_window": 16},
    "olmo2": WIDE,
    "phi": {"intermediate_size": 48, "initializer_range": 0.3},
    "gpt_neox": {"intermediate_size": 48, "initializer_range": 0.3},
    "gpt2": {"initializer_range": 0.3},
}
# Positions do not tell their texts apart.
UNPACKABLE = {
    "bloom": {"initializer_range": 0.3},
    "opt": {"ffn_dim": 48, "init_std": 0.3, "word_embed_proj_dim": 32},
    "mamba": {"num_attention_heads": None, "initializer_range": 0.3, "state_size": 4},
}


def model_fields(family: str) -> dict:
    """A recipe's `model`."""
    fields = {"model_type": family, **SIZES, **(MODELS | UNPACKABLE).get(family, {})}
    return {name: value for name, value in fields.items() if value is not None}


def causal_lm(family: str, attention: str | None = "eager", **fields) -> PreTrainedModel:
    """An evaluating model; the same family gives the same weights."""
    given = {**model_fields(family), "max_position_embeddings": 64, **fields}
    kind = CONFIG_MAPPING[given.pop("model_type")]
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(kind(**given), attn_implementation=attention).eval()
