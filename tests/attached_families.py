"""Tiny encoder-decoders of Transformers of many families, whose attention is not flat."""

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
import transformers
from transformers import EncoderDecoderModel, PreTrainedModel
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING,
    MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING,
)

from crossmask import attach

VOCABULARY, HEADS = 60, 4
TOKENS = {
    "vocab_size": VOCABULARY,
    "pad_token_id": 1,
    "bos_token_id": 0,
    "eos_token_id": 2,
    "decoder_start_token_id": 3,
}
BART = {
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": HEADS,
    "decoder_attention_heads": HEADS,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48,
    "max_position_embeddings": 64,
    "forced_eos_token_id": None,
    "forced_bos_token_id": None,
}
T5 = {
    "d_model": 32,
    "d_kv": 8,
    "d_ff": 48,
    "num_layers": 2,
    "num_decoder_layers": 2,
    "num_heads": HEADS,
    "relative_attention_num_buckets": 8,
    "relative_attention_max_distance": 16,
}
BERT = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": HEADS,
    "intermediate_size": 48,
    "max_position_embeddings": 64,
}
GEMMA = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": HEADS,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "query_pre_attn_scalar": 8,
    "sliding_window": 4,
    "layer_types": ["full_attention", "sliding_attention"],
}
MOE = {"num_experts": 4, "expert_capacity": 64}
AUDIO = {**BART, "max_source_positions": 9, "max_target_positions": 64, "num_mel_bins": 8}

MOONSHINE = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "encoder_num_hidden_layers": 2,
    "decoder_num_hidden_layers": 2,
    "encoder_num_attention_heads": HEADS,
    "decoder_num_attention_heads": HEADS,
}


@dataclass(frozen=True)
class Family:
    """How to make a model of a family, and in what it differs from BART.

    Attributes:
        config: makes its config.
        attention: the attention implementations that it has.
        differs: of `"zero"` (a query without a key still sees the other side), `"static"` (no static cache),
            `"blind"` (`blind` is refused), `"encoder"` (no encoder masks), `"window"` (its own sliding windows),
            `"audio"` (features instead of ids), `"rows"` (rows of a batch are not independent).
    """

    config: Callable[[], Any]
    attention: tuple[str, ...] = ("sdpa", "eager")
    differs: frozenset[str] = field(default_factory=frozenset)


def _of(name: str, *fields: dict, attention: tuple[str, ...] = ("sdpa", "eager"), differs: str = "") -> Family:
    merged: dict[str, Any] = {**TOKENS}
    for each in fields:
        merged |= each
    return Family(lambda: CONFIG_MAPPING[name](**merged), attention, frozenset(differs.split()))


def _pair(encoder: str, decoder: str, differs: str = "", **decoder_fields: Any) -> Family:
    def config() -> Any:
        sides = {}
        for side, name in (("encoder", encoder), ("decoder", decoder)):
            sides[side] = CONFIG_MAPPING[name](**{**TOKENS, **BERT, **(decoder_fields if side == "decoder" else {})})
        config = transformers.EncoderDecoderConfig.from_encoder_decoder_configs(sides["encoder"], sides["decoder"])
        for token, number in TOKENS.items():
            setattr(config, token, number)
        return config

    return Family(config, differs=frozenset(differs.split()))


def _gemma(name: str, differs: str, attention: tuple[str, ...]) -> Family:
    def config() -> Any:
        tokens = {
            name: number for name, number in TOKENS.items() if name not in ("vocab_size", "decoder_start_token_id")
        }
        common = {"is_encoder_decoder": True, "tie_word_embeddings": False, **tokens, "decoder_start_token_id": 3}
        if name == "t5gemma":
            return CONFIG_MAPPING[name](
                encoder={**GEMMA, **tokens}, decoder={**GEMMA, **tokens}, vocab_size=VOCABULARY, **common
            )
        vision = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1,
                  "image_size": 8, "patch_size": 4}  # fmt: skip
        encoder = {"text_config": {**GEMMA, **tokens}, "vision_config": vision, "mm_tokens_per_image": 1, **tokens}
        tokens_of_images = {"boi_token_index": 50, "eoi_token_index": 51, "image_token_index": 52}
        return CONFIG_MAPPING[name](
            encoder={**encoder, **tokens_of_images}, decoder={**GEMMA, **tokens}, **common, **tokens_of_images
        )

    return Family(config, attention, frozenset(differs.split()))


