"""Every argument of Transformers' trainer is obeyed or refused, and none is ignored."""

from dataclasses import MISSING, fields
from pathlib import Path

import pytest
import yaml
from training_jobs import NO_DATA
from transformers import Seq2SeqTrainingArguments

from crossmask.training import fields as table
from crossmask.training.parsing import parse_run
from crossmask.training.run_arguments import RunArguments
from crossmask.utils.errors import InputError

# Values of the types that fields without a telling default have.
OTHER = {
    "eval_accumulation_steps": 2,
    "label_names": ["labels"],
    "generation_max_length": 9,
    "generation_config": "folder",
    "train_sampling_strategy": "group_by_length",
    "accelerator_config": {"even_batches": False},
    "data_seed": 7,
    "liger_kernel_config": {"rope": True},
    "hub_strategy": "checkpoint",
    "include_for_metrics": ["inputs"],
}


def test_every_field_is_in_one_table():
    names = {item.name for item in fields(Seq2SeqTrainingArguments)}
    unknown = names - table.OBEYED - set(table.REFUSED)
    assert not unknown, f"decide in training/fields.py whether a run obeys {sorted(unknown)}"
    assert not table.OBEYED & set(table.REFUSED)


@pytest.mark.parametrize("name", sorted(table.REFUSED))
def test_what_would_be_ignored_is_refused(tmp_path, name):
    item = RunArguments.__dataclass_fields__.get(name)
    if item is None:
        pytest.skip("not in this version of Transformers")
    default = None if item.default is MISSING else item.default
    value = OTHER.get(name, not default if isinstance(default, bool) else "other" if isinstance(default, str) else 3)
    with pytest.raises(InputError, match=rf"^{name} must be left out, got .*; ") as error:
        RunArguments(str(tmp_path), **{name: value})
    assert "\n" not in str(error.value)


def test_defaults_are_accepted(tmp_path):
    given = {}
    for name in table.REFUSED:
        item = RunArguments.__dataclass_fields__[name]
        given[name] = item.default_factory() if item.default is MISSING else item.default
    RunArguments(str(tmp_path), report_to="none", **given)


def test_a_field_that_is_not_in_the_table_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(table, "OBEYED", table.OBEYED - {"neftune_noise_alpha"})
    with pytest.raises(
        InputError, match=r"neftune_noise_alpha must be left out, got 5.0; crossmask does not know this"
    ):
        RunArguments(str(tmp_path), neftune_noise_alpha=5.0)


IDLE = [
    (
        {"dataloader_drop_last": True, "batching": "buckets"},
        "dataloader_drop_last must be left out, got true; with batching",
    ),
    (
        {"dataloader_drop_last": True, "batching": "stream"},
        "dataloader_drop_last must be left out, got true; with batching",
    ),
    ({"per_device_train_batch_size": 3, "batching": "buckets"}, "must be left out, got 3; set batch_tokens"),
    (
        {"dataloader_persistent_workers": True, "dataloader_num_workers": 1, "batching": "packed"},
        "every epoch has other rows",
    ),
    ({"dataloader_persistent_workers": True}, "must be left out without dataloader_num_workers, got true"),
    ({"dataloader_multiprocessing_context": "fork"}, "must be left out without dataloader_num_workers, got 'fork'"),
    ({"torch_empty_cache_steps": 3, "use_cpu": True}, "a processor has no cache to empty"),
    ({"hub_revision": "dev"}, "set push_to_hub"),
    ({"hub_token": "hf_abcDEF123456789"}, r"hub_token must be left out, got '\*\*\*'; set push_to_hub"),
    ({"model_name_or_path": "folder", "tokenizer": {"vocab_size": 99}}, "tokenizer must be left out, .* of its own"),
    ({"num_train_epochs": 0}, "num_train_epochs must be more than 0, got 0"),
    ({"hub_private_repo": True}, "set push_to_hub"),
    ({"run_name": "first"}, "no logger in report_to shows it"),
    ({"project": "mine"}, "set report_to to trackio"),
    ({"optim_target_modules": "all-linear"}, "optim: adamw_torch_fused trains all modules alike"),
    ({"early_stopping_patience": 2, "eval_strategy": "no", "load_best_model_at_end": False}, "no metric to stop by"),
    ({"generation_num_beams": 2, "eval_strategy": "no", "load_best_model_at_end": False}, "there is no validation"),
    (
        {"metric_for_best_model": "loss", "load_best_model_at_end": False},
        "no checkpoints are compared without load_best_model_at_end or early_stopping_patience",
    ),
    ({"source_row_length": 64}, "source_row_length must be left out, got 64; .*it belongs to packed and stream"),
    ({"target_row_length": 64, "batching": "buckets"}, "target_row_length must be left out, got 64; with batching"),
    ({"batch_tokens": 64, "batching": "packed"}, "batch_tokens must be left out, got 64; .*it belongs to buckets"),
    ({"stream_buffer": 64}, "stream_buffer must be left out, got 64; .*it belongs to stream"),
    ({"tokenizer_examples": 64}, "tokenizer_examples must be left out, got 64; with batching"),
    (
        {"gradient_checkpointing_kwargs": {"use_reentrant": True}},
        r"set gradient_checkpointing \(activation_checkpointing\) with it",
    ),
    ({"eval_strategy": "epoch", "eval_steps": 5}, "eval_steps must be left out, got 5; set eval_strategy to steps"),
    ({"save_strategy": "epoch", "save_steps": 5}, "save_steps must be left out, got 5; set save_strategy to steps"),
    ({"logging_strategy": "epoch", "logging_steps": 5}, "logging_steps must be left out, got 5; set logging_strategy"),
    ({"greater_is_better": False}, "greater_is_better must be left out without metric_for_best_model, got False"),
    *(
        ({**stream, "tokenizer_examples": 5}, "tokenizer_examples must be left out, got 5; no tokenizer is trained")
        for stream in (
            {"batching": "stream", "model_name_or_path": "folder"},
            {"batching": "stream", "tokenizer": "folder"},
        )
    ),
    ({"fsdp_config": {"version": 2}}, "set fsdp, to which it belongs"),
    ({"debug": "tpu_metrics_debug"}, "must not be tpu_metrics_debug without a TPU"),
    ({"fsdp": True}, "must be left out in one process, got .*; start train.py with torchrun"),
    ({"fsdp": "true"}, "must be left out in one process, got .*; start train.py with torchrun"),
    ({"tf32": True, "use_cpu": True}, "tf32"),
    ({"lr_scheduler_type": "cosin"}, "lr_scheduler_type must be one of .*, got 'cosin'; did you mean 'cosine'"),
    ({"optim": "adamw"}, "optim must be one of .*, got 'adamw'"),
    ({"save_strategy": "sometimes"}, "save_strategy must be one of .*, got 'sometimes'"),
]


