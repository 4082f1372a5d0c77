"""A new model of a pretrained encoder and a decoder, pretrained or new, joined by a bridge (`bridge/`)."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import CONFIG_MAPPING, AutoModel, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from ..bridge import CrossMaskBridgeProcessor
from ..inference.loading import load_config, load_model
from ..tasks.base import Task
from ..tasks.causal_lm_checks import check_causal
from ..tasks.encoder_decoders import ANY_TOKENS
from ..utils.errors import InputError
from ..utils.type_checks import check_choice
from .arguments import ModelArguments
from .build_tokenizer import load_tokenizer
from .validation import check_names, one_line

FIELDS = ("encoder_name_or_path", "decoder_name_or_path")


def joins(arguments: ModelArguments, task: Task) -> bool:
    """Whether a recipe's model is an encoder and a decoder that are joined; other models on an encoder have a head."""
    return bool(arguments.decoder_name_or_path or (arguments.encoder_name_or_path and task.bridge_class))


def joined_config(arguments: ModelArguments, task: Task) -> PreTrainedConfig:
    """The config of the model that `join_parts` makes; the vocabulary of a new decoder is not known yet.

    Raises:
        InputError: the task has no such models, or fields that do not fit. OSError: a part that cannot be loaded.
    """
    config_class = bridge_class(task).config_class
    with naming_parts(arguments):
        encoder = load_config(str(arguments.encoder_name_or_path))
        if arguments.decoder_name_or_path is None:
            decoder = new_decoder_config(arguments, ANY_TOKENS)
            if arguments.share_embeddings:
                _check_width(encoder, decoder)
            special: dict[str, int | None] = {**ANY_TOKENS, "decoder_start_token_id": ANY_TOKENS["bos_token_id"]}
        else:
            decoder = load_config(arguments.decoder_name_or_path)
            special = load_processor_of_parts(arguments).special_token_ids
        return config_class(encoder=encoder, decoder=decoder, **{**special, **_fields_of_bridge(arguments)})


def join_parts(arguments: ModelArguments, task: Task, processor: Any) -> PreTrainedModel:
    """The model, in float32: the saved parts as they are, and between them blocks that are closed.

    Args:
        processor: both parts' tokenizers (`load_processor_of_parts`), whose special tokens the model has.

    Raises:
        InputError: parts that cannot be joined, or fields that do not fit. OSError: a part that cannot be loaded.
    """
    attention: dict[str, Any] = {"attn_implementation": arguments.attn_implementation}
    options = {"dtype": torch.float32, **attention}
    encoder_name, decoder_name = (getattr(arguments, name) for name in FIELDS)
    special = processor.special_token_ids
    with naming_parts(arguments):
        # An encoder may lack its pooler, which nothing reads.
        encoder = load_model(
            encoder_name, load_config(encoder_name), auto_class=AutoModel, may_lack_weights=True, **options
        )
        if decoder_name is None:
            names = ("pad_token_id", "bos_token_id", "eos_token_id")
            of_tokenizer = {"vocab_size": len(processor.decoder_tokenizer), **{name: special[name] for name in names}}
            decoder = AutoModelForCausalLM.from_config(new_decoder_config(arguments, of_tokenizer), **attention)
            if arguments.share_embeddings:
                _copy_embeddings(encoder, decoder)
        else:
            decoder = load_model(decoder_name, load_config(decoder_name), auto_class=AutoModelForCausalLM, **options)
        check_causal(decoder)
        fields = {**special, **_fields_of_bridge(arguments)}
        model = bridge_class(task).from_encoder_decoder_pretrained(encoder, decoder, **fields)
        if arguments.attn_implementation is not None:
            model.set_attn_implementation({"": arguments.attn_implementation})
        return model


