"""A new model of a pretrained encoder and a pretrained decoder, joined by a bridge (`bridge/`)."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import AutoModel, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from ..inference.loading import load_config, load_model
from ..tasks.base import Task
from ..tasks.language_modeling import check_causal
from ..utils.errors import InputError
from .arguments import ModelArguments
from .build_tokenizer import load_tokenizer
from .validation import one_line

FIELDS = ("encoder_name_or_path", "decoder_name_or_path")


def joined_config(arguments: ModelArguments, task: Task) -> PreTrainedConfig:
    """The config of the model that `join_parts` makes.

    Raises:
        InputError: the task has no such models, or fields that do not fit. OSError: a part that cannot be loaded.
    """
    with naming_parts(arguments):
        encoder, decoder = (load_config(str(getattr(arguments, name))) for name in FIELDS)
        return bridge_class(task).config_class(encoder=encoder, decoder=decoder, **(arguments.model or {}))


def join_parts(arguments: ModelArguments, task: Task) -> PreTrainedModel:
    """The model, in float32: both parts as they are, and between them blocks that are closed.

    Raises:
        InputError: parts that cannot be joined, or fields that do not fit. OSError: a part that cannot be loaded.
    """
    options: dict[str, Any] = {"dtype": torch.float32, "attn_implementation": arguments.attn_implementation}
    encoder_name, decoder_name = (str(getattr(arguments, name)) for name in FIELDS)
    with naming_parts(arguments):
        # An encoder may lack its pooler, which nothing reads.
        encoder = load_model(
            encoder_name, load_config(encoder_name), auto_class=AutoModel, may_lack_weights=True, **options
        )
        decoder = load_model(decoder_name, load_config(decoder_name), auto_class=AutoModelForCausalLM, **options)
        check_causal(decoder)
        model = bridge_class(task).from_encoder_decoder_pretrained(encoder, decoder, **(arguments.model or {}))
        if arguments.attn_implementation is not None:
            model.set_attn_implementation({"": arguments.attn_implementation})
        return model


def load_tokenizer_of_parts(arguments: ModelArguments) -> PreTrainedTokenizerBase:
    """The tokenizer of both parts.

    Raises:
        InputError: the parts have different ones. OSError: one cannot be loaded.
    """
    source, target = (load_tokenizer(name, str(getattr(arguments, name))) for name in FIELDS)
    if source.get_vocab() != target.get_vocab():
        raise InputError(
            f"encoder_name_or_path and decoder_name_or_path must have one tokenizer, got {len(source)} tokens in "
            f"{arguments.encoder_name_or_path} and {len(target)} others in {arguments.decoder_name_or_path}"
        )
    return target


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
    names = " and ".join(f"{name} {getattr(arguments, name)}" for name in FIELDS)
    try:
        yield
    except OSError as error:
        raise OSError(f"{names}: {one_line(error)}") from error
    except (StrictDataclassError, ValueError, TypeError, ImportError) as error:
        raise InputError(f"{names}: {one_line(error)}") from error
