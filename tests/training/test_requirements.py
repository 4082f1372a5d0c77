"""What is not installed or not possible here is said before anything is read."""

from importlib.util import find_spec

import pytest
import torch
import yaml
from new_process import run_code
from training_jobs import NO_DATA, SIZES, job_of, recipe_file

from crossmask.training.parsing import parse_run
from crossmask.training.run import prepare
from crossmask.utils.errors import InputError

CASES = [
    ({"report_to": "wandb"}, "report_to is wandb, which needs a package that is not installed: pip install wandb"),
    ({"report_to": ["none", "tensorboard"]}, "report_to must have none alone"),
    ({"report_to": "wandbb"}, "report_to must be one of .*, got 'wandbb'; did you mean 'wandb'"),
    ({"optim": "adamw_bnb_8bit"}, "optim must be .*, got adamw_bnb_8bit .*pip install -U bitsandbytes"),
    ({"optim": "galore_adamw"}, "optim must be .*, got galore_adamw .*pip install"),
    ({"optim": "adamw_torch_xla"}, "optim must be an optimizer that works here, got adamw_torch_xla"),
    ({"optim": "sgd", "optim_args": "momentum=fast"}, "got sgd with optim_args 'momentum=fast'"),
    ({"optim": "sgd", "optim_args": "momentum"}, "got sgd with optim_args 'momentum'"),
    ({"optim": "sgd", "optim_args": "speed=3"}, "optim_args must be options of optim: sgd, got 'speed'"),
    ({"optim_args": "momentum=0.9"}, "optim_args must be options of optim: adamw_torch_fused, got 'momentum'"),
    ({"optim_args": "eps=1e-6"}, "optim_args must be options of optim: adamw_torch_fused, got 'eps'"),
    ({"optim": "adafactor", "optim_args": "relative_step=True"}, "must be options of optim: adafactor, got 'relative"),
    ({"optim": "sgd", "optim_args": "lr=5"}, "optim_args must be without lr, got 5; set learning_rate instead"),
    (
        {"optim": "rmsprop", "optim_args": "weight_decay=0.1"},
        "must be without weight_decay, got 0.1; set",
    ),
    ({"optim": "sgd", "optim_args": "momentum=0.9,momentum=0.8"}, "must name each option once, got momentum twice"),
    ({"optim": "sgd", "optim_args": "dampening=nan"}, "optim_args dampening must be a finite number, got 'nan'"),
    ({"optim": "sgd", "optim_args": "momentum=1.5"}, "optim_args momentum must be less than 1, got '1.5'"),
    ({"optim": "sgd", "optim_args": "momentum=0.9,nesterov=banana"}, "nesterov must be true or false, got 'banana'"),
    ({"fp16": True, "use_cpu": True}, "fp16 must be false on a processor, got true; set bf16: auto"),
    ({"optim": "sgd", "adam_beta2": 0.98}, "adam_beta2 must be left out with optim: sgd, which has none, got 0.98"),
    (
        {"lr_scheduler_type": "cosine", "lr_scheduler_kwargs": {"peaks": 3}},
        "lr_scheduler_kwargs must be options of lr_scheduler_type: cosine, got .*peaks",
    ),
    ({"lr_scheduler_type": "constant", "lr_scheduler_kwargs": {"a": 3}}, "must be left out with .* constant, got"),
    (
        {"lr_scheduler_type": "constant", "warmup_steps": 3},
        "warmup_steps must be left out with lr_scheduler_type: constant, got 3",
    ),
    (
        {"optim": "schedule_free_adamw", "lr_scheduler_type": "linear"},
        "lr_scheduler_type must be constant with optim: schedule_free_adamw, got linear; set it",
    ),
    (
        {"optim": "schedule_free_radam", "lr_scheduler_type": "constant", "warmup_steps": 3},
        "warmup_steps must be left out with optim: schedule_free_radam, which needs none, got 3",
    ),
    ({"max_steps": 30, "warmup_steps": 30}, "warmup_steps must be fewer than the run's 30 steps, got 30; lower it"),
    (
        {
            "max_steps": 30,
            "warmup_steps": 0.2,
            "lr_scheduler_type": "warmup_stable_decay",
            "lr_scheduler_kwargs": {"num_decay_steps": 25},
        },
        r"warmup_steps \(6\) and lr_scheduler_kwargs \({'num_decay_steps': 25}, 25 steps\) must be at most "
        "the run's 30 steps together; lower one, or train for longer",
    ),
    (
        {"torch_compile_backend": "inducter"},
        "torch_compile_backend must be .*, got 'inducter'; did you mean 'inductor'",
    ),
    ({"torch_compile_mode": "fastest"}, "torch_compile_mode must be one of .*, got 'fastest'"),
    ({"attn_implementation": "some/kernel"}, "attn_implementation is some/kernel, .*pip install kernels"),
    ({"deepspeed": "zero.json"}, "deepspeed is 'zero.json', .*pip install deepspeed"),
    ({"multipath_k": [1, 2**40]}, "multipath_k must be at most max_source_length=256"),
    ({"model": {**SIZES, "vocab_size": 2**40}}, "vocab_size must be less than"),
    ({"model": {**SIZES, "vocab_size": 2**31 - 1}}, "parameters, which take .* GiB, and this machine has"),
    (
        {"model": {**SIZES, "hidden_size": 2**30, "intermediate_size": 2**30}},
        "which take .* GiB, and this machine has",
    ),
    ({"model": {**SIZES, "rope_parameters": {"rope_type": "spiral"}}}, "rope_type"),
    (
        {"model": {**SIZES, "rope_parameters": {"rope_theta": float("nan")}}},
        "model.rope_parameters.rope_theta must be a finite number, got nan",
    ),
    (
        {"model": {**SIZES, "initializer_range": float("inf")}},
        "model.initializer_range must be a finite number, got inf",
    ),
    ({"model": {**SIZES, "dropout": 3.0}}, "model: dropout must be"),
    ({"model": {**SIZES, "dropout": "much"}}, "model: .*dropout"),
    ({"train": [{"format": "cldr", "size": float("inf")}]}, r"train\[0\].size must be a finite number, got inf"),
    ({"generation": {"num_beams": 0}}, "generation.num_beams must be at least 1, got 0"),
    ({"generation": {"num_beams": -1}}, "generation.num_beams must be at least 1, got -1"),
    ({"generation": {"num_beams": 4, "num_beam_groups": 3}}, "generation.num_beam_groups must be left out, got 3"),
    ({"generation": {"max_new_tokens": 9999}}, "generation.max_new_tokens must be at most 256"),
    ({"generation": {"dola_layers": "low"}}, "generation asks for dola generation"),
    ({"generation": {"temperature": float("nan")}}, "generation.temperature must be a finite number, got nan"),
    ({"generation": {"early_stopping": [1]}}, r"generation.early_stopping must be true or false or never, got \[1\]"),
    ({"generation": {"suppress_tokens": "abc"}}, "generation.suppress_tokens must be a list, .*, got 'abc'"),
    ({"generation": {"eos_token_id": 1}}, "generation.eos_token_id must be left out, got 1; it is the tokenizer's"),
    ({"generation": {"output_scores": True}}, "generation.output_scores must be left out, got True"),
    ({"generation": {"max_time": -1.0}}, "generation.max_time must be a finite number above 0, got -1.0"),
    ({"model": {**SIZES, "dtype": "abc"}}, "model has no setting 'dtype'"),
    ({"model": {**SIZES, "id2label": 3}}, "model has no setting 'id2label'"),
    ({"tokenizer": {"special_tokens": 3}}, "tokenizer special_tokens must be a list, each item text, got 3"),
    ({"tokenizer": {"special_tokens": "abc"}}, "tokenizer special_tokens must be a list, each item text, got 'abc'"),
    ({"tokenizer": {"special_tokens": [""]}}, "tokenizer special_tokens must be texts that are not empty"),
    ({"tokenizer": {"vocab_size": 2**70}}, "tokenizer vocab_size must be from 1 to"),
    ({"tokenizer": {"vocab_size": "x"}}, "tokenizer vocab_size must be a whole number, got 'x'"),
    ({"tokenizer": {"algorithm": 3}}, "tokenizer algorithm must be one of bpe, unigram, got 3"),
    ({"tokenizer": {"model_max_length": 9}}, "tokenizer has no setting 'model_max_length'"),
    ({"tokenizer": {"texts": ["a"]}}, "tokenizer has no setting 'texts'"),
]
NEEDED = {"wandb": "wandb", "comet": "comet_ml", "bnb": "bitsandbytes", "galore": "galore_torch", "kernel": "kernels"}


