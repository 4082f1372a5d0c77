"""What a bridge is: an encoder, a causal language model, and the interactive attention between them."""

from collections.abc import Iterator
from typing import Any

from huggingface_hub.dataclasses import strict
from transformers import AutoConfig, PreTrainedConfig

from ..masks.scope import Scope
from .base import MaskedConfig

GATES = ("zero", "tanh")
PARTS = ("encoder", "decoder")


@strict
class CrossMaskBridgeConfig(MaskedConfig):
    r"""
    Configuration of [`CrossMaskBridgeForConditionalGeneration`]: any text encoder and any causal language model, with
    a block of interactive attention before some of the decoder's layers.

    Args:
        encoder, decoder: the configs of both models, or dictionaries of them.
        bridge_layers: before which of the decoder's layers a block stands: a list of their numbers, counted from 0, or
            an integer n for every n-th, the last layer included.
        num_attention_heads: query heads H of the blocks; the decoder's number by default.
        num_key_value_heads: key/value heads, a divisor of `num_attention_heads`; all of them by default.
        head_dim: width of a head; `hidden_size // num_attention_heads` by default.
        gate: how a block is closed before training, so that the model is the decoder alone: `"zero"` (its output
            projection is zero) or `"tanh"` (it is multiplied by the tanh of a learned number, which begins at 0, as in
            Flamingo, Alayrac et al. 2022).
        dropout: on a block's output. attention_dropout: on its attention weights.
        decoder_dropout: on the decoder's embeddings and on what each of its layers adds, beside its own dropout, which
            Llama and most recent families lack.
        rms_norm_eps, initializer_range: of the blocks.
        encoder_mask, decoder_mask, cross_mask: as in [`CrossMaskConfig`]. What encoder and decoder forbid by
            themselves stays forbidden. The layers of `cross_mask` are the blocks.
        pad_token_id, bos_token_id, eos_token_id, decoder_start_token_id: the target's special tokens; the decoder's by
            default, where padding may be the end token, and the start token is the beginning or else the end token.

    Raises:
        StrictDataclassError: parts, sizes, masks or special tokens that do not fit together.
    """

    model_type = "crossmask-bridge"
    sub_configs = {"encoder": AutoConfig, "decoder": AutoConfig}
    has_no_defaults_at_init = True
    keys_to_ignore_at_inference = ["past_key_values"]
    code_classes = {
        "AutoConfig": "configuration_crossmask.CrossMaskBridgeConfig",
        "AutoModel": "modeling_crossmask.CrossMaskBridgeForConditionalGeneration",
        "AutoModelForSeq2SeqLM": "modeling_crossmask.CrossMaskBridgeForConditionalGeneration",
    }

    encoder: Any = None
    decoder: Any = None
    bridge_layers: Any = 1
    num_attention_heads: int | None = None
    num_key_value_heads: int | None = None
    head_dim: int | None = None
    gate: str = "zero"
    dropout: float | int = 0.0
    attention_dropout: float | int = 0.0
    decoder_dropout: float | int = 0.0
    rms_norm_eps: float = 1e-6
    initializer_range: float = 0.02
    encoder_mask: Any = "full()"
    decoder_mask: Any = "causal()"
    cross_mask: Any = "full()"
    is_encoder_decoder: bool = True
    tie_word_embeddings: bool = False
    pad_token_id: int | None = None
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = None
    decoder_start_token_id: int | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        for part in PARTS:
            setattr(self, part, _read_config(part, getattr(self, part)))
        kept = [
            (config, config._attn_implementation, config._experts_implementation)
            for part in PARTS
            for config in _with_nested(getattr(self, part))
        ]
        self._take_defaults_from(self.decoder_text)
        try:
            super().__post_init__(**kwargs)  # type: ignore[no-untyped-call]
        finally:
            # Transformers sets those of the parts to None here; without one, padding would be ignored.
            for config, attention, experts in kept:
                if kwargs.get("attn_implementation") is None:
                    config._attn_implementation = attention
                if kwargs.get("experts_implementation") is None:
                    config._experts_implementation = experts

    def _take_defaults_from(self, decoder: PreTrainedConfig) -> None:
        if self.num_attention_heads is None:
            self.num_attention_heads = decoder.num_attention_heads
        if self.num_key_value_heads is None:
            self.num_key_value_heads = self.num_attention_heads
        if self.head_dim is None:
            self.head_dim = decoder.hidden_size // max(self.num_attention_heads, 1)
        # A config need not have all of them: Pegasus has no beginning, RoCBert no end.
        eos, bos, pad = (getattr(decoder, f"{name}_token_id", None) for name in ("eos", "bos", "pad"))
        first_end = _first(eos if self.eos_token_id is None else self.eos_token_id)
        defaults = {
            "eos_token_id": eos,
            "bos_token_id": bos,
            "pad_token_id": first_end if pad is None else pad,
            "decoder_start_token_id": first_end if bos is None else bos,
        }
        for name, value in defaults.items():
            if getattr(self, name) is None:
                setattr(self, name, value)

    @property
    def decoder_text(self) -> PreTrainedConfig:
        """The decoder's config, or the part of it that speaks of text."""
        config: PreTrainedConfig = self.decoder.get_text_config(decoder=True)
        return config

    @property
    def hidden_size(self) -> int:
        """The decoder's width, which is that of the blocks."""
        size: int = self.decoder_text.hidden_size
        return size

    @property
    def vocab_size(self) -> int:
        """The decoder's vocabulary."""
        size: int = self.decoder_text.vocab_size
        return size

    @property
    def cross_attention_score(self) -> str:
        return "dot"

    @property
    def block_layers(self) -> tuple[int, ...]:
        """The decoder's layers that have a block before them."""
        if isinstance(self.bridge_layers, int):
            return tuple(range(self.bridge_layers - 1, self.decoder_text.num_hidden_layers, self.bridge_layers))
        return tuple(self.bridge_layers)

    def mask_sizes(self) -> dict[Scope, tuple[int, int]]:
        encoder, decoder = self.encoder.get_text_config(encoder=True), self.decoder_text
        return {
            "encoder": (encoder.num_hidden_layers, encoder.num_attention_heads),
            "decoder": (decoder.num_hidden_layers, decoder.num_attention_heads),
            "cross": (len(self.block_layers), self.num_attention_heads or 1),
        }

    def validate_blocks(self) -> None:
        layers, count = self.bridge_layers, self.decoder_text.num_hidden_layers
        if isinstance(layers, bool) or not isinstance(layers, int | list | tuple):
            raise ValueError(f"bridge_layers must be an integer or a list of layer numbers, got {layers!r}")
        if isinstance(layers, int) and not 1 <= layers <= count:
            raise ValueError(f"bridge_layers must be from 1 to the decoder's {count} layers, got {layers}")
        if not isinstance(layers, int) and (
            not layers or list(layers) != sorted({n for n in layers if type(n) is int and 0 <= n < count})
        ):
            raise ValueError(
                f"bridge_layers must be layer numbers from 0 to {count - 1}, ascending, each once, got {layers}"
            )
        heads, groups = self.num_attention_heads or 0, self.num_key_value_heads or 0
        if heads < 1 or groups < 1 or heads % groups:
            raise ValueError(
                f"num_key_value_heads must divide num_attention_heads={heads}, both at least 1, got {groups}"
            )
        if (self.head_dim or 0) < 1:
            raise ValueError(
                f"head_dim must be at least 1, got {self.head_dim}; give fewer than num_attention_heads={heads}"
            )
        if self.tie_word_embeddings:
            raise ValueError(
                "tie_word_embeddings must be False, since each part has embeddings of its own, got "
                f"{self.tie_word_embeddings}; tie the decoder's in the decoder's config"
            )
        if not self.is_encoder_decoder:
            raise ValueError("is_encoder_decoder must be True, got False; load the decoder alone for a causal model")
        if self.gate not in GATES:
            raise ValueError(f"gate must be one of {GATES}, got {self.gate!r}")
        for name in ("dropout", "attention_dropout", "decoder_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must be from 0 to below 1, got {getattr(self, name)}")
        if self.rms_norm_eps <= 0 or self.initializer_range < 0:
            raise ValueError(
                f"rms_norm_eps must be above 0 and initializer_range at least 0, got {self.rms_norm_eps} and "
                f"{self.initializer_range}"
            )

    def validate_special_tokens(self) -> None:
        for name in ("pad_token_id", "eos_token_id", "decoder_start_token_id"):
            if getattr(self, name) is None:
                raise ValueError(f"{name} must be set, as the decoder's config has none; give the tokenizer's")
        for name in ("pad_token_id", "bos_token_id", "eos_token_id", "decoder_start_token_id"):
            value = getattr(self, name)
            for token in value if isinstance(value, list) else [value]:
                if token is not None and not 0 <= token < self.vocab_size:
                    raise ValueError(
                        f"{name} must be from 0 to {self.vocab_size - 1}, the decoder's vocabulary, got {token}; set "
                        "the special tokens to the tokenizer's"
                    )

    def validate_masks(self) -> None:
        self.check_masks()


def _first(tokens: int | list[int] | None) -> int | None:
    return tokens[0] if isinstance(tokens, list) and tokens else tokens if isinstance(tokens, int) else None


def _with_nested(config: PreTrainedConfig) -> Iterator[PreTrainedConfig]:
    """A config and those inside it, as a model of text and images has them."""
    yield config
    for name in config.sub_configs:
        nested = getattr(config, name, None)
        if isinstance(nested, PreTrainedConfig):
            yield from _with_nested(nested)


def _read_config(part: str, config: Any) -> PreTrainedConfig:
    """A part's config, from its dictionary where that is given."""
    if isinstance(config, PreTrainedConfig):
        return config
    if not isinstance(config, dict) or "model_type" not in config:
        given = "nothing" if config is None else type(config).__name__
        raise ValueError(
            f"{part} must be a config or a dictionary of one with its model_type, got {given}; build the model by "
            "from_encoder_decoder_pretrained(encoder, decoder)"
        )
    values = dict(config)
    return AutoConfig.for_model(values.pop("model_type"), **values)
