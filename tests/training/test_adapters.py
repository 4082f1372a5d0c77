"""`lora` in a recipe: low-rank adapters in a model of any kind, merged into what is saved."""

import json

import pytest
import torch
from saved_parts import PACKED, UNPACKED, save_parts
from small_models import small_model
from training_jobs import SIZES, assert_goes_on, job_of, recipe_file, trained
from transformers import AutoModelForSeq2SeqLM

from crossmask.training.adapters import add_adapters, is_of_adapter, merge_adapters
from crossmask.training.arguments import OptimizationArguments
from crossmask.training.parts import freeze_parts
from crossmask.training.run import execute
from crossmask.utils.errors import InputError

pytestmark = pytest.mark.usefixtures("without_drawing")
pytest.importorskip("peft")
QUERIES = {"target_modules": ["q_proj"], "r": 4, "init_lora_weights": False}
OWN = {"model": {**SIZES, "tie_word_embeddings": False}, "freeze": ["encoder", "decoder", "lm_head"]}
BART = {
    "model_type": "bart", "d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2,
    "decoder_attention_heads": 2, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48,
}  # fmt: skip
OF_BART = {"model": {**BART, "cross_mask": "wait_k(2)"}, "freeze": ["encoder.layers", "decoder.layers"]}
OF_DECODER = {"lora": {**QUERIES, "target_modules": r"decoder\..*\.(q_proj|v_proj)"}, "freeze": ["encoder", "decoder"]}


def kinds(folder) -> dict[str, dict]:
    return {
        "our own": {**OWN, "lora": QUERIES},
        "attached": {**OF_BART, "lora": QUERIES, **UNPACKED},
        "a bridge": {**save_parts(folder), **OF_DECODER, "learning_rates": {"decoder": 0.01}},
    }


@pytest.mark.parametrize("kind", ["our own", "attached", "a bridge"])
def test_adapters_are_trained_in_frozen_parts_and_merged(tmp_path, kind):
    job = job_of(recipe_file(tmp_path, **kinds(tmp_path)[kind]))
    model = job.trainer.model
    adapters = {name for name, _ in model.named_parameters() if is_of_adapter(name)}
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert adapters
    frozen = tuple(f"{part}." for part in kinds(tmp_path)[kind]["freeze"])
    for name, parameter in model.named_parameters():
        is_frozen = name.removeprefix("model.").startswith(frozen)
        assert parameter.requires_grad == (name in adapters or not is_frozen), name
    execute(job)
    # The finished model is of the plain class and has plain weights, which the adapters have changed.
    saved = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "run").state_dict()
    assert not any(map(is_of_adapter, saved))
    for name, value in before.items():
        own = name.replace(".base_layer", "")
        if not is_of_adapter(name) and own.removeprefix("model.").startswith(frozen):
            assert torch.equal(saved[own], value.cpu()) is (".base_layer.weight" not in name), name
    facts = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert 0 < facts["trained_parameters"] < facts["parameters"]


@pytest.mark.parametrize("batching", [UNPACKED, PACKED], ids=str)
def test_a_run_with_adapters_goes_on_to_the_bit(tmp_path, batching):
    changes = {**save_parts(tmp_path), **OF_DECODER, "optim": "adamw_torch", **batching}
    changes["lora"] = {**changes["lora"], "lora_dropout": 0.1}
    assert assert_goes_on(recipe_file(tmp_path, **changes), 2) == 4


@torch.no_grad()
def test_merged_weights_compute_what_adapters_compute():
    model = small_model(tie_word_embeddings=False).eval()
    inputs = {"input_ids": torch.arange(4, 14)[None], "decoder_input_ids": torch.arange(4, 10)[None]}
    names, plain = list(model.state_dict()), model(**inputs).logits
    add_adapters(model, {**QUERIES, "target_modules": ["q_proj", "o_proj", "down_proj"]})
    adapted = model(**inputs).logits
    assert not torch.allclose(adapted, plain)
    merge_adapters(model)
    torch.testing.assert_close(model(**inputs).logits, adapted, atol=1e-4, rtol=1e-4)
    assert list(model.state_dict()) == names


def test_weights_outside_of_adapted_modules_are_trained_unless_they_are_frozen():
    model = small_model(tie_word_embeddings=False)
    add_adapters(model, QUERIES)
    freeze_parts(model, OptimizationArguments(freeze=["encoder"], lora=QUERIES))
    for name, parameter in model.named_parameters():
        expected = is_of_adapter(name) or not (".base_layer" in name or ".encoder." in name)
        assert parameter.requires_grad is expected, name


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "lora.target_modules must name what gets adapters"),
        ({"target_modules": ["q_prj"]}, "lora: .*q_prj"),
        ({"target_modules": ["q_proj"], "rank": 8}, "lora has no setting 'rank'"),
        ({"target_modules": ["q_proj"], "r": 0}, "lora: .*r"),
        ({"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]}, "lora has no setting 'modules_to_save'"),
        ({"target_modules": ["norm"]}, "lora: .*not supported"),
    ],
    ids=str,
)
def test_adapters_that_cannot_be_made_are_refused(tmp_path, settings, message):
    with pytest.raises(InputError, match=message) as error:
        job_of(recipe_file(tmp_path, lora=settings))
    assert "\n" not in str(error.value)


def test_other_adapters_do_not_go_on(tmp_path):
    trained(job_of(recipe_file(tmp_path, max_steps=2, lora=QUERIES)))
    with pytest.raises(InputError, match=r"lora.* is another than .* was trained with"):
        job_of(recipe_file(tmp_path, lora={**QUERIES, "r": 2}), "--resume_from_checkpoint", "last")