def new_decoder_config(arguments: ModelArguments, of_tokenizer: Mapping[str, Any]) -> PreTrainedConfig:
    """The config of a new decoder, by `model.decoder` of a recipe and what its tokenizer says.

    Raises:
        InputError: there are no such fields, no such family, or names that it does not have.
    """
    given = (arguments.model or {}).get("decoder")
    if not isinstance(given, Mapping) or "model_type" not in given:
        raise InputError(
            "decoder_name_or_path must be given, or model.decoder with the model_type and sizes of a new decoder, "
            f"got {given!r}"
        )
    check_choice("model.decoder.model_type", given["model_type"], sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES))
    config_class = CONFIG_MAPPING[given["model_type"]]
    known = {*config_class.__dataclass_fields__, *config_class.attribute_map, "model_type"}
    check_names("model.decoder", given, sorted(known - of_tokenizer.keys()))
    config: PreTrainedConfig = config_class(**of_tokenizer, **{k: v for k, v in given.items() if k != "model_type"})
    return config


def _check_width(encoder: PreTrainedConfig, decoder: PreTrainedConfig) -> None:
    """Refuse a decoder that cannot begin with the encoder's embeddings, as they have another width."""
    text = encoder.get_text_config(encoder=True)
    width = getattr(text, "embedding_size", None) or text.hidden_size
    if decoder.hidden_size != width:
        raise InputError(
            f"model.decoder must have a hidden_size of {width}, the width of the encoder's embeddings, with "
            f"share_embeddings, got {decoder.hidden_size}"
        )


def _copy_embeddings(encoder: Any, decoder: Any) -> None:
    """Begin a decoder's embeddings of tokens (V, E) with those of the encoder, where both have rows."""
    source, own = (part.get_input_embeddings().weight for part in (encoder, decoder))
    rows = min(len(source), len(own))
    with torch.no_grad():
        own[:rows] = source[:rows]


def writing_tokenizer(tokenizer: Any) -> Any:
    """An encoder's tokenizer for a decoder.

    Where it has no tokens for the beginning and the end of a text, these are its class token and its separator.
    """
    own = deepcopy(tokenizer)
    own.bos_token = own.bos_token or own.cls_token
    own.eos_token = own.eos_token or own.sep_token
    return own


def _fields_of_bridge(arguments: ModelArguments) -> dict[str, Any]:
    """The fields of the bridge's own config in a recipe's `model`."""
    fields = dict(arguments.model or {})
    if arguments.decoder_name_or_path is None:
        del fields["decoder"]
    return fields


def load_processor_of_parts(arguments: ModelArguments) -> CrossMaskBridgeProcessor:
    """The tokenizers of two saved parts as one processor.

    Raises:
        InputError: one has no token for padding or for the end. OSError: one cannot be loaded.
    """
    source, target = (load_tokenizer(name, str(getattr(arguments, name))) for name in FIELDS)
    return processor_of(arguments, source, target)


def processor_of(arguments: ModelArguments, source: Any, target: Any) -> CrossMaskBridgeProcessor:
    """The tokenizers of both parts as one processor. Raises InputError as `load_processor_of_parts`."""
    with naming_parts(arguments):
        is_one = source.get_vocab() == target.get_vocab() and source.special_tokens_map == target.special_tokens_map
        return CrossMaskBridgeProcessor(source, None if is_one else target)


def bridge_class(task: Task) -> Any:
    """The class that joins two parts into a model for the task. Raises InputError where there is none."""
    if task.bridge_class is None:
        raise InputError(
            f"decoder_name_or_path must be left out for task {task.name}, whose models have no encoder and decoder"
        )
    return task.bridge_class


@contextmanager
def naming_parts(arguments: ModelArguments) -> Iterator[None]:
    """Say which fields gave the parts that cannot be joined."""
    names = " and ".join(f"{name} {given}" for name in FIELDS if (given := getattr(arguments, name)) is not None)
    try:
        yield
    except OSError as error:
        raise OSError(f"{names}: {one_line(error)}") from error
    except (StrictDataclassError, ValueError, TypeError, ImportError) as error:
        raise InputError(f"{names}: {one_line(error)}") from error
