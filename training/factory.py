"""From a recipe to a tokenizer, a model and a trainer."""

import inspect
import os
from collections.abc import Iterable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from huggingface_hub.errors import StrictDataclassError
from transformers import (
    EarlyStoppingCallback,
    GenerationConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    TrainerCallback,
)
from transformers.generation import GenerationMode
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from ..data.bpe_dropout import BPEDropout
from ..data.length_buckets import BucketSampler
from ..data.packed_stream import PackedStream
from ..data.packing import PackedDataset, PackedSampler
from ..data.samplers import Batches, EpochBatches, ShuffledSampler
from ..data.sources import name_sources
from ..data.tokenizer_training import check_settings, train_tokenizer
from ..inference import loading
from ..inference.loading import load_config, load_model
from ..tasks.base import Collator, Example, Task
from ..tasks.examples import EvaluationSplit, to_features
from ..utils.errors import InputError
from ..utils.type_checks import check_choice
from .arguments import RecipeArguments, RunArguments
from .checkpoint_averaging import check_averaging
from .continuation import SettingsRecord
from .multi_path import Multipath
from .precision import PrecisionRecord
from .requirements import check_optimizer
from .streams import ExampleStream, packed_stream
from .timing import Stopwatch
from .trainer import CrossMaskTrainer
from .validation import check_generation, check_names, one_line

GENERATION_MODES = {
    GenerationMode.GREEDY_SEARCH,
    GenerationMode.SAMPLE,
    GenerationMode.BEAM_SEARCH,
    GenerationMode.BEAM_SAMPLE,
}


def build_tokenizer(
    recipe: RecipeArguments, task: Task, examples: Iterable[Example], checkpoint: Path | None = None
) -> PreTrainedTokenizerBase:
    """The tokenizer: of the checkpoint to go on from, of the model to fine-tune, loaded, or trained on the examples.

    Raises:
        ValueError: settings that do not fit. OSError: a tokenizer that cannot be loaded.
    """
    if checkpoint is not None:
        return load_tokenizer("resume_from_checkpoint", str(checkpoint))
    for field in ("model_name_or_path", "encoder_name_or_path"):
        if name := getattr(recipe, field):
            return load_tokenizer(field, name)
    if isinstance(recipe.tokenizer, str):
        return load_tokenizer("tokenizer", recipe.tokenizer)
    settings = {"vocab_size": 8000, **(recipe.tokenizer or {})}
    sources = name_sources("train", recipe.train, recipe.data_dir).values()
    tags = [spec.tag.strip() for spec in sources if spec.tag.strip()]
    special = [*settings.pop("special_tokens", ()), *task.special_tokens, *tags]
    texts = (text for example in examples for text in task.texts(example))
    longest = getattr(recipe, task.length_fields[0])
    return train_tokenizer(
        texts, special_tokens=special, model_max_length=longest, **task.tokenizer_settings, **settings
    )


def load_tokenizer(field: str, name: str) -> PreTrainedTokenizerBase:
    """The tokenizer of a local folder or a Hub id, which a recipe's field gives.

    Raises:
        OSError: there is none. What can only be a path is not looked for on the Hub, which takes a minute to give up.
    """
    path = Path(name).expanduser()
    no_hub_id = path.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1
    if (no_hub_id and not path.is_dir()) or path.is_file():
        what = "is a file" if path.is_file() else "does not exist"
        raise FileNotFoundError(f"{field}: {name} {what}; give a folder that holds a tokenizer, or a Hub id")
    try:
        return loading.load_tokenizer(str(path) if path.is_dir() else name)
    except (OSError, InputError) as error:
        reason = str(error).split("\n")[0]
        raise OSError(
            f"{field}: no tokenizer in {name!r}: {reason} Give a folder that holds one, or a Hub id; with "
            "HF_HUB_OFFLINE=1 only the cache is looked into"
        ) from error