@pytest.mark.parametrize(("values", "message"), IDLE, ids=str)
def test_what_other_settings_make_idle_is_refused(tmp_path, values, message):
    path = tmp_path / "idle.yaml"
    path.write_text(yaml.safe_dump({**NO_DATA, **values}))
    with pytest.raises(InputError, match=message) as error:
        parse_run([str(path)], command="c")
    assert "\n" not in str(error.value)


NUMBERS = [
    item.name
    for item in fields(Seq2SeqTrainingArguments)
    if item.type in (int, float, int | None, float | None) and item.name not in table.REFUSED
]


@pytest.mark.parametrize("name", NUMBERS)
def test_no_number_is_negative_infinite_or_beyond_reason(tmp_path, name):
    for value in (-2, 10**400, *(() if "int" in str(RunArguments.__annotations__.get(name)) else ("nan", "inf"))):
        value = float(value) if isinstance(value, str) else value
        with pytest.raises(InputError, match=rf"{name} (is .*: expected|must be) "):
            RunArguments(str(tmp_path), report_to="none", **{name: value})


WRONG = [-1, 1.5, "abc", "", True, [], {}, [1], {"a": 1}, None]


@pytest.mark.parametrize("name", sorted(table.OBEYED - {"output_dir", "deepspeed"}))
def test_a_value_of_any_type_is_taken_or_refused_on_one_line(tmp_path, name):
    """No value of a recipe ends in another exception, nor as an attribute that Transformers cannot read."""
    for value in WRONG:
        path = tmp_path / "wrong.yaml"
        path.write_text(yaml.safe_dump({**NO_DATA, "output_dir": str(tmp_path), name: value}))
        message = _refusal(path)
        assert message is None or (name in message and "\n" not in message)


def _refusal(path: Path) -> str | None:
    """What a recipe is refused with."""
    try:
        assert parse_run([str(path)], command="c").arguments.get_process_log_level() >= 0
    except InputError as error:
        return str(error)
    return None


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"metric_for_best_model": 3}, "metric_for_best_model must be text, got 3; put it in quotes"),
        ({"hub_model_id": True}, "hub_model_id must be text, got True"),
        ({"model_name_or_path": ""}, "model_name_or_path must not be empty; give it a value, or leave it out"),
        ({"gradient_checkpointing": True, "gradient_checkpointing_kwargs": [1]}, "must be a mapping"),
        ({"activation_checkpointing": True, "activation_checkpointing_kwargs": "abc"}, "must be a mapping, got"),
        ({"log_level": "loud"}, "log_level must be one of .*, got 'loud'"),
        ({"debug": [1]}, r"debug must be text or a list .*, got \[1\]"),
        ({"debug": ["overflow"]}, r"debug must be one of underflow_overflow, .*, got 'overflow'"),
    ],
    ids=str,
)
def test_text_lists_and_mappings_are_held_against_their_types(tmp_path, values, message):
    path = tmp_path / "types.yaml"
    path.write_text(yaml.safe_dump({**NO_DATA, **values}))
    with pytest.raises(InputError, match=message):
        parse_run([str(path)], command="c")


def test_a_whole_number_serves_where_a_number_is_asked_for(tmp_path):
    assert RunArguments(str(tmp_path), report_to="none", adam_beta1=0).adam_beta1.hex() == (0.0).hex()
