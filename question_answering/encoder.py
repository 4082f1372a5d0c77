"""The encoder of a question answering model: any text encoder of Transformers, or that of a crossmask model.

Letters: B batch, S source length, H heads.
"""

import copy
import inspect
import sys
from dataclasses import replace
from typing import Any

import torch
from transformers import AutoModel, PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput

from ..configuration.crossmask import CrossMaskConfig
from ..masks.expressions import Mask, MaskError
from ..masks.layout import Layout, lay_out
from ..masks.materialize import compile_mask, materialize_unchecked
from ..masks.rules import full
from ..masks.tensor_mask import TensorMask, check_fit
from ..modeling.encoder import CrossMaskEncoder
from .answer_masks import hides_alone

_SLIDING = "create_bidirectional_sliding_window_mask"


def build_encoder(config: PreTrainedConfig) -> PreTrainedModel:
    """An encoder with new weights.

    Raises:
        ValueError: Transformers has no model of such a config, or its states are not those of the tokens.
    """
    check_encoder(config)
    if isinstance(config, CrossMaskConfig):
        return CrossMaskEncoder(config)
    return without_pooler(encoder_of(AutoModel.from_config(config)))


def check_encoder(config: PreTrainedConfig) -> None:
    """Refuse an encoder whose states are not those of the tokens.

    Raises:
        ValueError: it pools them into a memory.
    """
    if getattr(config, "memory_length", None) is not None:
        raise ValueError(
            f"encoder: memory_length={config.memory_length} leaves no states of tokens to point at; give an encoder "
            "without a memory"
        )


def encoder_of(model: PreTrainedModel) -> PreTrainedModel:
    """The part of a base model that reads the source."""
    return model.get_encoder() if model.config.is_encoder_decoder or hasattr(model, "decoder") else model


def own_copy(encoder: PreTrainedModel, config: PreTrainedConfig) -> PreTrainedModel:
    """A copy of an encoder; of crossmask's, in the class of this copy of the code."""
    if not isinstance(config, CrossMaskConfig) or isinstance(encoder, CrossMaskEncoder):
        return copy.deepcopy(encoder)
    config._attn_implementation = encoder.config._attn_implementation
    own: Any = CrossMaskEncoder(config)
    own.to(device=encoder.device, dtype=encoder.dtype)
    own.load_state_dict(encoder.state_dict())
    result: PreTrainedModel = own
    return result


def without_pooler(encoder: PreTrainedModel) -> PreTrainedModel:
    """The encoder after its pooler, which an answer has no use for, is taken out."""
    if "add_pooling_layer" in inspect.signature(type(encoder).__init__).parameters:
        encoder.pooler = None  # type: ignore[assignment]
    return encoder


def longest_input(encoder: PreTrainedModel) -> int | None:
    """How many tokens an encoder takes, None where its config names no limit."""
    limit = getattr(encoder.config, "max_position_embeddings", None)
    positions = getattr(getattr(encoder, "embeddings", None), "position_embeddings", None)
    first = getattr(positions, "padding_idx", None)  # RoBERTa and its like count positions from behind it
    return limit if limit is None or first is None else limit - first - 1


def encode(
    encoder: PreTrainedModel,
    inputs: dict[str, torch.Tensor | None],
    attention_mask: torch.Tensor | None,
    source: Layout,
    encoder_mask: Mask | TensorMask | None,
    hidden: Mask | None,
    **options: Any,
) -> BaseModelOutput:
    """Run an encoder, (B, S) tokens to (B, S, hidden) states.

    Args:
        inputs: `input_ids`, `inputs_embeds`, `token_type_ids` and `passage_ids`; the encoder gets those that it takes.
        attention_mask: (B, S), 1 for tokens and 0 for padding.
        source: the layout of the tokens.
        encoder_mask: from token to token; None where all is allowed.
        hidden: the blind spans, which no token reads; None where there are none.
        options: of Transformers, such as `output_attentions`.

    Raises:
        MaskError: the encoder cannot run the mask, or the mask does not fit.
    """
    if isinstance(encoder_mask, Mask) and hides_alone(encoder_mask):
        encoder_mask = None  # which every encoder can run
    if encoder_mask is not None and isinstance(hidden, Mask):
        encoder_mask = _both(encoder_mask, hidden, source)
    if isinstance(encoder, CrossMaskEncoder):
        given = {name: inputs[name] for name in ("input_ids", "inputs_embeds", "passage_ids")}
        mask = hidden if encoder_mask is None else encoder_mask
        return encoder(attention_mask=attention_mask, encoder_mask=mask, return_dict=True, **given, **options)
    names = {"input_ids", "inputs_embeds"}
    if (getattr(encoder.config, "type_vocab_size", None) or 0) > 1:
        names.add("token_type_ids")
    given = {name: inputs[name] for name in sorted(names & inspect.signature(encoder.forward).parameters.keys())}
    tokens = inputs["input_ids"] if inputs["inputs_embeds"] is None else inputs["inputs_embeds"]
    assert tokens is not None
    if encoder_mask is not None:
        attention_mask = _additive(encoder, tokens, source, encoder_mask)
    elif hidden is not None:
        # As padding, which no token reads: this every encoder can do.
        shown = shown_tokens(hidden, source).expand(tokens.shape[:2])
        attention_mask = shown.long() if attention_mask is None else attention_mask * shown.to(attention_mask.dtype)
    return encoder(attention_mask=attention_mask, return_dict=True, **given, **options)