FAMILIES: dict[str, Family] = {
    "bart": _of("bart", BART),
    "marian": _of("marian", BART, {"decoder_vocab_size": VOCABULARY}),
    "mbart": _of("mbart", BART),
    "m2m_100": _of("m2m_100", BART),
    "pegasus": _of("pegasus", BART),
    "blenderbot": _of("blenderbot", BART, {"encoder_no_repeat_ngram_size": 0}),
    "blenderbot-small": _of("blenderbot-small", BART),
    "plbart": _of("plbart", BART),
    "t5": _of("t5", T5),
    "t5-v1.1": _of("t5", T5, {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}),
    "mt5": _of("mt5", T5),
    "umt5": _of("umt5", T5),
    "bert2bert": _pair("bert", "bert"),
    "roberta2roberta": _pair("roberta", "roberta"),
    "bert2gpt2": _pair("bert", "gpt2", n_embd=32, n_layer=2, n_head=HEADS, n_positions=64),
    "t5gemma": _gemma("t5gemma", "window", ("eager",)),
    "t5gemma2": _gemma("t5gemma2", "window zero", ("sdpa", "eager")),
    "switch_transformers": _of(
        "switch_transformers",
        T5,
        MOE,
        {"num_sparse_encoder_layers": 1, "num_sparse_decoder_layers": 1},
        attention=("eager",),
        differs="blind rows",
    ),
    "nllb-moe": _of(
        "nllb-moe",
        BART,
        MOE,
        {"encoder_sparse_step": 2, "decoder_sparse_step": 2},
        attention=("eager",),
        differs="blind static",
    ),
    "whisper": _of("whisper", AUDIO, {"begin_suppress_tokens": None, "suppress_tokens": None}, differs="audio"),
    "speech_to_text": _of(
        "speech_to_text",
        AUDIO,
        {"num_conv_layers": 1, "conv_kernel_sizes": [3], "conv_channels": 16, "input_feat_per_channel": 8},
        attention=("eager",),
        differs="audio",
    ),
    "moonshine": _of("moonshine", MOONSHINE, differs="audio"),
    "longt5": _of(
        "longt5", T5, {"encoder_attention_type": "local", "local_radius": 2}, attention=("eager",), differs="encoder"
    ),
    "pegasus_x": _of(
        "pegasus_x", BART, {"block_size": 4, "num_global_tokens": 2}, attention=("eager",), differs="encoder"
    ),
    "bigbird_pegasus": _of(
        "bigbird_pegasus",
        BART,
        {"attention_type": "original_full"},
        attention=("eager",),
        differs="encoder",
    ),
}


def _model_class(config: Any) -> type[PreTrainedModel]:
    if isinstance(config, transformers.EncoderDecoderConfig):
        return EncoderDecoderModel
    mapping = MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING
    return mapping[type(config)] if type(config) in mapping else MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING[type(config)]


def sharpen(model: PreTrainedModel, seed: int = 0) -> PreTrainedModel:
    """Weights at which attention prefers some tokens and every layer counts."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.35)
            elif "norm" in name.lower() and name.endswith("weight"):
                parameter.copy_(0.6 + 0.8 * torch.rand(parameter.shape, generator=generator))
    return model.eval()


@cache
def _built(family: str) -> PreTrainedModel:
    torch.manual_seed(0)
    config = FAMILIES[family].config()
    for part in (config, *(getattr(config, name) for name in ("encoder", "decoder") if hasattr(config, name))):
        for name, value in vars(part).items():
            if isinstance(value, float) and "drop" in name:  # a draw is not the same twice
                setattr(part, name, 0.0)
    return sharpen(_model_class(config)(config))


def plain(family: str, attention: str | None = None) -> PreTrainedModel:
    """A model of a family as Transformers has it, a new one each time."""
    model = copy.deepcopy(_built(family))
    if attention is not None:
        model.set_attn_implementation(attention)
    return model


def attached(family: str, attention: str | None = None, **masks: Any) -> PreTrainedModel:
    return attach(plain(family, attention), **masks)


def ids(*shape: int, seed: int = 0) -> torch.Tensor:
    """Random ids, none of them special."""
    return torch.randint(4, VOCABULARY - 15, shape, generator=torch.Generator().manual_seed(seed))


def source_of(family: str, batch: int = 2, length: int = 9, seed: int = 0) -> dict[str, torch.Tensor]:
    """A source of `length` states: ids, or the features of a speech model."""
    if "audio" not in FAMILIES[family].differs:
        return {"input_ids": ids(batch, length, seed=seed)}
    generator = torch.Generator().manual_seed(seed)
    shapes = {
        "whisper": ("input_features", (batch, 8, 2 * length)),
        "speech_to_text": ("input_features", (batch, 2 * length, 8)),
    }
    name, shape = shapes.get(family, ("input_values", (batch, 64 * 6 * length + 300)))
    return {name: torch.randn(shape, generator=generator)}
