"""Fields of a recipe that other fields, or its task, leave nothing to do: refused, since they would be ignored."""

from __future__ import annotations

from dataclasses import Field, fields
from typing import TYPE_CHECKING, Any

from ..utils.errors import InputError
from ..utils.type_checks import check_choice
from .fields import default_of, shown
from .schedule import BY_METRIC

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ..tasks.base import Example, Task
    from .recipe import RecipeArguments
    from .run_arguments import RunArguments

# Fields of a recipe that some batchings do not read.
OF_BATCHING = {
    **dict.fromkeys(("source_row_length", "target_row_length"), ("packed", "stream")),
    "batch_tokens": ("buckets",),
    "cache_encoder": ("examples", "packed", "buckets"),  # the sources of a stream are not known before
    **dict.fromkeys(("stream_buffer", "tokenizer_examples"), ("stream",)),
}

_SAVED_TOKENIZER = "no tokenizer is trained: it is a saved one"


def check_together(recipe: RecipeArguments, arguments: RunArguments) -> None:
    """Refuse arguments that other settings make idle.

    Raises:
        InputError: with both, and what to do.
    """
    batching = recipe.batching.batching
    chosen: Any = arguments  # whose choices are enums by now
    optim = chosen.optim.value
    named = set(arguments.report_to) - {"tensorboard", "codecarbon", "dvclive", "azure_ml"}
    of_model = recipe.model
    saved = (of_model.model_name_or_path, of_model.decoder_name_or_path, of_model.share_embeddings)
    unfit = {
        "dataloader_drop_last": (
            batching in ("buckets", "stream"),
            f"with batching: {batching} there is no last batch that is smaller",
        ),
        "per_device_train_batch_size": (
            batching == "buckets",
            "set batch_tokens, the tokens in a batch with batching: buckets",
        ),
        "dataloader_persistent_workers": (
            batching == "packed",
            "with batching: packed every epoch has other rows, which lasting workers would not see",
        ),
        "gradient_checkpointing_kwargs": (  # which mirrors activation_checkpointing_kwargs, new in Transformers 5.23
            not arguments.gradient_checkpointing,
            "(activation_checkpointing_kwargs) set gradient_checkpointing (activation_checkpointing) with it",
        ),
        "fsdp_config": (not arguments.fsdp, "set fsdp, to which it belongs"),
        "torch_empty_cache_steps": (
            arguments.device.type == "cpu",
            "a processor has no cache to empty",
        ),
        "tf32": (
            bool(arguments.tf32) and arguments.device.type == "cpu",
            "it is a mode of a GPU's matrix units",
        ),
        **dict.fromkeys(
            ("hub_token", "hub_private_repo", "hub_revision"),
            (not arguments.push_to_hub, "set push_to_hub: nothing is uploaded without"),
        ),
        "tokenizer": (
            any(saved),
            "the pretrained model has a tokenizer of its own; train a new one, without its embeddings, to use another",
        ),
        "source_prefix": (
            bool(recipe.tokenizer.source_language or recipe.tokenizer.target_language),
            "a tokenizer with language codes says by them what is translated into what",
        ),
        "temperature": (batching == "stream", "a stream does not know how large its sources are; repeat the smaller"),
        "run_name": (not named, "no logger in report_to shows it"),
        "optim_target_modules": (
            not optim.startswith(("galore", "apollo")),
            f"optim: {optim} trains all modules alike",
        ),
        **dict.fromkeys(
            ("project", "trackio_space_id", "trackio_bucket_id", "trackio_static_space_id"),
            ("trackio" not in arguments.report_to, "set report_to to trackio, to which it belongs"),
        ),
        "generation_num_beams": (
            arguments.eval_strategy == "no" and not arguments.eval_on_start,
            "set eval_strategy: there is no validation; the test has the beams of generation: {num_beams: ...}",
        ),
        "early_stopping_patience": (
            arguments.eval_strategy == "no",
            "set eval_strategy: without validation there is no metric to stop by",
        ),
        "metric_for_best_model": (
            not compares_checkpoints(recipe, arguments),
            "no checkpoints are compared without load_best_model_at_end or early_stopping_patience",
        ),
    }
    for name in ("eval", "save", "logging"):
        strategy = getattr(arguments, f"{name}_strategy").value
        # A strategy of no switches off all that belongs to it.
        unfit[f"{name}_steps"] = (strategy not in ("steps", "no"), f"set {name}_strategy to steps: it is {strategy}")
    for name, kinds in OF_BATCHING.items():
        unfit[name] = (
            batching not in kinds,
            f"with batching: {batching} nothing reads it; it belongs to {_listed(kinds)}",
        )
    if any(saved) or isinstance(recipe.tokenizer.tokenizer, str):
        unfit["tokenizer_examples"] = (True, _SAVED_TOKENIZER)
    for item, value in all_fields(recipe, arguments):
        idle, reason = unfit.get(item.name, (False, ""))
        if idle and value not in (None, default_of(item)):
            raise InputError(f"{item.name} must be left out, got {shown(value)}; {reason}")
    workers = arguments.dataloader_num_workers
    for name in ("dataloader_persistent_workers", "dataloader_multiprocessing_context"):
        if getattr(arguments, name) and workers == 0:
            value = shown(getattr(arguments, name))
            raise InputError(f"{name} must be left out without dataloader_num_workers, got {value}; set that")


def _listed(names: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def check_task_fields(recipe: RecipeArguments, arguments: RunArguments, task: Task) -> None:
    """Refuse fields that nothing reads for tasks of this kind.

    Raises:
        InputError: with the field and what to do.
    """
    for item, value in all_fields(recipe, arguments):
        if item.name in task.unused_fields and value != default_of(item):
            raise InputError(
                f"{item.name} must be left out for task {task.name}, got {shown(value)}; "
                f"{task.unused_fields[item.name]}"
            )
    of_encoder = {
        "tokenizer": "the pretrained encoder has a tokenizer of its own",
        "tokenizer_examples": _SAVED_TOKENIZER,
        "share_embeddings": "models for this task have no decoder",
    }
    for item, value in recipe.items() if recipe.model.encoder_name_or_path and task.bridge_class is None else ():
        if item.name in of_encoder and value != default_of(item):
            raise InputError(f"{item.name} must be left out, got {shown(value)}; {of_encoder[item.name]}")


def all_fields(recipe: RecipeArguments, arguments: RunArguments) -> Iterator[tuple[Field, Any]]:
    """Every field that a recipe may have, with its value."""
    yield from recipe.items()
    for item in fields(arguments):
        yield item, getattr(arguments, item.name)


def compares_checkpoints(recipe: RecipeArguments, arguments: RunArguments) -> bool:
    """Whether one evaluation is held against another."""
    return bool(
        arguments.load_best_model_at_end
        or recipe.optimization.early_stopping_patience
        or recipe.optimization.average_checkpoints
        or arguments.save_strategy == "best"
        or arguments.lr_scheduler_type in BY_METRIC
    )


def check_metric(arguments: RunArguments, task: Task, validation: Sequence[Example]) -> None:
    """Refuse a metric for the best model that no evaluation gives.

    Raises:
        InputError: with those that the task has for the validation data.
    """
    name = arguments.metric_for_best_model
    if name is not None:
        check_choice("metric_for_best_model", name.removeprefix("eval_"), ["loss", *task.metric_names(validation)])