def shown_tokens(hidden: Mask, source: Layout) -> torch.Tensor:
    """Which tokens are in no blind span: (1 or B, S) bool."""
    query = lay_out(1, source.positions.device)
    shown = materialize_unchecked(hidden, query, replace(source, segments=None))
    assert shown is not None
    return shown[:, 0, 0]


def _both(encoder_mask: Mask | TensorMask, hidden: Mask, source: Layout) -> Mask | TensorMask:
    """An encoder mask and the blind spans as one mask."""
    if isinstance(encoder_mask, Mask):
        return encoder_mask & hidden
    shown = shown_tokens(hidden, source).to(encoder_mask.allowed.device)
    return TensorMask(encoder_mask.as_4d & shown[:, None, None])


def _additive(
    encoder: PreTrainedModel,
    tokens: torch.Tensor,
    source: Layout,
    encoder_mask: Mask | TensorMask,
) -> Any:
    """A mask as the encoders of Transformers take it: 0 where it allows, the lowest number elsewhere, (B, H, S, S).

    A token that may see nothing sees itself, since Transformers would give it the mean of all tokens.
    """
    module, config = sys.modules[type(encoder).__module__], encoder.config
    # Where Transformers makes an encoder's mask by this function, one of four dimensions is taken as it is.
    if not hasattr(module, "create_bidirectional_mask"):
        raise MaskError(
            f"encoder_mask: {type(encoder).__name__} takes no mask from token to token; leave it out, or take another "
            "encoder"
        )
    if config._attn_implementation not in ("eager", "sdpa"):
        raise MaskError(
            f"encoder_mask: {type(encoder).__name__} takes one with attn_implementation eager or sdpa, got "
            f"{config._attn_implementation}; call set_attn_implementation"
        )
    batch, length = tokens.shape[:2]
    allowed = _allowed(encoder_mask, batch, source, config, encoder.training)
    if not hasattr(module, _SLIDING):
        return _to_additive(allowed, encoder.dtype)
    window = getattr(module, _SLIDING)(
        config=config, inputs_embeds=tokens.new_empty(batch, length, 0, dtype=encoder.dtype), attention_mask=None
    )
    inside = allowed if window is None else allowed & (window if window.dtype == torch.bool else window == 0)
    masks = {"full_attention": allowed, "sliding_attention": inside}
    return {kind: _to_additive(mask, encoder.dtype) for kind, mask in masks.items()}


def _allowed(
    mask: Mask | TensorMask, batch: int, source: Layout, config: PreTrainedConfig, training: bool
) -> torch.Tensor:
    """(1 or B, 1 or H, S, S) bool, padding closed."""
    heads, length, device = config.num_attention_heads, source.length, source.positions.device
    if isinstance(mask, TensorMask):
        sizes = {"batch": batch, "heads": heads, "queries": length, "keys": length}
        check_fit(mask, "encoder_mask", **sizes, may_grow=False, whole=True)
        compiled = compile_mask(full(), source, source, mask.as_4d.to(device), heads)
    else:
        layers = {
            mask.for_layer(layer, config.num_hidden_layers, training) for layer in range(config.num_hidden_layers)
        }
        if len(layers) > 1:
            raise MaskError(f"encoder_mask: {mask} differs between layers, which encoders of Transformers cannot run")
        compiled = compile_mask(layers.pop(), source, source, None, heads)
    if compiled is None:
        return torch.ones(1, 1, length, length, dtype=torch.bool, device=device)
    return compiled


def _to_additive(allowed: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    itself = torch.eye(allowed.shape[-1], dtype=torch.bool, device=allowed.device)
    allowed = allowed | (itself & ~allowed.any(-1, keepdim=True))
    return torch.zeros(allowed.shape, dtype=dtype, device=allowed.device).masked_fill(~allowed, torch.finfo(dtype).min)
