"""Encoder-decoders that text-to-text tasks train: our own network, and bridges with two tokenizers."""

import inspect
from typing import Any, cast

import torch
from transformers import BatchEncoding, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import ModelOutput

from ..bridge import CrossMaskBridgeConfig
from ..inference.texts import tokenizers_of
from ..seq2seq.attention_weights import attending_eagerly
from ..utils.errors import InputError


def check_two_tokenizers(
    source: PreTrainedTokenizerBase, target: PreTrainedTokenizerBase, config: PreTrainedConfig
) -> None:
    """Refuse tokenizers that do not fit the encoder and the decoder of a bridge. Raises InputError."""
    if not is_bridge(config):
        raise InputError(f"a {config.model_type} model must have one tokenizer, got two; join its parts by a bridge")
    for name, part, tokenizer in (("encoder", config.encoder, source), ("decoder", config.decoder, target)):
        if (size := part.get_text_config().vocab_size) < len(tokenizer):
            raise InputError(
                f"the tokenizer of the {name} must have at most {size} tokens, its vocab_size, got {len(tokenizer)}; "
                "give the tokenizer that it was trained with"
            )
    ends = config.eos_token_id if isinstance(config.eos_token_id, list) else [config.eos_token_id]
    if target.eos_token_id is None or target.eos_token_id not in ends:
        raise InputError(
            f"eos_token_id must be that of the decoder's tokenizer, {target.eos_token_id}, got {config.eos_token_id}; "
            "set it in model"
        )


def is_bridge(config: PreTrainedConfig) -> bool:
    """Whether a model joins an encoder and a decoder of their own; by name, as a saved model may have its own code."""
    return config.model_type == CrossMaskBridgeConfig.model_type


def encode(model: PreTrainedModel, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> ModelOutput:
    """The encoder's output under the masks of the config, as `encoder_outputs` of a call."""
    if is_bridge(model.config):
        return cast(Any, model).encoder_side.encode(input_ids, None, attention_mask=attention_mask)
    return model.get_encoder()(input_ids=input_ids, attention_mask=attention_mask)


def source_pad_token_id(config: PreTrainedConfig) -> int | None:
    """What fills sources where encoder and decoder have different vocabularies; else None."""
    if not is_bridge(config):
        return None
    return config.encoder.get_text_config(encoder=True).pad_token_id or 0


@torch.no_grad()
def check_packing(model: PreTrainedModel) -> None:
    """Refuse a bridge of which a part cannot keep packed examples apart, and models that are not told of packing.

    Raises:
        InputError: with what it says.
    """
    if "segment_ids" not in inspect.signature(model.forward).parameters:
        raise InputError(
            f"batching must be examples or buckets for a {model.config.model_type} model, which does not keep packed "
            "examples apart, got packed rows"
        )
    ids = torch.ones(1, 4, dtype=torch.int64, device=model.device)
    segments = torch.tensor([[1, 1, 2, 2]], device=model.device)
    try:
        model(ids, decoder_input_ids=ids, segment_ids=segments, decoder_segment_ids=segments)
    except ValueError as error:
        reason = " ".join(str(error).split())
        raise InputError(f"batching must be examples or buckets for this model: {reason}") from error


@torch.no_grad()
def generate_with_attention(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, text: str, longest_source: int, longest_target: int
) -> tuple[torch.Tensor, list[str], list[str]]:
    """Generate from a source text: interactive attention (T, S), mean over heads and layers, and both sides' tokens.

    Row t belongs to the token that was predicted at step t.
    """
    inputs = encode_source(model, tokenizer, text, longest_source)
    output = cast(Any, model).generate(**inputs, num_beams=1)[:, :longest_target]
    with attending_eagerly(model):
        attended = model(**inputs, decoder_input_ids=output[:, :-1], output_attentions=True)
    weights = torch.stack(attended.cross_attentions).float().mean(dim=(0, 2))[0]
    sides = zip(tokenizers_of(tokenizer), (inputs.input_ids[0], output[0, 1:]), strict=True)
    tokens = [[str(of_side.decode([id_])) for id_ in ids.tolist()] for of_side, ids in sides]
    return weights, tokens[0], tokens[1]


def encode_source(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, text: str, longest: int
) -> BatchEncoding:
    """The model's inputs for a source text, without what is over the limits of tokenizer and model."""
    source = tokenizers_of(tokenizer)[0]
    limit = min(source.model_max_length, longest)
    return source(text, return_tensors="pt", truncation=True, max_length=limit).to(model.device)
