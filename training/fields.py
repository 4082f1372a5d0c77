"""Which of Transformers' training arguments a run obeys, and which it refuses because it could only ignore them.

Every field of `Seq2SeqTrainingArguments` is in one of the two tables; a test walks them, so that a field of a new
Transformers is looked at by someone before anybody can set it.
"""

from __future__ import annotations

from dataclasses import MISSING, Field, fields
from enum import Enum
from typing import TYPE_CHECKING, Any, get_args, get_type_hints

from transformers import Seq2SeqTrainingArguments

from ..utils.errors import InputError
from ..utils.type_checks import check_choice

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..tasks.base import Example, Task
    from .arguments import RecipeArguments, RunArguments

# fmt: off
OBEYED = frozenset((
    # where, how long, how fast
    "output_dir", "per_device_train_batch_size", "num_train_epochs", "max_steps", "learning_rate",
    "lr_scheduler_type", "lr_scheduler_kwargs", "warmup_steps", "optim", "optim_args", "optim_target_modules",
    "weight_decay", "adam_beta1", "adam_beta2", "adam_epsilon", "gradient_accumulation_steps",
    "average_tokens_across_devices", "max_grad_norm", "label_smoothing_factor", "neftune_noise_alpha", "seed",
    "full_determinism",
    # numbers, memory, devices
    "bf16", "fp16", "tf32", "activation_checkpointing", "activation_checkpointing_kwargs",
    "gradient_checkpointing", "gradient_checkpointing_kwargs", "torch_compile", "torch_compile_backend",
    "torch_compile_mode", "torch_empty_cache_steps", "use_cpu", "parallelism_config", "ddp_find_unused_parameters",
    "ddp_bucket_cap_mb", "ddp_broadcast_buffers", "ddp_static_graph", "ddp_backend", "ddp_timeout", "fsdp",
    "fsdp_config", "deepspeed",
    # logs
    "logging_strategy", "logging_steps", "logging_first_step", "log_on_each_node", "include_num_input_tokens_seen",
    "log_level", "log_level_replica", "disable_tqdm", "report_to", "run_name", "project", "trackio_space_id",
    "trackio_bucket_id", "trackio_static_space_id", "debug", "skip_memory_metrics",
    # evaluation and checkpoints
    "eval_strategy", "eval_steps", "eval_delay", "eval_on_start", "generation_num_beams",
    "save_only_model", "save_strategy", "save_steps", "save_on_each_node", "save_total_limit",
    "load_best_model_at_end", "metric_for_best_model", "greater_is_better", "ignore_data_skip",
    "restore_callback_states_from_checkpoint", "resume_from_checkpoint",
    # data
    "dataloader_drop_last", "dataloader_num_workers", "dataloader_pin_memory", "dataloader_persistent_workers",
    "dataloader_prefetch_factor", "dataloader_multiprocessing_context",
    # the upload at the end
    "push_to_hub", "hub_token", "hub_private_repo", "hub_model_id", "hub_revision",
))
# fmt: on
_ALWAYS = "leave it out, train.py always trains, validates and tests"
_LOADER = "leave it out, batches are dealt out by `batching` in a fixed order, so that a run resumes exactly"
_TEXTS = "leave it out, a run is judged by the texts that its model generates"
REFUSED = {
    "per_device_eval_batch_size": "leave it out and set eval_tokens, the tokens in an evaluation batch",
    "eval_accumulation_steps": "leave it out, evaluation keeps no logits; to save memory lower eval_tokens",
    "eval_do_concat_batches": _TEXTS,
    "eval_use_gather_object": _TEXTS,
    "include_for_metrics": _TEXTS,
    "batch_eval_metrics": _TEXTS,
    "prediction_loss_only": _TEXTS,
    "predict_with_generate": _TEXTS,
    "label_names": "leave it out, the labels are `labels`",
    "generation_max_length": "leave it out and set generation: {max_new_tokens: ...} in the recipe",
    "generation_config": "leave it out and give its fields as `generation` in the recipe",
    "sortish_sampler": "leave it out and set batching to buckets, which are examples of like length",
    "train_sampling_strategy": "leave it out and set `batching`, one of examples (shuffled), buckets (of like "
    "length), packed and stream",
    "length_column_name": "leave it out, lengths are counted; for batches of like length set batching to buckets",
    "remove_unused_columns": "leave it out, batches are made of what is needed",
    "accelerator_config": _LOADER,
    "dataloader_in_order": _LOADER,
    "data_seed": "leave it out and set seed, which also gives the order of the data",
    "auto_find_batch_size": "leave it out and set per_device_train_batch_size, or batch_tokens: a smaller batch is "
    "another run",
    "bf16_full_eval": "leave it out and set bf16, evaluation computes as training does",
    "fp16_full_eval": "leave it out and set fp16, evaluation computes as training does",
    "use_liger_kernel": "leave it out, Liger has no kernels for crossmask, whose loss is fused already",
    "liger_kernel_config": "leave it out, Liger has no kernels for crossmask",
    "use_cache": "leave it out, training reads whole targets at once and has no use for a cache",
    "logging_nan_inf_filter": "leave it out, a loss that is not finite ends the run",
    "enable_jit_checkpoint": "leave it out and set save_steps, a run that is stopped goes on from its last checkpoint",
    "hub_strategy": "leave it out or set it to end, the folder is uploaded once, when it is whole",
    "hub_always_push": "leave it out, the folder is uploaded once, when it is whole",
    "do_train": _ALWAYS,
    "do_eval": _ALWAYS,
    "do_predict": _ALWAYS,
    "local_rank": "leave it out and start several processes with torchrun, which tells each its rank",
}
# Fields of a recipe that some batchings do not read.
OF_BATCHING = {
    **dict.fromkeys(("source_row_length", "target_row_length"), ("packed", "stream")),
    "batch_tokens": ("buckets",),
    **dict.fromkeys(("stream_buffer", "tokenizer_examples"), ("stream",)),
}
# Values beside the default that come to the same as what is done.
ALLOWED: dict[str, tuple[Any, ...]] = {"accelerator_config": ({},), "hub_strategy": ("end",)}


