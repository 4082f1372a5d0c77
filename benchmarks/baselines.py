"""The models that are measured: the baselines of Transformers, and ours, of equal size."""

from collections.abc import Mapping
from dataclasses import dataclass

from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    LEDConfig,
    LEDForConditionalGeneration,
    LongT5Config,
    LongT5ForConditionalGeneration,
    MarianConfig,
    MarianMTModel,
    PreTrainedConfig,
    PreTrainedModel,
    T5Config,
    T5ForConditionalGeneration,
    T5GemmaConfig,
    T5GemmaForConditionalGeneration,
    T5GemmaModuleConfig,
)

from crossmask import CrossMaskConfig, CrossMaskForConditionalGeneration

FAMILIES = ("BART", "Marian", "T5Gemma", "crossmask")
SPECIAL = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1}
DROPOUT = 0.1  # of embeddings and of layers' outputs, in all families; none in attention or inside feed-forward
TOLERANCE = 0.02


@dataclass(frozen=True)
class Size:
    """One size in all families. BART and Marian have a feed-forward width of four times the model's.

    The widths of gated feed-forward layers are chosen so that the numbers of parameters are equal: crossmask has no
    biases, and in T5Gemma encoder and decoder have a table of embeddings each.
    """

    width: int
    layers: int  # in the encoder, and the same number in the decoder
    heads: int
    gated: int  # feed-forward width of crossmask
    t5gemma: int  # feed-forward width of T5Gemma
    positions: int = 128  # tokens that a model takes at most


SIZES = {
    "8M": Size(width=256, layers=3, heads=4, gated=704, t5gemma=256),
    "50M": Size(width=512, layers=6, heads=8, gated=1376, t5gemma=1152),
    "tiny": Size(width=32, layers=1, heads=2, gated=133, t5gemma=83),  # with a vocabulary of 300
}


def build(
    family: str, size: Size, vocab_size: int, attn_implementation: str | None = None, **fields
) -> PreTrainedModel:
    """A model with random weights.

    Args:
        attn_implementation: None leaves the choice to Transformers.
        fields: further fields of the config.
    """
    fields = {"vocab_size": vocab_size, **SPECIAL, **fields}
    model_class, config = _crossmask(size, fields) if family == "crossmask" else _peer(family, size, fields)
    return model_class._from_config(config, attn_implementation=attn_implementation)


def _crossmask(size: Size, fields: dict) -> tuple[type[PreTrainedModel], CrossMaskConfig]:
    sizes = {
        "hidden_size": size.width, "intermediate_size": size.gated, "num_attention_heads": size.heads,
        "encoder_layers": size.layers, "decoder_layers": size.layers, "max_position_embeddings": size.positions,
        "dropout": DROPOUT, "attention_dropout": 0.0,
    }  # fmt: skip
    return CrossMaskForConditionalGeneration, CrossMaskConfig(**{**sizes, **fields})


def _peer(family: str, size: Size, fields: dict) -> tuple[type[PreTrainedModel], PreTrainedConfig]:
    if family == "T5Gemma":
        part = T5GemmaModuleConfig(
            vocab_size=fields["vocab_size"], hidden_size=size.width, intermediate_size=size.t5gemma,
            num_hidden_layers=size.layers, num_attention_heads=size.heads, num_key_value_heads=size.heads,
            head_dim=size.width // size.heads, query_pre_attn_scalar=size.width // size.heads,
            max_position_embeddings=size.positions, layer_types=["full_attention"] * size.layers,
            **{name: fields[name] for name in ("pad_token_id", "bos_token_id", "eos_token_id")},
        )  # fmt: skip
        config = T5GemmaConfig(
            encoder=part, decoder=T5GemmaModuleConfig(**part.to_dict()), dropout_rate=DROPOUT, **fields
        )
        return T5GemmaForConditionalGeneration, config
    if family in ("T5", "LongT5"):
        sizes = {
            "d_model": size.width, "d_kv": size.width // size.heads, "d_ff": 4 * size.width,
            "num_layers": size.layers, "num_heads": size.heads, "dropout_rate": DROPOUT,
        }  # fmt: skip
        if family == "LongT5":
            return LongT5ForConditionalGeneration, LongT5Config(**{**sizes, **fields})
        return T5ForConditionalGeneration, T5Config(**{**sizes, **fields})
    sizes = {
        "d_model": size.width, "encoder_layers": size.layers, "decoder_layers": size.layers,
        "encoder_attention_heads": size.heads, "decoder_attention_heads": size.heads,
        "encoder_ffn_dim": 4 * size.width, "decoder_ffn_dim": 4 * size.width,
        "max_position_embeddings": size.positions, "forced_eos_token_id": None,
        "dropout": DROPOUT, "attention_dropout": 0.0, "activation_dropout": 0.0,
    }  # fmt: skip
    if family == "LED":
        sizes["max_encoder_position_embeddings"] = sizes.pop("max_position_embeddings")
        return LEDForConditionalGeneration, LEDConfig(**{**sizes, **fields})
    if family == "Marian":
        return MarianMTModel, MarianConfig(**{**sizes, **fields})
    return BartForConditionalGeneration, BartConfig(**{**sizes, **fields})


def check_sizes(counts: Mapping[str, int]) -> None:
    """Raise a ValueError unless all models have the parameters of the first, within 2%."""
    (first, size), *others = counts.items()
    for family, count in others:
        if abs(count / size - 1) > TOLERANCE:
            raise ValueError(
                f"{family} must have the {size:,} parameters of {first} within {TOLERANCE:.0%}, got {count:,}; change "
                "its feed-forward width in benchmarks/baselines.py"
            )
