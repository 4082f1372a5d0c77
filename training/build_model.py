"""The model of a run: a new one, or a saved one to fine-tune."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import fields
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import GenerationConfig, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase, ProcessorMixin
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from ..configuration.base import MaskedConfig
from ..data.language_codes import language_token_ids
from ..inference.loading import load_config, load_model
from ..seq2seq.mask_probe import reads_target_padding
from ..tasks.base import LengthLimits, Task
from ..utils.errors import InputError
from ..utils.type_checks import check_choice
from .arguments import ModelArguments
from .attaching import attach_masks, masks_to_attach
from .generation import check_generated_length, generation_config
from .joining import bridge_class, join_parts, joined_config, joins, naming_parts
from .validation import check_attention_of_transformers, check_generation, check_names, one_line


def build_model(
    arguments: ModelArguments,
    limits: LengthLimits,
    task: Task,
    tokenizer: PreTrainedTokenizerBase,
    packed: bool = False,
    call_masks: bool = False,
) -> PreTrainedModel:
    """The model: loaded to be fine-tuned, or a new one of the recipe's sizes and the tokenizer's vocabulary.

    Args:
        packed: whether it will be trained on packed rows.
        call_masks: whether training will give masks to its calls.

    Raises:
        InputError: fields of the config that do not fit one another or the tokenizer. OSError: a model that cannot be
            loaded.
    """
    check_model_fields(arguments, task)
    if arguments.model_name_or_path:
        model = load_model_to_tune(arguments, task)
    elif joins(arguments, task):
        model = join_parts(arguments, task, tokenizer)
    elif arguments.encoder_name_or_path:
        model = build_on_encoder(arguments, task)
    else:
        config = new_config(arguments, limits, task, tokenizer)
        model = new_model(arguments, task, config)
    check_lengths(limits, task, model.config)
    of_language = {} if isinstance(tokenizer, ProcessorMixin) else language_token_ids(tokenizer)
    if "decoder_start_token_id" in of_language:
        model.config.decoder_start_token_id = of_language["decoder_start_token_id"]
    task.check_tokenizer(tokenizer, model.config)
    if task.attaches_masks and not isinstance(model.config, MaskedConfig):
        check_target_padding(model)
    packs_by_masks = packed and task.attaches_masks
    model = attach_masks(model, masks_to_attach(task, type(model.config), arguments.model), call_masks, packs_by_masks)
    task.check_model(model, packed)
    keeps = arguments.model_name_or_path and model.can_generate() and keeps_generation(model.config)
    saved = model.generation_config if keeps else None
    model.generation_config = configured_generation(arguments, limits, task, model.config, saved)
    model.generation_config.update(**of_language)
    return model


def check_target_padding(model: PreTrainedModel) -> None:
    """Refuse an encoder-decoder in which a target's scores depend on what else is in its batch, as ProphetNet's do.

    Raises:
        InputError: with the family.
    """
    if reads_target_padding(model):
        raise InputError(
            f"a {model.config.model_type} model cannot be trained: padding after a target changes the scores of its "
            "tokens, so that losses would depend on the batches; take a model of another family"
        )


def build_on_meta(
    arguments: ModelArguments,
    limits: LengthLimits,
    task: Task,
    device: torch.device,
    packed: bool = False,
    call_masks: bool = False,
) -> PreTrainedModel:
    """The model without weights, on the meta device, to refuse what cannot be trained before the data is read.

    Args:
        device: that it will be trained on. packed, call_masks: as for `build_model`.

    Raises:
        InputError: with the field, what was given and what was expected.
    """
    check_model_fields(arguments, task)
    if arguments.model_name_or_path:
        config = saved_config(arguments, task, arguments.model)
    elif joins(arguments, task):
        config = joined_config(arguments, task)
    elif arguments.encoder_name_or_path:
        with naming_encoder(arguments.encoder_name_or_path):
            config = task.config_on_encoder(load_config(arguments.encoder_name_or_path), arguments.model or {})
    else:
        config = new_config(arguments, limits, task)
    check_lengths(limits, task, config)
    task.check_options(config)
    configured_generation(arguments, limits, task, config)
    joined = naming_parts(arguments) if joins(arguments, task) else nullcontext()
    with torch.device("meta"), joined:
        model = new_model(arguments, task, config)
        packs_by_masks = packed and task.attaches_masks
        attach_masks(model, masks_to_attach(task, type(config), arguments.model), call_masks, packs_by_masks)
    copies = 2 if device.type == "cpu" else 1  # weights, and beside them their gradients
    needed, there = copies * sum(one.numel() * one.element_size() for one in model.parameters()), memory_size()
    if there is not None and needed > there:
        raise InputError(
            f"the model has {model.num_parameters():,} parameters, which take {needed / 2**30:,.0f} GiB, and this "
            f"machine has {there / 2**30:,.0f} GiB of memory: lower vocab_size ({config.vocab_size:,}), hidden_size "
            f"({config.hidden_size:,}) or the number of layers"
        )
    return model


def check_model_fields(arguments: ModelArguments, task: Task) -> None:
    """Refuse names and values in `model` and `generation` that no model takes. Raises InputError."""
    check_generation(arguments.generation or {})
    given = arguments.model or {}
    if arguments.model_name_or_path:
        config_class = type(saved_config(arguments, task))
    elif joins(arguments, task):
        config_class = bridge_class(task).config_class
    else:
        config_class = task.config_class(given)
    own = {item.name for item in fields(config_class)} - {item.name for item in fields(PreTrainedConfig)}
    masks = masks_to_attach(task, config_class, given)
    if task.attaches_masks and not issubclass(config_class, MaskedConfig):
        check_attention_of_transformers(arguments.attn_implementation, config_class.model_type)
    check_names("model", given, ["model_type", *sorted(own), *config_class.attribute_map, *masks])


def new_config(
    arguments: ModelArguments, limits: LengthLimits, task: Task, tokenizer: PreTrainedTokenizerBase | None = None
) -> PreTrainedConfig:
    """The config of a new model.

    Args:
        tokenizer: without it the config only serves to look at the rest.

    Raises:
        InputError: fields that do not fit one another or the tokenizer.
    """
    longest, given = max(getattr(limits, name) for name in task.length_fields), arguments.model or {}
    config_class = task.config_class(given)
    sizes = {"max_position_embeddings": longest, **task.config_of_tokenizer(tokenizer, config_class)}
    own = config_fields(task, config_class, given)
    try:
        return task.new_config(config_class, sizes, own)
    except InputError:
        raise
    except (StrictDataclassError, ValueError, TypeError, KeyError, OverflowError) as error:
        raise InputError(f"model: {one_line(error)}") from error


def new_model(arguments: ModelArguments, task: Task, config: PreTrainedConfig) -> PreTrainedModel:
    """A model with random weights.

    Raises:
        InputError: sizes beyond memory, an attention implementation that is not available.
    """
    if rope := getattr(config, "rope_parameters", None):
        kinds = [*ROPE_INIT_FUNCTIONS, "default"]
        check_choice("model.rope_parameters.rope_type", rope.get("rope_type", "default"), kinds)
    attention = arguments.attn_implementation
    try:
        return task.auto_class.from_config(config, attn_implementation=attention)
    except ImportError as error:
        raise InputError(f"attn_implementation is {attention}: {one_line(error)}") from error
    except RuntimeError as error:  # how torch says that there is no memory, or that a size is beyond numbers
        sizes = "vocab_size, hidden_size, intermediate_size or the number of layers"
        raise InputError(f"a model of these sizes cannot be made ({one_line(error)}): lower {sizes}") from error


def check_lengths(limits: LengthLimits, task: Task, config: PreTrainedConfig) -> None:
    """Refuse texts that are longer than a model, or its part that reads them, has positions. Raises InputError."""
    for name, positions in task.max_positions(config).items():
        if positions is not None and (length := getattr(limits, name)) > positions:
            part = "encoder" if name == "max_source_length" else "decoder"
            of_part = getattr(config, part, None)
            reader = f"model ({config.model_type})"  # which has one limit for both sides
            if isinstance(of_part, PreTrainedConfig):
                reader = f"{part} ({of_part.model_type})"
            raise InputError(
                f"{name} must be at most {positions}, the max_position_embeddings of the {reader}, got {length}; set "
                "it to that or less"
            )


def config_fields(task: Task, config_class: type[PreTrainedConfig], given: Mapping[str, Any] | None) -> dict[str, Any]:
    """What of a recipe's `model` is in the config of a model as Transformers builds or loads it."""
    others = {"model_type", *masks_to_attach(task, config_class, given)}
    return {name: value for name, value in (given or {}).items() if name not in others}


