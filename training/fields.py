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
from .muon import OwnOptimizer

if TYPE_CHECKING:
    from .run_arguments import RunArguments

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
_ALWAYS = "train.py always trains, validates and tests"
_LOADER = "batches are dealt out by `batching` in a fixed order, so that a run resumes exactly"
_TEXTS = "a run is judged by what its task predicts"
REFUSED = {
    "per_device_eval_batch_size": "set eval_tokens, the tokens in an evaluation batch",
    "eval_accumulation_steps": "evaluation keeps no logits; to save memory lower eval_tokens",
    "eval_do_concat_batches": _TEXTS,
    "eval_use_gather_object": _TEXTS,
    "include_for_metrics": _TEXTS,
    "batch_eval_metrics": _TEXTS,
    "prediction_loss_only": _TEXTS,
    "predict_with_generate": _TEXTS,
    "label_names": "the labels are called `labels`",
    "generation_max_length": "set generation: {max_new_tokens: ...} in the recipe",
    "generation_config": "give its fields as `generation` in the recipe",
    "sortish_sampler": "set batching to buckets, which are examples of similar length",
    "train_sampling_strategy": "set `batching`: examples (shuffled), buckets (of similar length), packed or stream",
    "length_column_name": "lengths are counted; for batches of similar length set batching to buckets",
    "remove_unused_columns": "batches are made of what is needed",
    "accelerator_config": _LOADER,
    "dataloader_in_order": _LOADER,
    "data_seed": "set seed, which also gives the order of the data",
    "auto_find_batch_size": "set per_device_train_batch_size or batch_tokens: a smaller batch is another run",
    "bf16_full_eval": "set bf16, evaluation computes as training does",
    "fp16_full_eval": "set fp16, evaluation computes as training does",
    "use_liger_kernel": "Liger has no kernels for crossmask, whose loss is fused",
    "liger_kernel_config": "Liger has no kernels for crossmask",
    "use_cache": "training reads whole targets at once and has no use for a cache",
    "logging_nan_inf_filter": "a loss that is not finite ends the run",
    "enable_jit_checkpoint": "set save_steps, a run that is stopped goes on from its last checkpoint",
    "hub_strategy": "the folder is uploaded once, when it is whole",
    "hub_always_push": "the folder is uploaded once, when it is whole",
    "do_train": _ALWAYS,
    "do_eval": _ALWAYS,
    "do_predict": _ALWAYS,
    "local_rank": "start several processes with torchrun, which tells each its rank",
}
# Values beside the default that come to the same as what is done.
ALLOWED: dict[str, tuple[Any, ...]] = {"accelerator_config": ({},), "hub_strategy": ("end",)}


def check_obeyed(arguments: RunArguments) -> None:
    """Refuse what would be ignored, as the arguments were given.

    Raises:
        InputError: with the field and what to do instead.
    """
    for item in fields(arguments):
        name, value = item.name, getattr(arguments, item.name)
        if not item.init or name in OBEYED or value == default_of(item) or value in ALLOWED.get(name, ()):
            continue
        reason = REFUSED.get(name, "crossmask does not know this field of this version of Transformers")
        raise InputError(f"{name} must be left out, got {shown(value)}; {reason}")


def check_enums(arguments: RunArguments) -> None:
    """Refuse names that are none of a field's choices: of schedulers, optimizers, strategies.

    Raises:
        InputError: with the choices.
    """
    hints = get_type_hints(Seq2SeqTrainingArguments)  # RunArguments declares its new defaults as text
    for item in fields(Seq2SeqTrainingArguments):
        kinds = [kind for kind in get_args(hints[item.name]) if isinstance(kind, type) and issubclass(kind, Enum)]
        value = getattr(arguments, item.name)
        if kinds and not isinstance(value, Enum | list):
            own = OwnOptimizer if item.name == "optim" else ()
            check_choice(item.name, value, [one.value for one in (*kinds[0], *own)])


def shown(value: Any) -> str:
    """A value as YAML has it."""
    return str(value).lower() if isinstance(value, bool) else repr(value)


def default_of(item: Field) -> Any:
    return item.default if item.default is not MISSING else item.default_factory()
