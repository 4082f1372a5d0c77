"""What all models of the family share: flags, initialisation, embeddings."""

from typing import NamedTuple

import torch
from torch import nn
from transformers import PreTrainedModel, initialization

from ..configuration.crossmask import CrossMaskConfig
from .attention import InteractiveAttention
from .memory import FixedLengthMemory

_ATTENTION = {"q_proj": "colwise", "k_proj": "colwise", "v_proj": "colwise", "o_proj": "rowwise"}
_FEED_FORWARD = {"gate_proj": "colwise", "up_proj": "colwise", "down_proj": "rowwise"}


def tensor_parallel_plan(*attentions: str) -> dict[str, str]:
    """How a side's layers, with these kinds of attention, are spread over devices."""
    parts = {**dict.fromkeys(attentions, _ATTENTION), "mlp": _FEED_FORWARD}
    return {f"layers.*.{part}.{name}": how for part, plan in parts.items() for name, how in plan.items()}


class CrossMaskPreTrainedModel(PreTrainedModel):
    """Base class: loading, saving and initialisation by Transformers."""

    config: CrossMaskConfig
    config_class = CrossMaskConfig
    base_model_prefix = "model"
    main_input_name = "input_ids"
    supports_gradient_checkpointing = True
    _no_split_modules = ["EncoderLayer", "DecoderLayer"]
    _skip_keys_device_placement = ["past_key_values"]
    _supports_sdpa = True
    _supports_flex_attn = True
    _supports_flash_attn = True
    _supports_attention_backend = True
    _can_compile_fullgraph = True

    def __init__(self, config: CrossMaskConfig):
        super().__init__(config)
        self.register_load_state_dict_post_hook(overlook_ties)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, FixedLengthMemory):
            initialization.normal_(module.queries)
        elif isinstance(module, InteractiveAttention) and self.config.cross_attention_score == "additive":
            initialization.normal_(module.score_vector, std=module.head_dim**-0.5)

    def _resize_token_embeddings(
        self, new_num_tokens: int | None, pad_to_multiple_of: int | None = None, mean_resizing: bool = True
    ) -> nn.Embedding:
        """As Transformers does, for the decoder's own embedding too where it is not tied to the encoder's."""
        resized = super()._resize_token_embeddings(new_num_tokens, pad_to_multiple_of, mean_resizing)
        decoder = self.get_decoder()
        if decoder.embed_tokens.num_embeddings != resized.num_embeddings:
            decoder.embed_tokens = self._get_resized_embeddings(
                decoder.embed_tokens, resized.num_embeddings, mean_resizing=mean_resizing
            )
        return resized

    def check_length(self, length: int, side: str, packed: bool) -> None:
        """Refuse a sequence longer than `max_position_embeddings`; a packed row may be longer, its examples not.

        Not under `torch.export`, where a limit would become a condition on the exported program's inputs.

        Raises:
            ValueError: with the length, the limit and the mend.
        """
        limit = self.config.max_position_embeddings
        if not packed and not torch.compiler.is_exporting() and length > limit:
            raise ValueError(
                f"the {side} has {length} tokens, more than max_position_embeddings={limit}; "
                "truncate it, or train with a larger max_position_embeddings"
            )


def overlook_ties(model: CrossMaskPreTrainedModel, result: NamedTuple) -> None:
    """Take no tied weight for missing whose other name was in the state dict: files have tied weights once."""
    for name, source in model.all_tied_weights_keys.items():
        found = name in result.missing_keys and source not in result.missing_keys
        if found and model.get_parameter(name) is model.get_parameter(source):
            result.missing_keys.remove(name)


def embed(side: nn.Module, input_ids: torch.Tensor | None, inputs_embeds: torch.Tensor | None) -> torch.Tensor:
    """The embeddings (B, L, E) of one side, from its ids (B, L) or as given.

    Raises:
        ValueError: both or neither are given, or they hold no tokens.
    """
    if (input_ids is None) == (inputs_embeds is None):
        raise ValueError(
            "give either ids or embeddings of the source, and likewise of the target: exactly one of the two"
        )
    shape = tuple((input_ids if inputs_embeds is None else inputs_embeds).shape)
    if 0 in shape[:2]:
        raise ValueError(
            f"{type(side).__name__}: an input of shape {shape} has no tokens; leave empty batches out, and let an "
            "empty text have its end token"
        )
    return side.embed_tokens(input_ids) if inputs_embeds is None else inputs_embeds