def keeps_generation(config: PreTrainedConfig) -> bool:
    """Whether a saved model's generation config is the start of the new one, as a model of Transformers needs it.

    A model of crossmask generates as its recipe says, and by its config.
    """
    return not isinstance(config, MaskedConfig)


def configured_generation(
    arguments: ModelArguments,
    limits: LengthLimits,
    task: Task,
    config: PreTrainedConfig,
    saved: GenerationConfig | None = None,
) -> GenerationConfig:
    """How the model generates, also by the generation config that it was saved with. Raises InputError."""
    given = arguments.generation or {}
    if (positions := task.max_positions(config).get("max_target_length")) is not None:
        check_generated_length(given, positions)
    return generation_config(given, task.default_generation(limits), config, saved)


def load_model_to_tune(arguments: ModelArguments, task: Task) -> PreTrainedModel:
    """A saved model, with other values for the fields of its config that `model` has.

    Raises:
        InputError: its weights do not fit the config, or it is not for the task. OSError: it cannot be loaded.
    """
    name, changes = str(arguments.model_name_or_path), arguments.model or {}
    options = {"auto_class": task.auto_class, "attn_implementation": arguments.attn_implementation}
    config = saved_config(arguments, task, changes)
    if task.attaches_masks and keeps_generation(config):
        options["dtype"] = torch.float32  # whatever it was saved in: optimizers need the digits
    with naming_model_to_tune(name):
        return load_model(name, config, may_lack_weights=bool(changes) or task.adds_head, **options)


