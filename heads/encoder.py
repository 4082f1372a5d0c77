"""The encoder below a head: any text encoder of Transformers, or that of a crossmask model.

Letters: B batch, S source length, H heads.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput

from ..configuration.crossmask import CrossMaskConfig
from ..masks.expressions import Mask
from ..masks.layout import Layout, lay_out
from ..masks.materialize import compile_mask, materialize_unchecked
from ..masks.rules import full
from ..masks.tensor_mask import TensorMask, check_fit
from ..modeling.encoder import CrossMaskEncoder
from ..seq2seq.foreign_encoder import ForeignEncoder
from ..seq2seq.foreign_masks import ForeignMask
from ..seq2seq.pretrained_parts import build_encoder, recording
from ..seq2seq.token_ids import check_ids
from .hidden_spans import hides_alone


def new_encoder(config: PreTrainedConfig) -> PreTrainedModel:
    """An encoder with new weights.

    Raises:
        ValueError: Transformers has no model of such a config, or its states are not those of the tokens.
    """
    check_encoder(config)
    if config.model_type == CrossMaskConfig.model_type:  # not registered where this is remote code
        own: Any = config
        return CrossMaskEncoder(own)
    return without_pooler(build_encoder(config))


def check_encoder(config: PreTrainedConfig) -> None:
    """Refuse an encoder whose states are not those of the tokens.

    Raises:
        ValueError: it pools them into a memory.
    """
    if getattr(config, "memory_length", None) is not None:
        raise ValueError(
            f"encoder must have no memory, got memory_length={config.memory_length}, which leaves no states of "
            "tokens; give another encoder"
        )


def without_pooler(encoder: PreTrainedModel) -> PreTrainedModel:
    """The encoder after its own pooler, for which a head has no use, is taken out."""
    if getattr(encoder, "pooler", None) is not None:
        encoder.pooler = None  # type: ignore[assignment]
    return encoder


def encode(
    foreign: ForeignEncoder,
    inputs: Mapping[str, torch.Tensor | None],
    attention_mask: torch.Tensor | None,
    source: Layout,
    encoder_mask: Mask | TensorMask | None,
    hidden: Mask | None,
    **options: Any,
) -> BaseModelOutput:
    """Run an encoder, (B, S) tokens to (B, S, hidden) states.

    Args:
        foreign: the encoder, which may be one of ours too.
        inputs: `input_ids`, `inputs_embeds`, `token_type_ids` and `passage_ids`; the encoder gets those that it reads.
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
    if encoder_mask is not None and hidden is not None:
        encoder_mask = _both(encoder_mask, hidden, source)
    encoder, arguments = foreign.encoder, foreign.arguments
    names = {"input_ids", "inputs_embeds", "passage_ids"}
    if (getattr(encoder.config, "type_vocab_size", None) or 0) > 1:
        names.add("token_type_ids")
    given: dict[str, Any] = {name: inputs.get(name) for name in names & arguments}
    embeds = inputs.get("inputs_embeds")
    tokens = inputs.get("input_ids") if embeds is None else embeds
    assert tokens is not None
    mask: ForeignMask | None = attention_mask
    if "encoder_mask" in arguments:  # an encoder of ours
        given["encoder_mask"] = hidden if encoder_mask is None else encoder_mask
    elif encoder_mask is not None or hidden is not None:
        if encoder_mask is not None:
            mask = _finished_mask(foreign, tokens, source, encoder_mask)
        elif hidden is not None:
            # As padding, which no token reads: this every encoder can do.
            shown = shown_tokens(hidden, source).expand(tokens.shape[:2])
            mask = shown.long() if attention_mask is None else attention_mask * shown
    if "encoder_mask" not in arguments:
        foreign.check_padding(attention_mask)
        # Some count ids that are not padding, which tells of hidden ones, and of embeddings all; others count padding.
        counts = encoder_mask is not None or hidden is not None or embeds is not None
        if counts if foreign.counts_ids else (attention_mask is not None and "position_ids" in arguments):
            given |= foreign.positions(source, tokens.shape[0])
    try:
        return encoder(**given, attention_mask=mask, return_dict=True, **recording(options))
    except IndexError:
        check_ids("input_ids", encoder, given.get("input_ids"))
        raise


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


def _finished_mask(
    foreign: ForeignEncoder, tokens: torch.Tensor, source: Layout, encoder_mask: Mask | TensorMask
) -> ForeignMask | None:
    """A mask as the encoders of Transformers take it, padding closed.

    A token that may see nothing sees itself, since Transformers would give it the mean of all tokens.

    Raises:
        MaskError: the encoder obeys none, or the mask does not fit.
    """
    encoder = foreign.encoder
    config = encoder.config.get_text_config(encoder=True)
    batch, length = tokens.shape[:2]
    layers, heads = config.num_hidden_layers, config.num_attention_heads
    itself = torch.eye(length, dtype=torch.bool, device=tokens.device)

    def compiled(rule: Mask, tensor_mask: torch.Tensor | None = None) -> torch.Tensor:
        allowed = compile_mask(rule, source, source, tensor_mask, heads)
        if allowed is None:
            return torch.ones(1, 1, length, length, dtype=torch.bool, device=tokens.device)
        return allowed | (itself & ~allowed.any(-1, keepdim=True))

    if isinstance(encoder_mask, TensorMask):
        sizes = {"batch": batch, "heads": heads, "queries": length, "keys": length}
        check_fit(encoder_mask, "encoder_mask", **sizes, may_grow=False, has_all_rows=True)
        of_layers = [compiled(full(), encoder_mask.as_4d.to(tokens.device))] * layers
    else:
        rules = [encoder_mask.for_layer(layer, layers, encoder.training) for layer in range(layers)]
        distinct = {rule: compiled(rule) for rule in rules}
        of_layers = [distinct[rule] for rule in rules]
    return foreign.mask(of_layers, tokens)
