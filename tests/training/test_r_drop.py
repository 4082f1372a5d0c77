"""R-Drop: runs of every kind of encoder-decoder, and what is refused. seq2seq/test_agreement.py has its loss."""

import json
from itertools import product
from pathlib import Path

import pytest
import torch
from encoder_decoders import model_fields
from saved_parts import save_parts
from training_jobs import SIZES, assert_goes_on, job_of, recipe_file, trained

from crossmask.seq2seq.agreement import agreeing_cross_entropy
from crossmask.tasks import get_task
from crossmask.training.r_drop import twice
from crossmask.utils.errors import InputError

pytestmark = pytest.mark.usefixtures("without_drawing")
DROPPING = {**SIZES, "dropout": 0.2}
NEARLY_NONE = 1e-12  # a rate at which nothing is dropped
MODELS = {
    "crossmask": {**SIZES, "dropout": NEARLY_NONE},
    "bart": {**model_fields("bart"), "dropout": NEARLY_NONE},
    "t5": {**model_fields("t5"), "dropout_rate": NEARLY_NONE},
}
LAYERS_ALONE = {**model_fields("bart"), "encoder_layerdrop": 0.5}  # for both passes alike
WAYS_TO_TRAIN = (
    {"bf16": True},
    {"gradient_checkpointing": True},
    {"lora": {"r": 2, "target_modules": ["q_proj"]}},
)
COMPILED = {"torch_compile": True, "torch_compile_backend": "eager"}
NOWHERE = {"format": "tsv", "path": "nowhere.tsv"}


def test_all_of_a_batch_is_there_twice():
    rows, state = torch.arange(6).view(2, 3), torch.zeros(2, 3, 4)
    doubled = twice({"input_ids": rows, "encoder_outputs": (state,), "cross_mask": "full()"})
    assert doubled["input_ids"].tolist() == [*rows.tolist(), *rows.tolist()]
    assert doubled["encoder_outputs"][0].shape == (4, 3, 4)
    assert doubled["cross_mask"] == "full()"


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("batching", ["examples", "packed"])
def test_passes_that_agree_train_as_one_does(tmp_path, model, batching):
    weights = []
    for number, options in enumerate(({}, {"r_drop": 4.0})):
        place = tmp_path / str(number)
        place.mkdir()
        recipe = recipe_file(place, model=MODELS[model], batching=batching, label_smoothing_factor=0.1, **options)
        weights.append(trained(job_of(recipe))[1])
    torch.testing.assert_close(weights[1], weights[0], rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("model", "changes"),
    # Not Adam for BART, whose keys have biases without a gradient: that magnifies what is left of rounding.
    [
        *product(("crossmask", "bart"), WAYS_TO_TRAIN),
        ("crossmask", {"optim": "muon"}),
        *(pytest.param(model, COMPILED, marks=pytest.mark.slow) for model in ("crossmask", "bart")),
    ],
    ids=lambda value: value if isinstance(value, str) else next(iter(value)),
)
def test_passes_that_agree_train_as_one_does_in_every_way(tmp_path, model, changes):
    weights = []
    for number, options in enumerate(({}, {"r_drop": 4.0})):
        place = tmp_path / str(number)
        place.mkdir()
        changes = {"max_steps": 2, "save_strategy": "no", **changes}
        weights.append(trained(job_of(recipe_file(place, model=MODELS[model], **changes, **options)))[1])
    # Muon takes steps of one size in all directions, whatever the gradient's size is there.
    tolerance = 2e-3 if "bf16" in changes else 1e-4 if "optim" in changes else 1e-6
    torch.testing.assert_close(weights[1], weights[0], rtol=0, atol=tolerance)


def test_a_bridge_reads_the_kept_states_of_its_encoder_twice(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "cache"))
    fields = {
        **save_parts(tmp_path),
        "freeze": ["encoder"],
        "cache_encoder": True,
        "model": {"decoder_dropout": NEARLY_NONE},
    }
    weights = []
    for name, options in (("once", {}), ("twice", {"r_drop": 4.0})):
        recipe = recipe_file(tmp_path, **fields, **options)
        weights.append(trained(job_of(recipe, "--output_dir", str(tmp_path / name)))[1])
    torch.testing.assert_close(weights[1], weights[0], rtol=0, atol=1e-6)