def build_on_encoder(arguments: ModelArguments, task: Task) -> PreTrainedModel:
    """A new model on a pretrained encoder, with the fields of its config that `model` has.

    Raises:
        InputError: the task has no such models, or fields that do not fit. OSError: the encoder cannot be loaded.
    """
    name, attention = str(arguments.encoder_name_or_path), arguments.attn_implementation
    fields: Any = arguments.model or {}
    options = {} if attention is None else {"attn_implementation": attention}
    with naming_encoder(name):
        return task.from_encoder(name, fields, options)


@contextmanager
def naming_encoder(name: str) -> Iterator[None]:
    """Say which field gave the encoder that nothing can be built on."""
    try:
        yield
    except (StrictDataclassError, ValueError, TypeError, ImportError) as error:
        raise InputError(f"encoder_name_or_path: {name}: {one_line(error)}") from error
    except OSError as error:
        raise OSError(f"encoder_name_or_path: {one_line(error)}") from error


def saved_config(arguments: ModelArguments, task: Task, changes: Mapping[str, Any] | None = None) -> PreTrainedConfig:
    """The config of the model to fine-tune, with other values for some fields.

    Raises:
        InputError: it is not for the task. OSError: it cannot be loaded.
    """
    name = str(arguments.model_name_or_path)
    with naming_model_to_tune(name):
        config = load_config(name)
        task.check_config(config)
        if changes := {**task.changes_of_saved(config), **config_fields(task, type(config), changes)}:
            config = load_config(name, **changes)
    return config


@contextmanager
def naming_model_to_tune(name: str) -> Iterator[None]:
    """Say which field gave the model that cannot be loaded."""
    try:
        yield
    except (InputError, ImportError) as error:
        raise InputError(f"model_name_or_path: {name}: {one_line(error)}") from error
    except OSError as error:
        raise OSError(f"model_name_or_path: {one_line(error)}") from error


def memory_size() -> int | None:
    """Bytes of memory of this machine, where it says so."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None
