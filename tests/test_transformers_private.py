"""The private names of Transformers that this package overrides, calls or sets: all of them, with their signatures.

A new release of Transformers may change them without notice. Then a test here fails by name, before anything goes
wrong without a word. A use of another private name fails too, until it is written down here.
"""

import ast
import importlib
import inspect
import pkgutil
from functools import cache
from pathlib import Path

import pytest
import transformers
from transformers import GenerationConfig, GenerationMixin, Pipeline, PreTrainedModel, Trainer
from transformers.utils import PushToHubMixin

import crossmask

ROOT = Path(crossmask.__file__).parent
FOLDERS = sorted(path.parent.name for path in ROOT.glob("*/__init__.py"))
CLASSES = GenerationConfig, GenerationMixin, Pipeline, PreTrainedModel, PushToHubMixin, Trainer
OWNERS = {owner.__name__: owner for owner in CLASSES}

METHODS = {
    "GenerationConfig._get_default_generation_params": "",
    "GenerationMixin._assisted_decoding": (
        "input_ids, logits_processor, stopping_criteria, generation_config, synced_gpus, streamer, "
        "inputs_tensor, assistant_model, assistant_tokenizer, tokenizer, **model_kwargs"
    ),
    "GenerationMixin._beam_search": (
        "input_ids, logits_processor, stopping_criteria, generation_config, synced_gpus, **model_kwargs"
    ),
    "GenerationMixin._check_early_stop_heuristic": (
        "is_early_stop_heuristic_unsatisfied, running_beam_scores, beam_scores, is_sent_finished, cur_len, "
        "max_length, decoder_prompt_len, early_stopping, length_penalty"
    ),
    "GenerationMixin._expand_inputs_for_generation": "expand_size, is_encoder_decoder, input_ids, **model_kwargs",
    "GenerationMixin._get_candidate_generator": (
        "generation_config, input_ids, inputs_tensor, logits_processor, model_kwargs, assistant_model, "
        "target_tokenizer, assistant_tokenizer"
    ),
    "GenerationMixin._get_logits_processor": (
        "generation_config, input_ids_seq_length, encoder_input_ids, prefix_allowed_tokens_fn, "
        "logits_processor, device, model_kwargs, negative_prompt_ids, negative_prompt_attention_mask"
    ),
    "GenerationMixin._maybe_initialize_input_ids_for_generation": "inputs, bos_token_id, model_kwargs",
    "GenerationMixin._prepare_cache_for_generation": (
        "generation_config, model_kwargs, generation_mode, batch_size, max_cache_length"
    ),
    "GenerationMixin._prepare_decoder_input_ids_for_generation": (
        "batch_size, model_input_name, model_kwargs, decoder_start_token_id, device"
    ),
    "GenerationMixin._prepare_generated_length": (
        "generation_config, has_default_max_length, has_default_min_length, model_input_name, "
        "input_ids_length, inputs_tensor"
    ),
    "GenerationMixin._prepare_generation_config": "generation_config, **kwargs",
    "GenerationMixin._prepare_model_inputs": "inputs, bos_token_id, model_kwargs",
    "GenerationMixin._prepare_special_tokens": "generation_config, kwargs_has_attention_mask, device, batch_size",
    "GenerationMixin._prepare_static_cache": (
        "cache_implementation, batch_size, max_cache_len, prefill_chunk_size, model_kwargs"
    ),
    "GenerationMixin._prepare_text_encoder_decoder_kwargs_for_generation": (
        "inputs_tensor, model_kwargs, model_input_name, generation_config"
    ),
    "GenerationMixin._sample": (
        "input_ids, logits_processor, stopping_criteria, generation_config, synced_gpus, streamer, **model_kwargs"
    ),
    "GenerationMixin._update_model_kwargs_for_generation": (
        "outputs, model_kwargs, is_encoder_decoder, num_new_tokens"
    ),
    "GenerationMixin._validate_generation_mode": "generation_mode, generation_config, generation_mode_kwargs",
    "GenerationMixin._validate_model_kwargs": "model_kwargs",
    "Pipeline._forward": "input_tensors, **forward_parameters",
    "Pipeline._prepare_generate_kwargs": "generate_kwargs, **overrides",
    "Pipeline._sanitize_parameters": "**pipeline_parameters",
    "PreTrainedModel._finalize_model_loading": "model, load_config, loading_info",
    "PreTrainedModel._from_config": "config, **kwargs",
    "PreTrainedModel._get_resized_embeddings": "old_embeddings, new_num_tokens, pad_to_multiple_of, mean_resizing",
    "PreTrainedModel._init_weights": "module",
    "PreTrainedModel._resize_token_embeddings": "new_num_tokens, pad_to_multiple_of, mean_resizing",
    "PreTrainedModel._set_gradient_checkpointing": "enable, gradient_checkpointing_func, every_n_layers",
    "PushToHubMixin._upload_modified_files": (
        "working_dir, repo_id, files_timestamps, commit_message, token, create_pr, revision, commit_description"
    ),
    "Trainer._determine_best_metric": "metrics, trial",
    "Trainer._get_grad_norm": "model, grad_norm",
    "Trainer._get_num_items_in_batch": "batch_samples, device",
    "Trainer._init_training_state": (
        "max_steps, num_update_steps_per_epoch, num_train_epochs, resume_from_checkpoint, trial"
    ),
    "Trainer._load_callback_state": "",
    "Trainer._load_optimizer_and_scheduler": "checkpoint",
    "Trainer._maybe_log_save_evaluate": (
        "tr_loss, grad_norm, model, trial, epoch, ignore_keys_for_eval, start_time, learning_rate"
    ),
    "Trainer._prepare_inputs": "inputs",
    "Trainer._run_epoch": (
        "model, epoch, train_dataloader, steps_in_epoch, num_update_steps_per_epoch, trial, "
        "ignore_keys_for_eval, start_time, resume_from_checkpoint, epochs_trained, "
        "steps_trained_in_current_epoch"
    ),
    "Trainer._save_checkpoint": "model, trial",
}
"""Methods that are overridden or called, and the names of their parameters."""