def build_model(recipe: RecipeArguments, task: Task, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    """The model: loaded to be fine-tuned, or a new one of the recipe's sizes and the tokenizer's vocabulary.

    Raises:
        ValueError: fields of the config that do not fit one another or the tokenizer. OSError: a model that cannot be
            loaded.
    """
    check_recipe_model(recipe, task)
    if recipe.model_name_or_path:
        options = {"attn_implementation": recipe.attn_implementation}
        model = load_model_to_tune(recipe.model_name_or_path, task, recipe.model or {}, **options)
    elif recipe.encoder_name_or_path:
        model = load_encoder(recipe, task)
    else:
        config = new_config(recipe, task, **task.config_of_tokenizer(tokenizer))
        model = new_model(recipe, task, config)
    check_lengths(recipe, task, model.config)
    task.check_tokenizer(tokenizer, model.config)
    task.check_model(model, packed=recipe.batching in ("packed", "stream"))
    model.generation_config = generation_config(recipe, task, model.config)
    return model


def check_model(recipe: RecipeArguments, task: Task, arguments: RunArguments) -> None:
    """Refuse a model that cannot be built, before the data is read: its fields, its size, how it generates.

    Raises:
        ValueError: with the field, what was given and what was expected.
    """
    check_recipe_model(recipe, task)
    check_recipe_tokenizer(recipe, task)
    if recipe.multipath_k is not None:
        Multipath.of(recipe.multipath_k, arguments.seed, recipe.max_source_length)
    if recipe.encoder_name_or_path and recipe.model_name_or_path:
        raise InputError("give either encoder_name_or_path or model_name_or_path: a model has an encoder already")
    if recipe.model_name_or_path or recipe.encoder_name_or_path:
        return
    config = new_config(recipe, task)
    check_lengths(recipe, task, config)
    generation_config(recipe, task, config)
    with torch.device("meta"):
        model = new_model(recipe, task, config)
    copies = 2 if arguments.device.type == "cpu" else 1  # weights, and beside them their gradients
    needed, there = copies * sum(one.numel() * one.element_size() for one in model.parameters()), memory_size()
    if there is not None and needed > there:
        raise InputError(
            f"the model has {model.num_parameters():,} parameters, which take {needed / 2**30:,.0f} GiB, and this "
            f"machine has {there / 2**30:,.0f} GiB of memory: lower vocab_size ({config.vocab_size:,}), hidden_size "
            f"({config.hidden_size:,}) or the number of layers"
        )
    check_optimizer(arguments, model)


def check_recipe_model(recipe: RecipeArguments, task: Task) -> None:
    """Refuse names and values in `model` and `generation` that no model takes."""
    given = recipe.model or {}
    kind = task.config_class(given)
    own = {item.name for item in fields(kind)} - {item.name for item in fields(PreTrainedConfig)}
    check_names("model", given, ["model_type", *sorted(own), *kind.attribute_map])
    check_generation(recipe.generation or {})


def check_recipe_tokenizer(recipe: RecipeArguments, task: Task) -> None:
    """Refuse names and values in `tokenizer` that no tokenizer is trained with."""
    if isinstance(recipe.tokenizer, dict):
        known = inspect.signature(train_tokenizer).parameters.keys()
        known -= {"texts", "model_max_length", "add_bos_token", "add_eos_token"}
        check_names("tokenizer", recipe.tokenizer, sorted(known))
        check_settings(recipe.tokenizer)


def new_config(recipe: RecipeArguments, task: Task, **of_tokenizer: int | None) -> PreTrainedConfig:
    """The config of a new model.

    Args:
        of_tokenizer: the tokenizer's part; without it the config only serves to look at the rest.

    Raises:
        ValueError: fields that do not fit one another or the tokenizer.
    """
    longest, given = max(getattr(recipe, name) for name in task.length_fields), recipe.model or {}
    own = {name: value for name, value in given.items() if name != "model_type"}
    try:
        return task.config_class(given)(**{"max_position_embeddings": longest, **of_tokenizer, **own})
    except (StrictDataclassError, ValueError, TypeError, KeyError, OverflowError) as error:
        raise InputError(f"model: {one_line(error)}") from error


def new_model(recipe: RecipeArguments, task: Task, config: PreTrainedConfig) -> PreTrainedModel:
    """A model with random weights.

    Raises:
        ValueError: sizes beyond memory, an attention implementation that is not to be had.
    """
    if rope := getattr(config, "rope_parameters", None):
        kinds = [*ROPE_INIT_FUNCTIONS, "default"]
        check_choice("model.rope_parameters.rope_type", rope.get("rope_type", "default"), kinds)
    try:
        return task.auto_class.from_config(config, attn_implementation=recipe.attn_implementation)
    except ImportError as error:
        raise InputError(f"attn_implementation is {recipe.attn_implementation}: {one_line(error)}") from error
    except RuntimeError as error:  # how torch says that there is no memory, or that a size is beyond numbers
        sizes = "vocab_size, hidden_size, intermediate_size or the number of layers"
        raise InputError(f"a model of these sizes cannot be made ({one_line(error)}): lower {sizes}") from error


def check_lengths(recipe: RecipeArguments, task: Task, config: PreTrainedConfig) -> None:
    """Refuse texts, and texts to generate, that are longer than a model has positions.

    Raises:
        ValueError: with the field and the limit.
    """
    limit = getattr(config, "max_position_embeddings", None)
    if limit is None:
        return
    for name in task.length_fields:
        if (given := getattr(recipe, name)) > limit:
            raise InputError(f"{name}={given} is more than the model's max_position_embeddings={limit}: lower it")
    # The start token has a position, the last token needs none; `max_length` counts both.
    for name, most in {"max_new_tokens": limit, "max_length": limit + 1}.items():
        if (given := (recipe.generation or {}).get(name)) is not None and given > most:
            raise InputError(
                f"generation.{name} is {given}: expected at most {most} under max_position_embeddings={limit}"
            )


def generation_config(recipe: RecipeArguments, task: Task, config: PreTrainedConfig) -> GenerationConfig:
    """How the model generates, for the test and for its users.

    Raises:
        ValueError: settings that do not fit one another, or that `generate` has no method for.
    """
    given = recipe.generation or {}
    length = {} if given.keys() & {"max_length", "max_new_tokens"} else task.default_generation(recipe.limits)
    try:
        found = GenerationConfig.from_model_config(config)
        found.update(**{**length, **given})
        found.validate(strict=True)
        mode = found.get_generation_mode()
    except (ValueError, TypeError, AttributeError) as error:
        raise InputError(f"generation: {one_line(error)}") from error
    if mode not in GENERATION_MODES:
        raise InputError(
            f"generation asks for {mode.value.replace('_', ' ')}, which Transformers has only as code on the Hub: "
            "leave its settings out, and use greedy search, sampling or beams"
        )
    return found


def memory_size() -> int | None:
    """Bytes of memory of this machine, where it says so."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None


def load_model_to_tune(name: str, task: Task, changes: Mapping[str, Any], **options) -> PreTrainedModel:
    """A model to fine-tune, with other values for some fields of its config.

    Raises:
        InputError: its weights do not fit the config, or it is not for the task. OSError: it cannot be loaded.
    """
    try:
        config = load_config(name, **changes)
        task.check_config(config)
        may_lack_weights = bool(changes) or task.adds_head
        return load_model(name, config, auto_class=task.auto_class, may_lack_weights=may_lack_weights, **options)
    except (InputError, ImportError) as error:
        raise InputError(f"model_name_or_path: {name}: {one_line(error)}") from error
    except OSError as error:
        raise OSError(f"model_name_or_path: {one_line(error)}") from error


def load_encoder(recipe: RecipeArguments, task: Task) -> PreTrainedModel:
    """A new model on a pretrained encoder.

    Raises:
        InputError: the task has none for such an encoder, or fields that do not fit. OSError: it cannot be loaded.
    """
    name = recipe.encoder_name_or_path
    attention = recipe.attn_implementation
    options = {} if attention is None else {"attn_implementation": attention}
    try:
        return task.from_encoder(name, recipe.model or {}, options)
    except (StrictDataclassError, ValueError, TypeError, ImportError) as error:
        raise InputError(f"encoder_name_or_path: {name}: {one_line(error)}") from error
    except OSError as error:
        raise OSError(f"encoder_name_or_path: {one_line(error)}") from error


def build_trainer(
    recipe: RecipeArguments,
    arguments: RunArguments,
    task: Task,
    tokenizer: PreTrainedTokenizerBase,
    model: PreTrainedModel,
    train: list[Example] | ExampleStream,
    validation: list[Example],
) -> CrossMaskTrainer:
    """The trainer, with its data tokenised and batched as the recipe says.

    Raises:
        ValueError: texts that are too long, settings that do not fit.
    """
    if isinstance(train, ExampleStream):
        features: Dataset | PackedStream = packed_stream(recipe, arguments, train, tokenizer)
    else:
        features = training_features(recipe, arguments, task, tokenizer, train)
    callbacks: list[TrainerCallback] = [Stopwatch(), PrecisionRecord(), SettingsRecord()]
    if recipe.early_stopping_patience is not None:
        callbacks.append(EarlyStoppingCallback(recipe.early_stopping_patience))
    dataset, batches, collator = make_batching(recipe, arguments, task, model.config, features)
    if recipe.average_checkpoints is not None:
        keep_checkpoints(arguments, recipe.average_checkpoints)
    arguments.generation_num_beams = arguments.generation_num_beams or 1
    if arguments.metric_for_best_model is None:
        arguments.metric_for_best_model = f"eval_{task.primary_metric.name}"
        arguments.greater_is_better = task.primary_metric.greater_is_better
    multipath = None
    if recipe.multipath_k is not None:
        multipath = Multipath.of(recipe.multipath_k, arguments.seed, recipe.max_source_length)
    return CrossMaskTrainer(
        model=model,
        args=arguments,
        train_dataset=dataset,
        eval_dataset=evaluation_split(recipe, task, tokenizer, validation),
        data_collator=collator,
        processing_class=tokenizer,
        callbacks=callbacks,
        task=task,
        train_batches=batches,
        eval_collator=task.evaluation_collator(model.config),
        eval_tokens=recipe.eval_tokens,
        multipath=multipath,
    )


def training_features(
    recipe: RecipeArguments,
    arguments: RunArguments,
    task: Task,
    tokenizer: PreTrainedTokenizerBase,
    examples: list[Example],
) -> Dataset:
    """Token ids of the training examples; under BPE-dropout of several copies of them, one after another.

    Raises:
        ValueError: an example over a limit, a tokenizer without BPE.
    """
    if recipe.bpe_dropout is None:
        return to_features(examples, task, tokenizer, recipe.limits)
    size, dropout, copies = len(examples), recipe.bpe_dropout, recipe.bpe_dropout_copies or 8

    def name(index: int) -> str:
        copy, number = divmod(index, size)
        return f"example {number}, as bpe_dropout={dropout} cut it in copy {copy + 1} of {copies}"

    return to_features(examples * copies, task, BPEDropout(tokenizer, dropout, arguments.seed), recipe.limits, name)


def keep_checkpoints(arguments: RunArguments, number: int) -> None:
    """Have the run keep the checkpoints that will be averaged.

    Raises:
        ValueError: a run that keeps none to average.
    """
    check_averaging(arguments)
    if arguments.save_strategy == "no" or arguments.eval_strategy == "no":
        raise InputError(
            f"average_checkpoints={number} needs checkpoints, and validation to judge their mean by: set "
            "save_strategy and eval_strategy to epoch or steps"
        )
    if arguments.save_total_limit is not None:
        # One more: Trainer counts the best checkpoint, which may be an old one.
        arguments.save_total_limit = max(arguments.save_total_limit, number + 1)


def make_batching(
    recipe: RecipeArguments,
    arguments: RunArguments,
    task: Task,
    config: PreTrainedConfig,
    features: Dataset | PackedStream,
) -> tuple[Dataset | PackedDataset | PackedStream, Batches | None, Collator]:
    """What is trained on, its batches over all processes (None: it deals out its own), and what makes tensors of them.

    Raises:
        ValueError: examples that do not fit a row, or that the task does not pack.
    """
    sizes = {"batch_size": arguments.train_batch_size, "drop_last": arguments.dataloader_drop_last}
    rows = (recipe.source_row_length, recipe.target_row_length)
    if isinstance(features, PackedStream):
        return features, None, task.packed_collator(config, *rows)
    if recipe.batching == "packed":
        collator = task.packed_collator(config, *rows)
        packed = PackedDataset(features, *rows, seed=arguments.seed)
        return packed, EpochBatches(PackedSampler(packed), **sizes), collator
    if recipe.batching == "buckets":
        batches: Batches = BucketSampler(features, recipe.batch_tokens, arguments.seed)
    else:
        batches = EpochBatches(ShuffledSampler(len(features), arguments.seed), **sizes)
    return features, batches, task.collator(config)


def evaluation_split(
    recipe: RecipeArguments, task: Task, tokenizer: PreTrainedTokenizerBase, examples: list[Example]
) -> EvaluationSplit:
    """Examples to evaluate on."""
    return EvaluationSplit(examples, to_features(examples, task, tokenizer, task.evaluation_limits(recipe.limits)))