@pytest.mark.parametrize(("values", "message"), CASES, ids=str)
def test_it_is_one_line_before_the_data_is_read(tmp_path, values, message):
    """The data is nowhere, so that reading it first would be another error."""
    if any(word in str(values) and find_spec(package) for word, package in NEEDED.items()):
        pytest.skip("installed here")
    path = tmp_path / "needs.yaml"
    path.write_text(yaml.safe_dump({**NO_DATA, "model": SIZES, "output_dir": str(tmp_path / "run"), **values}))
    with pytest.raises(InputError, match=message) as error:
        prepare(parse_run([str(path)], command="c"))
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.skipif(torch.accelerator.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("version", [2, 3, 4])
def test_flash_attention_needs_a_gpu(tmp_path, version):
    path = tmp_path / "flash.yaml"
    path.write_text(yaml.safe_dump({**NO_DATA, "attn_implementation": f"flash_attention_{version}"}))
    with pytest.raises(InputError, match=f"must be .* without a GPU, got flash_attention_{version}"):
        prepare(parse_run([str(path)], command="c"))


MISSING = {
    "matplotlib": "matplotlib must be installed to draw figures; run: pip install 'crossmask[plots]'",
    "sacrebleu": "the metric seq2seq_translation needs sacrebleu, which is not installed; pip install sacrebleu",
}


def test_a_missing_library_is_named_before_the_data_is_read(tmp_path):
    path = tmp_path / "needs.yaml"
    path.write_text(yaml.safe_dump({**NO_DATA, "model": SIZES, "output_dir": str(tmp_path / "run")}))
    code = """
    import contextlib, io

    path, *libraries = sys.argv[1:]
    sys.modules.update(dict.fromkeys(libraries))  # none of which can be imported
    from crossmask.train import main

    for library in libraries:
        for other in libraries:
            sys.modules.pop(other, None)
        sys.modules[library] = None
        with contextlib.redirect_stderr(io.StringIO()) as error:
            assert main([path]) == 2
        print(error.getvalue().splitlines()[-1])
    """
    found = run_code(code, path, *MISSING, cwd=tmp_path, has_crossmask=True)
    assert found.splitlines() == [f"train.py: {message}" for message in MISSING.values()]
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("schedule", ["linear", "cosine", "constant_with_warmup", "inverse_sqrt"])
def test_a_schedule_longer_than_its_epochs_is_refused_before_the_first_step(tmp_path, schedule):
    recipe = recipe_file(tmp_path, max_steps=-1, num_train_epochs=1, lr_scheduler_type=schedule, warmup_steps=10_000)
    job = job_of(recipe)
    with pytest.raises(InputError, match=r"warmup_steps must be fewer than the run's \d+ steps, got 10000"):
        job.trainer.train()
    assert job.trainer.state.global_step == 0