def test_passes_come_closer(tmp_path):
    """The divergence of two passes over the same batch after training with next to no weight, and with a large one."""
    found = []
    for number, alpha in enumerate((1e-9, 20.0)):
        place = tmp_path / str(number)
        place.mkdir()
        job = job_of(recipe_file(place, model=DROPPING, r_drop=alpha, max_steps=20, save_strategy="no"))
        trained(job)
        batch = next(iter(job.trainer.get_train_dataloader()))
        torch.manual_seed(0)
        with torch.no_grad():
            logits = job.trainer.model.train()(**twice(batch)).logits
        labels = batch["labels"]
        found.append(agreeing_cross_entropy(logits, labels) - agreeing_cross_entropy(logits, labels, alpha=0.0))
    assert found[1] < 0.8 * found[0]


@pytest.mark.parametrize("model", ["crossmask", "t5"])
def test_micro_batches_give_the_step_of_one(tmp_path, model):
    # The halves differ in a way that does not depend on the batch, which drawn dropout does.
    weights = []
    for size, accumulation in ((4, 1), (1, 4)):
        place = tmp_path / str(size)
        place.mkdir()
        changes = {"per_device_train_batch_size": size, "gradient_accumulation_steps": accumulation, "max_steps": 2}
        job = job_of(recipe_file(place, model=MODELS[model], r_drop=3.0, save_strategy="no", **changes))
        job.trainer.model.get_decoder().register_forward_hook(_second_half_sharper)
        weights.append(trained(job)[1])
    torch.testing.assert_close(weights[1], weights[0], rtol=0, atol=1e-6)


def _second_half_sharper(module, args, output):
    if not module.training:
        return output
    first, second = output.last_hidden_state.chunk(2)
    output.last_hidden_state = torch.cat([first, 1.5 * second])
    return output


def test_a_run_goes_on_to_the_bit(tmp_path):
    assert assert_goes_on(recipe_file(tmp_path, model=DROPPING, r_drop=2.0, optim="adamw_torch"), 2) == 4


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"r_drop": 0}, "r_drop must be more than 0, got 0"),
        ({"r_drop": -1.0}, "r_drop must be more than 0, got -1"),
        ({"r_drop": float("nan")}, "r_drop must be more than 0, got nan"),
        ({"r_drop": float("inf")}, "r_drop must be a finite number"),
        ({"model": SIZES}, "r_drop must be left out where .* has dropout, got 2; set model.dropout"),
        ({"model": model_fields("t5")}, "set model.dropout_rate"),
        ({"model": LAYERS_ALONE}, "r_drop must be left out where nothing that is trained has dropout"),
        *(
            (
                {"task": task, "generation": None},
                f"r_drop must be left out for task {task}, got 2",
            )
            for task in ("language-modeling", "text-classification", "extractive-question-answering")
        ),
    ],
    ids=str,
)
def test_what_could_only_be_ignored_is_refused_before_data_is_read(tmp_path, fields, message):
    with pytest.raises(InputError, match=message):
        job_of(recipe_file(tmp_path, **{"r_drop": 2.0, "train": NOWHERE, **fields}))


def test_dropout_of_a_frozen_encoder_is_none(tmp_path):
    parts = {**save_parts(tmp_path), "freeze": ["encoder"]}
    config = Path(parts["encoder_name_or_path"], "config.json")
    config.write_text(json.dumps(json.loads(config.read_text()) | {"hidden_dropout_prob": 0.3}))
    with pytest.raises(InputError, match="r_drop must be left out where nothing that is trained has dropout"):
        job_of(recipe_file(tmp_path, **parts, r_drop=2.0, train=NOWHERE))


def test_a_task_with_a_loss_of_its_own_has_none_of_two_passes():
    class Own(type(get_task("translation"))):
        def loss_function(self, model, label_smoothing, r_drop=0.0):
            return None

    with pytest.raises(InputError, match="r_drop must be left out for task translation"):
        Own().check_loss_field("r_drop", 1.0)
