"""R-Drop: runs of every kind of encoder-decoder, and what is refused. seq2seq/test_agreement.py has its loss."""

import pytest
import torch
from encoder_decoders import model_fields
from saved_parts import save_parts
from small_models import small_config
from training_jobs import SIZES, assert_goes_on, job_of, recipe_file, trained

from crossmask import CrossMaskForConditionalGeneration
from crossmask.training.r_drop import check_r_drop, twice
from crossmask.utils.errors import InputError

pytestmark = pytest.mark.usefixtures("without_drawing")
DROPPING = {**SIZES, "dropout": 0.2}


def test_all_of_a_batch_is_there_twice():
    rows, state = torch.arange(6).view(2, 3), torch.zeros(2, 3, 4)
    doubled = twice({"input_ids": rows, "encoder_outputs": (state,), "cross_mask": "full()"})
    assert doubled["input_ids"].tolist() == [*rows.tolist(), *rows.tolist()]
    assert doubled["encoder_outputs"][0].shape == (4, 3, 4)
    assert doubled["cross_mask"] == "full()"


NEARLY_NONE = 1e-12  # a rate at which nothing is dropped
MODELS = {
    "crossmask": {**SIZES, "dropout": NEARLY_NONE},
    "bart": {**model_fields("bart"), "dropout": NEARLY_NONE},
    "t5": {**model_fields("t5"), "dropout_rate": NEARLY_NONE},
}


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


def test_a_bridge_reads_the_kept_states_of_its_encoder_twice(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "cache"))
    fields = {
        **save_parts(tmp_path),
        "freeze": ["encoder"],
        "cache_encoder": True,
        "model": {"decoder_dropout": 1e-12},
    }
    weights = []
    for name, options in (("once", {}), ("twice", {"r_drop": 4.0})):
        recipe = recipe_file(tmp_path, **fields, **options)
        weights.append(trained(job_of(recipe, "--output_dir", str(tmp_path / name)))[1])
    torch.testing.assert_close(weights[1], weights[0], rtol=0, atol=1e-6)


def test_passes_that_differ_are_drawn_together(tmp_path):
    logged = []
    for number, alpha in enumerate((1e-9, 5.0)):
        place = tmp_path / str(number)
        place.mkdir()
        job = job_of(recipe_file(place, model=DROPPING, r_drop=alpha, max_steps=1, logging_steps=1))
        trained(job)
        logged += [entry["loss"] for entry in job.trainer.state.log_history if "loss" in entry]
    assert logged[1] > logged[0] + 1e-3


def test_a_run_goes_on_to_the_bit(tmp_path):
    assert assert_goes_on(recipe_file(tmp_path, model=DROPPING, r_drop=2.0, optim="adamw_torch"), 2) == 4


@pytest.mark.parametrize("alpha", [0.0, -1.0, float("inf"), float("nan")])
def test_weights_that_are_none_are_refused(alpha):
    with pytest.raises(InputError, match="r_drop must be a finite number above 0, got"):
        check_r_drop(alpha, CrossMaskForConditionalGeneration(small_config(dropout=0.1)))


def test_what_could_only_be_ignored_is_refused_before_data_is_read(tmp_path):
    nowhere = {"format": "tsv", "path": "nowhere.tsv"}
    with pytest.raises(InputError, match="r_drop must be left out for a model without dropout, got 1"):
        job_of(recipe_file(tmp_path, r_drop=1.0, train=nowhere))
    for task in ("language-modeling", "text-classification", "extractive-question-answering"):
        with pytest.raises(InputError, match=f"r_drop must be left out for task {task}"):
            job_of(recipe_file(tmp_path, r_drop=1.0, train=nowhere, task=task, generation=None))
