"""What a question answering model is: its encoder, the sizes of its pointer, and its mask."""

import copy
import math
from typing import Any, ClassVar

from huggingface_hub.dataclasses import strict
from transformers import AutoConfig, BertConfig, PreTrainedConfig

from ..configuration.base import MaskedConfig
from ..configuration.crossmask import CrossMaskConfig
from ..masks.limits import brief
from ..masks.scope import Scope


@strict
class CrossMaskQuestionAnsweringConfig(MaskedConfig):
    r"""
    Configuration of [`CrossMaskForQuestionAnswering`]: an encoder, and a pointer into what it read.

    Args:
        encoder: the config of a text encoder that `AutoModel` knows, or of an encoder-decoder, whose encoder is taken;
            a config or a dictionary with `model_type`. It is copied. BERT's by default.
        pointer_layers: how many layers of interactive attention the pointer's queries go through.
        num_attention_heads: heads of that attention, a divisor of the encoder's width; as in the encoder by default.
        attention_dropout: on its weights.
        no_answer: whether the model also scores that the context has no answer, as in SQuAD 2.
        cross_mask: text of the mask from the pointer's queries to the tokens: where an answer may be. A mask value is
            kept as its text.
        rms_norm_eps, initializer_range: of the pointer, as in Llama.

    Raises:
        StrictDataclassError: sizes or masks that do not fit together, an encoder without a hidden size.

    ```python
    >>> from crossmask import CrossMaskForQuestionAnswering, CrossMaskQuestionAnsweringConfig
    >>> config = CrossMaskQuestionAnsweringConfig(encoder={"model_type": "roberta"}, no_answer=True)
    >>> model = CrossMaskForQuestionAnswering(config)
    ```
    """

    model_type = "crossmask-question-answering"
    sub_configs = {"encoder": AutoConfig}
    code_classes = {
        "AutoConfig": "question_answering_crossmask.CrossMaskQuestionAnsweringConfig",
        "AutoModelForQuestionAnswering": "question_answering_crossmask.CrossMaskForQuestionAnswering",
    }
    # Read by the pointer's interactive attention.
    cross_attention_score: ClassVar[str] = "dot"

    encoder: Any = None
    pointer_layers: int = 1
    num_attention_heads: int | None = None
    attention_dropout: float | int = 0.0
    no_answer: bool = False
    # Checked when it is set: a mask may be of another copy of this code.
    cross_mask: Any = "full()"
    rms_norm_eps: float = 1e-6
    initializer_range: float = 0.02

    def __post_init__(self, **kwargs: Any) -> None:
        for name in ("hidden_size", "num_hidden_layers", "vocab_size"):
            if name in kwargs:
                raise ValueError(
                    f"{name} must be given in encoder, whose it is; build a model on a saved encoder with "
                    "CrossMaskForQuestionAnswering.from_encoder_pretrained"
                )
        attention = getattr(self.encoder, "_attn_implementation", None)
        self.encoder = read_encoder_config(self.encoder)
        if self.num_attention_heads is None:
            self.num_attention_heads = getattr(self.encoder, "num_attention_heads", None) or 1
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
        """The encoder's width, which is the pointer's."""
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

    @property
    def head_dim(self) -> int:
        """The width of a head of the pointer's attention."""
        return self.hidden_size // int(self.num_attention_heads or 1)

    @property
    def num_key_value_heads(self) -> int | None:
        """Those of the pointer's attention: each query head has its own."""
        return self.num_attention_heads

    def mask_sizes(self) -> dict[Scope, tuple[int, int]]:
        return {"cross": (1, 1)}

    def validate_sizes(self) -> None:
        if self.pointer_layers < 1:
            raise ValueError(f"pointer_layers must be at least 1, got {self.pointer_layers}")
        heads = self.num_attention_heads or 0
        if heads < 1 or self.hidden_size % heads:
            raise ValueError(
                f"num_attention_heads must divide the encoder's hidden_size of {self.hidden_size}, got {heads}"
            )
        if not 0 <= self.attention_dropout < 1:
            raise ValueError(f"attention_dropout must be from 0 to less than 1, got {self.attention_dropout}")
        for name in ("rms_norm_eps", "initializer_range"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f"{name} must be a finite number of more than 0, got {value}")

    def validate_masks(self) -> None:
        self.check_masks()


def read_encoder_config(given: Any) -> PreTrainedConfig:
    """The config of an encoder, a copy of what was given.

    Raises:
        ValueError: it is not a config, names no model that Transformers knows, or has no hidden size.
    """
    if given is None:
        return BertConfig()
    if isinstance(given, PreTrainedConfig):
        config = copy.deepcopy(given)
    elif isinstance(given, dict) and given.get("model_type"):
        fields = {name: value for name, value in given.items() if name != "model_type"}
        if given["model_type"] == CrossMaskConfig.model_type:  # not registered where this is remote code
            config = CrossMaskConfig(**fields)
        else:
            config = AutoConfig.for_model(given["model_type"], **fields)
    else:
        raise ValueError(
            f"encoder must be a config, or a dictionary with model_type, got {brief(given)}; write "
            "encoder=AutoConfig.from_pretrained(name)"
        )
    if not isinstance(getattr(config, "hidden_size", None), int):
        raise ValueError(
            f"encoder must be a text encoder with one hidden_size, got a {type(config).__name__} without; give the "
            "config of its text model"
        )
    return config
