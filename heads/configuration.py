"""What a model with a head on a text encoder is: the encoder, the masks, and the sizes of what reads its states."""

import math
from typing import Any, ClassVar

from huggingface_hub.dataclasses import strict
from transformers import AutoConfig, PreTrainedConfig

from ..configuration.base import MaskedConfig
from ..masks.scope import Scope
from .encoder_config import read_encoder_config


@strict
class EncoderHeadConfig(MaskedConfig):
    r"""
    Fields that all heads on an encoder have.

    Args:
        encoder: the config of a text encoder that `AutoModel` knows, or of an encoder-decoder, whose encoder is taken;
            a config or a dictionary with `model_type`. It is copied. BERT's by default.
        encoder_mask: text of the mask from token to token, of all layers, where the encoder can; and-ed with one that
            the encoder's own config has. A mask value is kept as its text.
        initializer_range: of the head's new weights.

    Raises:
        StrictDataclassError: sizes or masks that do not fit together, an encoder without a hidden size.
    """

    sub_configs = {"encoder": AutoConfig}

    encoder: Any = None
    # Checked when it is set: a mask may be of another copy of this code.
    encoder_mask: Any = "full()"
    initializer_range: float = 0.02

    def __post_init__(self, **kwargs: Any) -> None:
        for name in ("hidden_size", "num_hidden_layers", "vocab_size"):
            if name in kwargs:
                raise ValueError(
                    f"{name} must be given in encoder, whose it is; build a model on a saved encoder with "
                    "from_encoder_pretrained"
                )
        attention = getattr(self.encoder, "_attn_implementation", None)
        self.encoder = read_encoder_config(self.encoder)
        super().__post_init__(**kwargs)
        # Transformers sets it to None in all sub-configs, and padding would then be read.
        if attention is not None and self._attn_implementation is None:
            self.encoder._attn_implementation = attention

    def get_text_config(self, decoder: bool | None = None, encoder: bool | None = None) -> PreTrainedConfig:
        """The encoder's, which has the vocabulary."""
        config: PreTrainedConfig = self.encoder
        return config

    @property
    def hidden_size(self) -> int:
        """The encoder's width, which is the head's."""
        return int(self.encoder.hidden_size)

    @property
    def num_hidden_layers(self) -> int:
        """The encoder's layers."""
        return int(self.encoder.num_hidden_layers)

    @property
    def vocab_size(self) -> int:
        """The encoder's."""
        return int(self.encoder.vocab_size)

    @vocab_size.setter
    def vocab_size(self, value: int) -> None:
        self.encoder.vocab_size = value

    @property
    def max_position_embeddings(self) -> int | None:
        """The encoder's, None where it names no limit."""
        limit: int | None = getattr(self.encoder, "max_position_embeddings", None)
        return limit

    def mask_sizes(self) -> dict[Scope, tuple[int, int]]:
        return {"encoder": (1, int(getattr(self.encoder, "num_attention_heads", None) or 1))}

    def validate_sizes(self) -> None:
        self.check_positive("initializer_range")

    def validate_masks(self) -> None:
        self.check_masks()

    def check_positive(self, name: str) -> None:
        """Raise ValueError unless a field is a finite number of more than 0."""
        value = getattr(self, name)
        if not (math.isfinite(value) and value > 0):
            raise ValueError(f"{name} must be a finite number of more than 0, got {value}")

    def check_dropout(self, name: str) -> None:
        """Raise ValueError unless a field is a probability below 1."""
        value = getattr(self, name)
        if not 0 <= value < 1:
            raise ValueError(f"{name} must be from 0 to less than 1, got {value}")


@strict
class QueryHeadConfig(EncoderHeadConfig):
    r"""
    Fields of heads whose queries read the encoder's states by interactive attention, beside those of all heads.

    Args:
        num_attention_heads: heads of that attention, a divisor of the encoder's width; as in the encoder by default.
        attention_dropout: on its weights.
        cross_mask: text of the mask from the queries to the tokens. A mask value is kept as its text.
        rms_norm_eps: as in Llama.
    """

    # Read by interactive attention.
    cross_attention_score: ClassVar[str] = "dot"

    num_attention_heads: int | None = None
    attention_dropout: float | int = 0.0
    cross_mask: Any = "full()"
    rms_norm_eps: float = 1e-6

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)
        if self.num_attention_heads is None:
            self.num_attention_heads = getattr(self.encoder, "num_attention_heads", None) or 1

    @property
    def head_dim(self) -> int:
        """The width of a head of the queries' attention."""
        return self.hidden_size // int(self.num_attention_heads or 1)

    @property
    def num_key_value_heads(self) -> int | None:
        """Those of the queries' attention: each query head has its own."""
        return self.num_attention_heads

    def mask_sizes(self) -> dict[Scope, tuple[int, int]]:
        return {**super().mask_sizes(), "cross": (1, 1)}

    def validate_sizes(self) -> None:
        super().validate_sizes()
        heads = self.num_attention_heads or 0
        if heads < 1 or self.hidden_size % heads:
            raise ValueError(
                f"num_attention_heads must divide the encoder's hidden_size of {self.hidden_size}, got {heads}"
            )
        self.check_dropout("attention_dropout")
        self.check_positive("rms_norm_eps")