ATTRIBUTES = {
    "_attn_implementation": "configuration_utils",  # the attention implementation of a config
    "_auto_class": "processing_utils",  # set where a processor was loaded from code files
    "_can_compile_fullgraph": "modeling_utils",
    "_can_record_outputs": "modeling_utils",  # hidden states and attentions, by the module that returns them
    "_decoder_start_token_tensor": "generation.utils",  # of a prepared generation config, as the next two
    "_eos_token_tensor": "generation.utils",
    "_pad_token_tensor": "generation.utils",
    "_fsdp_plan": "distributed.mixin",
    "_get_feat_extract_output_lengths": "models.whisper.modeling_whisper",  # the number of a speech encoder's states
    "_get_feature_vector_attention_mask": "models.speech_to_text.modeling_speech_to_text",  # their padding
    "_globalstep_last_logged": "trainer",  # the step of the log's last entry
    "_tr_loss": "trainer",  # the sum of losses since then
    "_total_loss_scalar": "trainer",  # the sum of those before
    "_gen_kwargs": "trainer_seq2seq",  # what `evaluate` passes on to generation
    "_generation_defaults": "pipelines.base",  # what generates where neither the model nor the call says so
    "_is_user_defined": "generation.utils",  # of a cache that the caller gave
    "_is_hf_initialized": "initialization",  # keeps a loaded weight from being drawn anew
    "_keys_to_ignore_on_save": "modeling_utils",
    "_load_feature_extractor": "pipelines.base",  # what `pipeline` loads beside the model, as the next four
    "_load_image_processor": "pipelines.base",
    "_load_processor": "pipelines.base",
    "_load_tokenizer": "pipelines.base",
    "_load_video_processor": "pipelines.base",
    "_is_stateful": "modeling_utils",
    "_model_mapping": "models.auto.auto_factory",  # the configs that an Auto class knows
    "_no_split_modules": "modeling_utils",
    "_pipeline_calls_generate": "pipelines.base",
    "_reorder_cache": "generation.utils",  # is asked for where a model has one
    "_skip_keys_device_placement": "modeling_utils",
    "_supports_attention_backend": "modeling_utils",
    "_supports_flash_attn": "modeling_utils",
    "_supports_flex_attn": "modeling_utils",
    "_supports_sdpa": "modeling_utils",
    "_tied_weights_keys": "modeling_utils",
    "_tp_plan": "distributed.mixin",
    "create_masks_for_generate": "generation.utils",  # is asked for where a model has one
}
"""Attributes that are read or set, and the module of Transformers that speaks of them."""