def check_obeyed(arguments: RunArguments) -> None:
    """Refuse what would be ignored, as the arguments were given.

    Raises:
        ValueError: with the field and what to do instead.
    """
    for item in fields(arguments):
        name, value = item.name, getattr(arguments, item.name)
        if not item.init or name in OBEYED or value == _default(item) or value in ALLOWED.get(name, ()):
            continue
        reason = REFUSED.get(name, "leave it out, crossmask does not know this field of this version of Transformers")
        raise InputError(f"{name} is {shown(value)}: {reason}")


def check_enums(arguments: RunArguments) -> None:
    """Refuse names that are none of a field's choices: of schedulers, optimizers, strategies.

    Raises:
        ValueError: with the choices.
    """
    hints = get_type_hints(Seq2SeqTrainingArguments)  # RunArguments declares its new defaults as text
    for item in fields(Seq2SeqTrainingArguments):
        kinds = [kind for kind in get_args(hints[item.name]) if isinstance(kind, type) and issubclass(kind, Enum)]
        value = getattr(arguments, item.name)
        if kinds and not isinstance(value, Enum | list):
            check_choice(item.name, value, [one.value for one in kinds[0]])


def check_together(recipe: RecipeArguments, arguments: RunArguments) -> None:
    """Refuse arguments that other settings make idle.

    Raises:
        ValueError: with both, and what to do.
    """
    batching = recipe.batching
    named = set(arguments.report_to) - {"tensorboard", "codecarbon", "dvclive", "azure_ml"}
    unfit = {
        "dataloader_drop_last": (
            batching in ("buckets", "stream"),
            f"leave it out, with batching: {batching} there is no last batch that is smaller",
        ),
        "per_device_train_batch_size": (
            batching == "buckets",
            "leave it out and set batch_tokens, the tokens in a batch with batching: buckets",
        ),
        "dataloader_persistent_workers": (
            batching == "packed",
            "leave it out, with batching: packed every epoch has other rows, which lasting workers would not see",
        ),
        "gradient_checkpointing_kwargs": (  # which mirrors activation_checkpointing_kwargs, new in Transformers 5.23
            not arguments.gradient_checkpointing,
            "set activation_checkpointing (gradient_checkpointing), or leave out activation_checkpointing_kwargs "
            "(gradient_checkpointing_kwargs)",
        ),
        "fsdp_config": (not arguments.fsdp, "set fsdp, or leave it out"),
        "torch_empty_cache_steps": (
            arguments.device.type == "cpu",
            "leave it out, a processor has no cache to empty",
        ),
        **dict.fromkeys(
            ("hub_private_repo", "hub_revision"),
            (not arguments.push_to_hub, "set push_to_hub, or leave it out, nothing is uploaded"),
        ),
        "run_name": (not named, "leave it out, no logger in report_to shows it"),
        "optim_target_modules": (
            not str(arguments.optim.value).startswith(("galore", "apollo")),
            f"leave it out, optim: {arguments.optim.value} trains all modules alike",
        ),
        **dict.fromkeys(
            ("project", "trackio_space_id", "trackio_bucket_id", "trackio_static_space_id"),
            ("trackio" not in arguments.report_to, "set report_to to trackio, to which it belongs, or leave it out"),
        ),
        "generation_num_beams": (
            arguments.eval_strategy.value == "no" and not arguments.eval_on_start,
            "set eval_strategy, there is no validation; the test has the beams of generation: {num_beams: ...}",
        ),
        "metric_for_best_model": (
            not compares_checkpoints(recipe, arguments),
            "leave it out, or set load_best_model_at_end or early_stopping_patience: no checkpoints are compared",
        ),
    }
    for name, kinds in OF_BATCHING.items():
        unfit[name] = (
            batching not in kinds,
            f"leave it out, with batching: {batching} nothing reads it; it belongs to {' and '.join(kinds)}",
        )
    for item in (*fields(recipe), *fields(arguments)):
        idle, reason = unfit.get(item.name, (False, ""))
        value = getattr(recipe if hasattr(recipe, item.name) else arguments, item.name)
        if idle and value != _default(item):
            raise InputError(f"{item.name} is {shown(value)}, which does nothing: {reason}")
    workers = arguments.dataloader_num_workers
    for name in ("dataloader_persistent_workers", "dataloader_multiprocessing_context"):
        if getattr(arguments, name) and workers == 0:
            value = shown(getattr(arguments, name))
            raise InputError(f"{name} is {value}, which does nothing: set dataloader_num_workers, or leave it out")


def shown(value: Any) -> str:
    """A value as YAML has it."""
    return str(value).lower() if isinstance(value, bool) else repr(value)


def compares_checkpoints(recipe: RecipeArguments, arguments: RunArguments) -> bool:
    """Whether one evaluation is held against another."""
    return bool(
        arguments.load_best_model_at_end
        or recipe.early_stopping_patience
        or recipe.average_checkpoints
        or arguments.save_strategy.value == "best"
        or arguments.lr_scheduler_type.value in ("reduce_lr_on_plateau", "greedy")
    )


def check_metric(arguments: RunArguments, task: Task, validation: Sequence[Example]) -> None:
    """Refuse a metric for the best model that no evaluation gives.

    Raises:
        ValueError: with those that the task has for the validation data.
    """
    name = arguments.metric_for_best_model
    if name is not None:
        check_choice("metric_for_best_model", name.removeprefix("eval_"), ["loss", *task.metric_names(validation)])


def _default(item: Field) -> Any:
    return item.default if item.default is not MISSING else item.default_factory()
