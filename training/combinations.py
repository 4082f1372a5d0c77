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
    idle = {
        **_idle_under_the_batching(recipe),
        **_idle_with_a_saved_tokenizer(recipe),
        **_idle_on_the_device(arguments),
        **_idle_without_another_field(arguments),
        **_idle_without_evaluation(recipe, arguments),
    }
    for item, value in all_fields(recipe, arguments):
        if item.name in idle and value not in (None, default_of(item)):
            raise InputError(f"{item.name} must be left out, got {shown(value)}; {idle[item.name]}")
    workers = arguments.dataloader_num_workers
    for name in ("dataloader_persistent_workers", "dataloader_multiprocessing_context"):
        if getattr(arguments, name) and workers == 0:
            value = shown(getattr(arguments, name))
            raise InputError(f"{name} must be left out without dataloader_num_workers, got {value}; set that")


def _idle_under_the_batching(recipe: RecipeArguments) -> dict[str, str]:
    """The reason of each field that nothing reads, as in all functions of this name."""
    batching = recipe.batching.batching
    idle = {
        name: f"with batching: {batching} nothing reads it; it belongs to {_listed(kinds)}"
        for name, kinds in OF_BATCHING.items()
        if batching not in kinds
    }
    if batching in ("buckets", "stream"):
        idle["dataloader_drop_last"] = f"with batching: {batching} there is no last batch that is smaller"
    if batching == "buckets":
        idle["per_device_train_batch_size"] = "set batch_tokens, the tokens in a batch with batching: buckets"
    if batching == "packed":
        idle["dataloader_persistent_workers"] = (
            "with batching: packed every epoch has other rows, which lasting workers would not see"
        )
    if batching == "stream":
        idle["temperature"] = "a stream does not know how large its sources are; repeat the smaller"
    return idle


def _idle_with_a_saved_tokenizer(recipe: RecipeArguments) -> dict[str, str]:
    model, tokenizer = recipe.model, recipe.tokenizer
    idle = {}
    is_of_model = any((model.model_name_or_path, model.decoder_name_or_path, model.share_embeddings))
    if is_of_model or isinstance(tokenizer.tokenizer, str):
        idle["tokenizer_examples"] = _SAVED_TOKENIZER
    if is_of_model:
        idle["tokenizer"] = (
            "the pretrained model has a tokenizer of its own; train a new one, without its embeddings, to use another"
        )
    if tokenizer.source_language or tokenizer.target_language:
        idle["source_prefix"] = "a tokenizer with language codes says by them what is translated into what"
    return idle


def _idle_on_the_device(arguments: RunArguments) -> dict[str, str]:
    if arguments.device.type != "cpu":
        return {}
    idle = {"torch_empty_cache_steps": "a processor has no cache to empty"}
    return idle | ({"tf32": "it is a mode of a GPU's matrix units"} if arguments.tf32 else {})


def _idle_without_another_field(arguments: RunArguments) -> dict[str, str]:
    chosen: Any = arguments  # whose choices are enums by now
    optim = chosen.optim.value
    idle = {}
    if not arguments.gradient_checkpointing:
        # It mirrors activation_checkpointing_kwargs, new in Transformers 5.23.
        idle["gradient_checkpointing_kwargs"] = (
            "(activation_checkpointing_kwargs) set gradient_checkpointing (activation_checkpointing) with it"
        )
    if not arguments.fsdp:
        idle["fsdp_config"] = "set fsdp, to which it belongs"
    if not arguments.push_to_hub:
        reason = "set push_to_hub: nothing is uploaded without"
        idle |= dict.fromkeys(("hub_token", "hub_private_repo", "hub_revision"), reason)
    if not optim.startswith(("galore", "apollo")):
        idle["optim_target_modules"] = f"optim: {optim} trains all modules alike"
    if not set(arguments.report_to) - {"tensorboard", "codecarbon", "dvclive", "azure_ml"}:
        idle["run_name"] = "no logger in report_to shows it"
    if "trackio" not in arguments.report_to:
        of_trackio = ("project", "trackio_space_id", "trackio_bucket_id", "trackio_static_space_id")
        idle |= dict.fromkeys(of_trackio, "set report_to to trackio, to which it belongs")
    for name in ("eval", "save", "logging"):
        strategy = getattr(arguments, f"{name}_strategy").value
        if strategy not in ("steps", "no"):  # which switches off all that belongs to it
            idle[f"{name}_steps"] = f"set {name}_strategy to steps: it is {strategy}"
    return idle


def _idle_without_evaluation(recipe: RecipeArguments, arguments: RunArguments) -> dict[str, str]:
    idle = {}
    if arguments.eval_strategy == "no":
        idle["early_stopping_patience"] = "set eval_strategy: without validation there is no metric to stop by"
        if not arguments.eval_on_start:
            idle["generation_num_beams"] = (
                "set eval_strategy: there is no validation; the test has the beams of generation: {num_beams: ...}"
            )
    if not compares_checkpoints(recipe, arguments):
        idle["metric_for_best_model"] = (
            "no checkpoints are compared without load_best_model_at_end or early_stopping_patience"
        )
    return idle


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
