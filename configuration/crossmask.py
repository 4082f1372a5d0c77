"""What a crossmask model is: its sizes, its masks and its special tokens."""

import math
from typing import Any

from huggingface_hub.dataclasses import strict
from huggingface_hub.errors import StrictDataclassFieldValidationError
from transformers.activations import ACT2FN

from ..masks.expressions import MaskError
from ..masks.limits import brief
from ..masks.rules import full
from ..masks.scope import Scope
from .base import MaskedConfig

_EVERY_ROPE = {"rope_type", "type", "rope_theta", "partial_rotary_factor"}
ROPE_TYPES = {
    "default": ((), ()),
    "linear": (("factor",), ()),
    "yarn": (
        ("factor", "original_max_position_embeddings"),
        ("attention_factor", "beta_fast", "beta_slow", "mscale", "mscale_all_dim", "truncate"),
    ),
    "llama3": (("factor", "original_max_position_embeddings", "low_freq_factor", "high_freq_factor"), ()),
}
"""The rotary positions whose angles depend on a token's position alone: the keys that each needs, and also takes."""
_OFF = {"mscale": 0, "mscale_all_dim": 0}
MOST = 2**31
"""Sizes stay below it."""
LABELS_LIMIT = 1000
"""The most labels that a config may name."""


@strict
class CrossMaskConfig(MaskedConfig):
    r"""
    Configuration of [`CrossMaskModel`] and [`CrossMaskForConditionalGeneration`]: a pre-norm encoder-decoder with
    RMSNorm, rotary positions, gated feed-forward layers and grouped key/value heads, whose three kinds of attention
    are masked by the rules of `crossmask.masks`.

    Args:
        vocab_size: size of the vocabulary, shared by both sides.
        hidden_size: width of the encoder and the decoder.
        intermediate_size: inner width of the gated feed-forward layers.
        encoder_layers, decoder_layers: depths.
        num_attention_heads: query heads H.
        num_key_value_heads: key/value heads, a divisor of `num_attention_heads` (Ainslie et al. 2023); all of them by
            default.
        head_dim: width of a head, even; `hidden_size // num_attention_heads` by default.
        hidden_act: activation of the gate.
        dropout: after embeddings, attention and feed-forward layers.
        attention_dropout: on attention weights.
        max_position_embeddings: the longest source or target.
        rope_parameters: rotary positions in Transformers' spelling, `{"rope_type": "default", "rope_theta": 10000.0}`.
        rms_norm_eps, initializer_range: as in Llama.
        residual_initializer_range: of the weights whose outputs are added to a residual connection (`o_proj`,
            `down_proj`); `initializer_range` by default. With 0 every block passes its input on at first.
        tie_word_embeddings: `True` ties encoder embedding, decoder embedding and output head; `"embedding"` the two
            embeddings only, `"head"` the decoder embedding and the output head only; `False` nothing.
        embedding_size: width E of a factorised embedding (Lan et al. 2020), projected to `hidden_size`; none by
            default.
        embedding_act: activation after that projection, none by default.
        memory_length: N learned queries pool the encoder's output into N vectors, which the decoder attends to instead
            of the source positions; none by default. Needs `cross_mask="full()"`.
        cross_attention_score: `"dot"` (scaled dot product) or `"additive"` (Bahdanau et al. 2015).
        encoder_mask, decoder_mask, cross_mask: text of the masks (`"causal() & window(16)"`), one for all layers, or a
            mapping from layers to texts: `{"0-2": "window(8)", "rest": "full()"}`. A mask value is kept as its text.
        use_cache: whether the decoder returns its keys and values.
        pad_token_id, bos_token_id, eos_token_id, decoder_start_token_id: the special tokens.

    Raises:
        StrictDataclassError: sizes, masks or special tokens that do not fit together, and how to fix it.

    ```python
    >>> from crossmask import CrossMaskConfig, CrossMaskForConditionalGeneration
    >>> config = CrossMaskConfig(encoder_mask="causal()", cross_mask="wait_k(3)")
    >>> model = CrossMaskForConditionalGeneration(config)
    ```
    """

    model_type = "crossmask"
    keys_to_ignore_at_inference = ["past_key_values"]
    attribute_map = {
        "num_hidden_layers": "encoder_layers",
        "encoder_attention_heads": "num_attention_heads",
        "decoder_attention_heads": "num_attention_heads",
        "d_model": "hidden_size",
    }
    # The encoder and the decoder have plans of their own.
    base_model_tp_plan = {}
    base_model_fsdp_plan = {}

    code_classes = {
        "AutoConfig": "configuration_crossmask.CrossMaskConfig",
        "AutoModel": "modeling_crossmask.CrossMaskModel",
        "AutoModelForSeq2SeqLM": "modeling_crossmask.CrossMaskForConditionalGeneration",
    }

    vocab_size: int = 32000
    hidden_size: int = 512
    intermediate_size: int = 1408
    encoder_layers: int = 6
    decoder_layers: int = 6
    num_attention_heads: int = 8
    num_key_value_heads: int | None = None
    head_dim: int | None = None
    hidden_act: str = "silu"
    dropout: float | int = 0.1
    attention_dropout: float | int = 0.0
    max_position_embeddings: int = 1024
    rope_parameters: dict[str, Any] | None = None
    rms_norm_eps: float = 1e-6
    initializer_range: float = 0.02
    residual_initializer_range: float | int | None = None
    tie_word_embeddings: bool | str = True
    embedding_size: int | None = None
    embedding_act: str | None = None
    memory_length: int | None = None
    cross_attention_score: str = "dot"
    # `as_text` checks them: a mask may be of another copy of this code.
    encoder_mask: Any = "full()"
    decoder_mask: Any = "causal()"
    cross_mask: Any = "full()"
    use_cache: bool = True
    is_encoder_decoder: bool = True
    pad_token_id: int | None = 0
    bos_token_id: int | None = 1
    eos_token_id: int | list[int] | None = 2
    decoder_start_token_id: int | None = 1

    def __post_init__(self, **kwargs: Any) -> None:
        if self.num_key_value_heads is None:
            self.num_key_value_heads = self.num_attention_heads
        if self.head_dim is None:
            self.head_dim = self.hidden_size // max(self.num_attention_heads, 1)
        # Transformers writes a table of that many names.
        if isinstance(labels := kwargs.get("num_labels"), int) and labels > LABELS_LIMIT:
            most = ValueError(f"must be at most {LABELS_LIMIT}, got {brief(labels)}; no model here has labels")
            raise StrictDataclassFieldValidationError(field="num_labels", cause=most)
        super().__post_init__(**kwargs)  # type: ignore[no-untyped-call]

    def mask_sizes(self) -> dict[Scope, tuple[int, int]]:
        heads = self.num_attention_heads
        depths: dict[Scope, int] = {
            "encoder": self.encoder_layers,
            "decoder": self.decoder_layers,
            "cross": self.decoder_layers,
        }
        return {scope: (layers, heads) for scope, layers in depths.items()}

    def validate_are_finite(self) -> None:  # before any other validator compares
        numbers = {name: value for name, value in vars(self).items() if isinstance(value, float)}
        for name, value in (numbers | _numbers_in("rope_parameters", self.rope_parameters)).items():
            if not math.isfinite(value):
                raise ValueError(f"{name} must be a finite number, got {value}")

    def validate_dimensions(
        self,
    ) -> None:  # validators run in the order of their names: before Transformers' validate_rope
        sizes = ("vocab_size", "hidden_size", "intermediate_size", "encoder_layers", "decoder_layers", "head_dim")
        for name in (*sizes, "num_attention_heads", "num_key_value_heads", "max_position_embeddings"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("embedding_size", "memory_length"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, or None to go without, got {getattr(self, name)}")
        for name in (*sizes, "num_attention_heads", "max_position_embeddings", "embedding_size", "memory_length"):
            if (getattr(self, name) or 0) >= MOST:
                raise ValueError(f"{name} must be less than 2**31, got {getattr(self, name)}")
        if self.num_attention_heads % (self.num_key_value_heads or 1):
            raise ValueError(
                f"num_attention_heads ({self.num_attention_heads}) must be a multiple of num_key_value_heads "
                f"({self.num_key_value_heads}), since every key/value head serves the same number of query heads"
            )
        for name in ("dropout", "attention_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must be from 0 to less than 1, got {getattr(self, name)}")
        for name in ("rms_norm_eps", "initializer_range"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be more than 0, got {getattr(self, name)}")
        if (self.residual_initializer_range or 0) < 0:
            raise ValueError(f"residual_initializer_range must be at least 0, got {self.residual_initializer_range}")
        if (self.head_dim or 0) % 2:
            raise ValueError(
                f"head_dim ({self.head_dim}) must be even for rotary positions; set it, or choose hidden_size "
                f"({self.hidden_size}) and num_attention_heads ({self.num_attention_heads}) with an even quotient"
            )

    def validate_choices(self) -> None:
        choices = {
            "tie_word_embeddings": (True, False, "embedding", "head"),
            "cross_attention_score": ("dot", "additive"),
        }
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} must be one of {allowed}, got {getattr(self, name)!r}")
        for name in ("hidden_act", "embedding_act"):
            if getattr(self, name) is not None and getattr(self, name) not in ACT2FN:
                raise ValueError(f"{name} must be one of {', '.join(sorted(ACT2FN))}, got {getattr(self, name)!r}")
        if self.embedding_act is not None and self.embedding_size is None:
            raise ValueError(f"embedding_act={self.embedding_act!r} needs embedding_size: it follows that projection")

    def validate_positions(self) -> None:  # before Transformers' validate_rope, which warns where this refuses
        parameters = self.rope_parameters
        if not parameters:
            return
        kind, known = parameters.get("rope_type", parameters.get("type", "default")), ", ".join(ROPE_TYPES)
        kind = kind if isinstance(kind, str) else brief(kind)
        if kind in ("dynamic", "longrope"):
            raise ValueError(
                f"rope_parameters: rope_type {kind!r} turns positions by the length of the longest row, so padding "
                f"and caching would change results; use one of {known}"
            )
        if kind not in ROPE_TYPES:
            raise ValueError(f"rope_parameters: rope_type must be one of {known}, got {kind!r}")
        needed, others = ROPE_TYPES[kind]
        if missing := [name for name in needed if parameters.get(name) is None]:
            raise ValueError(f"rope_parameters: rope_type {kind!r} needs {missing[0]}; it is not given")
        if unknown := sorted(set(parameters) - _EVERY_ROPE - set(needed) - set(others)):
            raise ValueError(f"rope_parameters: rope_type {kind!r} takes no {unknown[0]}; leave it out")
        for name in ("rope_theta", *needed, *others):
            value = parameters.get(name)
            if name == "truncate":
                if not isinstance(value, bool | None):
                    raise ValueError(f"rope_parameters: {name} must be true or false, got {brief(value)}")
            elif value not in (None, _OFF.get(name)) and not (type(value) in (int, float) and 0 < value < MOST):
                raise ValueError(
                    f"rope_parameters: {name} must be a number of more than 0 and less than 2**31, got {brief(value)}"
                )
        theta, factor = (parameters.get(name) for name in ("rope_theta", "factor"))
        if theta is not None and theta <= 1:
            raise ValueError(f"rope_parameters: rope_theta must be more than 1, got {theta}; 10000.0 is usual")
        if factor is not None and factor < 1:
            raise ValueError(f"rope_parameters: factor must be at least 1, got {factor}; 1 changes nothing")
        for less, more, defaults in (
            ("low_freq_factor", "high_freq_factor", (1, 4)),
            ("beta_slow", "beta_fast", (1, 32)),
        ):
            low, high = (parameters.get(name) or default for name, default in zip((less, more), defaults, strict=True))
            if low >= high:
                raise ValueError(f"rope_parameters: {less} must be less than {more}, got {low} and {high}")
        if (part := parameters.get("partial_rotary_factor", 1)) not in (1, None):
            raise ValueError(f"rope_parameters: partial_rotary_factor must be 1, got {part}; all of a head is turned")

    def validate_special_tokens(self) -> None:
        for name in ("pad_token_id", "decoder_start_token_id"):
            if getattr(self, name) is None:
                raise ValueError(f"{name} must be set: the decoder's inputs are built with it")
        for name in ("pad_token_id", "bos_token_id", "eos_token_id", "decoder_start_token_id"):
            value = getattr(self, name)
            for token in value if isinstance(value, list) else [value]:
                if token is not None and not 0 <= token < self.vocab_size:
                    raise ValueError(
                        f"{name} ({token}) must be from 0 to vocab_size - 1 ({self.vocab_size - 1}); "
                        "set the special tokens to the tokenizer's"
                    )

    def validate_masks(self) -> None:
        self.check_masks()
        if self.memory_length is not None and any(mask != full() for mask in self.layer_masks("cross")):
            raise MaskError(
                f"cross_mask={brief(self.cross_mask)} cannot be combined with memory_length={self.memory_length}: "
                'the memory has no source positions; use cross_mask="full()" and put the rule into encoder_mask'
            )


def _numbers_in(name: str, value: Any) -> dict[str, float]:
    """All floats inside mappings and lists, by where they are."""
    if isinstance(value, float):
        return {name: value}
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list | tuple) else ()
    return {place: number for key, part in parts for place, number in _numbers_in(f"{name}[{key!r}]", part).items()}