OTHERS = {
    # torch
    "_C",
    "_are_functorch_transforms_active",
    "_backward_hooks",
    "_backward_pre_hooks",
    "_current_level",
    "_forward_hooks",
    "_forward_pre_hooks",
    "_global_backward_hooks",
    "_global_backward_pre_hooks",
    "_global_forward_hooks",
    "_global_forward_pre_hooks",
    "_is_amx_tile_supported",
    "_is_avx512_bf16_supported",
    "_last_lr",
    "_metadata",
    "_version",
    # argparse
    "_actions",
    "_option_string_actions",
    # collections, of named tuples
    "_asdict",
    # abc, of every class that has abstract bases
    "_abc_impl",
}
"""Private names of other libraries."""


@pytest.mark.parametrize("name", METHODS)
def test_a_private_method_has_the_signature_that_we_count_on(name):
    owner, _, method = name.partition(".")
    function = getattr(OWNERS[owner], method, None)
    assert function is not None, f"{name} is gone from transformers {transformers.__version__}"
    stars = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}
    parameters = inspect.signature(function).parameters.values()
    found = ", ".join(stars.get(one.kind, "") + one.name for one in parameters if one.name != "self")
    assert found == METHODS[name]


@pytest.mark.parametrize("name", ATTRIBUTES)
def test_a_private_attribute_is_still_spoken_of(name):
    module = importlib.import_module(f"transformers.{ATTRIBUTES[name]}")
    assert name in inspect.getsource(module), f"transformers {transformers.__version__} does not use {name} there"


def test_every_private_name_is_written_down():
    known = {name.partition(".")[2] for name in METHODS} | ATTRIBUTES.keys() | OTHERS
    assert overridden() | used() <= known, sorted((overridden() | used()) - known)
    assert known - OTHERS <= overridden() | used() | {"_reorder_cache", "create_masks_for_generate"} | stored()


def overridden() -> set[str]:
    """Private names that classes of ours take over from a class of Transformers."""
    found = set()
    for module in modules():
        for ours in filter(inspect.isclass, vars(module).values()):
            bases = [base for base in ours.__mro__[1:] if base.__module__.partition(".")[0] == "transformers"]
            if ours.__module__.startswith("crossmask.") and bases:
                found |= {name for name in map(str, vars(ours)) if any(name in vars(base) for base in bases)}
    return {name for name in found if is_private(name)}


def used() -> set[str]:
    """Private names that are looked up in something that is not ours: `super()._name`, or none of ours is so named."""
    ours: set[str] = set()
    read: set[str] = set()
    inherited: set[str] = set()
    for node in nodes():
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                ours.add(name)
            case ast.Attribute(attr=name, ctx=ast.Store()) | ast.Name(id=name, ctx=ast.Store()):
                ours.add(name)
            case ast.Attribute(value=ast.Call(func=ast.Name(id="super")), attr=name):
                inherited.add(name)
            case ast.Attribute(attr=name):
                read.add(name)
    return {name for name in inherited | read - ours if is_private(name)}


def stored() -> set[str]:
    """Names of attributes that are set."""
    return {node.attr for node in nodes() if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)}


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


@cache
def modules() -> list:
    """All modules of the package but the commands, the metrics, which are scripts, and SimulEval's agent."""
    paths = [str(ROOT / folder) for folder in FOLDERS]
    names = [f"crossmask.{folder}" for folder in FOLDERS]
    for folder, path in zip(FOLDERS, paths, strict=True):
        names += [found.name for found in pkgutil.walk_packages([path], f"crossmask.{folder}.")]
    left_out = ("__main__", "simuleval_agent", "plotting", "metrics")
    return [importlib.import_module(name) for name in names if not any(part in name for part in left_out)]


@cache
def nodes() -> list[ast.AST]:
    files = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")]
    return [node for path in files for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))]
