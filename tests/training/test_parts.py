"""Parts of a model that are frozen, or have a learning rate of their own."""

import json

import pytest
import torch
from causal_lms import causal_lm
from encoder_decoders import model_fields
from saved_parts import save_parts
from small_models import small_model
from training_jobs import SIZES, assert_goes_on, job_of, recipe_file, trained
from transformers.modeling_layers import GradientCheckpointingLayer

from crossmask.training.arguments import OptimizationArguments
from crossmask.training.parts import freeze_parts, frozen_modules, part_of, split_groups, trained_parameters
from crossmask.training.run import execute
from crossmask.utils.errors import InputError

pytestmark = pytest.mark.usefixtures("without_drawing")
UNTIED = {**SIZES, "tie_word_embeddings": False}


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("encoder.layers.0.norm.weight", "encoder"),
        ("model.encoder.layers.1.norm.weight", "encoder.layers.1"),
        ("encoder.layers.10.norm.weight", "encoder"),
        ("encoder_norm.weight", None),
        ("lm_head.weight", None),
    ],
)
def test_a_parameter_is_in_the_longest_part_that_it_begins_with(name, part):
    assert part_of(name, ["encoder", "encoder.layers.1", "decoder"], prefix="model") == part


FAMILIES = {
    "crossmask": (lambda: small_model(tie_word_embeddings=False), "decoder", "model.decoder."),
    "crossmask head": (lambda: small_model(tie_word_embeddings=False), "lm_head", "lm_head."),
    "llama": (lambda: causal_lm("llama"), "layers.1", "model.layers.1."),
    "gpt2": (lambda: causal_lm("gpt2"), "h.0.attn", "transformer.h.0.attn."),
}


@pytest.mark.parametrize(("make", "part", "prefix"), FAMILIES.values(), ids=FAMILIES)
def test_a_frozen_part_is_not_trained_and_all_else_is(make, part, prefix):
    model = make()
    freeze_parts(model, OptimizationArguments(freeze=[part]))
    for name, parameter in model.named_parameters():
        assert parameter.requires_grad is not name.startswith(prefix)
    assert 0 < trained_parameters(model) < model.num_parameters()
    frozen = {id(p) for module in frozen_modules(model) for p in module.parameters()}
    assert frozen == {id(p) for p in model.parameters() if not p.requires_grad}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"freeze": ["encodr"]},
            "'encodr' must be a part of the crossmask model, which has encoder, decoder, lm_head; did",
        ),
        ({"learning_rates": {"bridge": 1.0}}, "'bridge' must be a part of the crossmask model"),
        ({"freeze": ["encoder", "decoder", "lm_head"]}, "freeze must leave something to train"),
    ],
    ids=str,
)
def test_a_part_that_is_not_there_is_refused(given, message):
    with pytest.raises(InputError, match=message):
        freeze_parts(small_model(tie_word_embeddings=False), OptimizationArguments(**given))


def test_a_learning_rate_of_what_is_not_trained_is_refused():
    model = small_model(tie_word_embeddings=False)
    model.model.encoder.requires_grad_(False)
    with pytest.raises(InputError, match=r"learning_rates.encoder must be of a part that is trained, got 0.1; leave"):
        freeze_parts(model, OptimizationArguments(learning_rates={"encoder": 0.1}))


def test_a_part_that_holds_a_tied_weight_in_half_is_refused():
    with pytest.raises(
        InputError, match=r"a tied weight must be in one part, got .*embed_tokens.weight in .*; name sm"
    ):
        freeze_parts(small_model(), OptimizationArguments(freeze=["encoder"]))
    freeze_parts(small_model(), OptimizationArguments(freeze=["encoder.layers"]))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"freeze": ["encoder"], "learning_rates": {"encoder": 1.0}},
            "encoder must be in freeze or in learning_rates",
        ),
        ({"learning_rates": {"encoder": 0}}, "learning_rates.encoder must be more than 0, got 0; name it in freeze"),
        ({"learning_rates": {"encoder": "slow"}}, "learning_rates.encoder must be a number, got 'slow'"),
        ({"learning_rates": "slow"}, "learning_rates must be a mapping from names to values, got 'slow'"),
        ({"freeze": "encoder"}, "freeze must be a list, each item text, got 'encoder'"),
    ],
    ids=str,
)
def test_parts_are_checked_before_there_is_a_model(given, message):
    with pytest.raises(InputError, match=message):
        OptimizationArguments(**given)


def test_groups_are_divided_by_learning_rate():
    model = small_model(tie_word_embeddings=False)
    groups = [{"params": list(model.parameters()), "lr": 0.1, "weight_decay": 0.0}]
    divided = split_groups(groups, model, {"encoder": 0.2, "encoder.layers.0": 0.3, "lm_head": 0.2})
    assert [group["lr"] for group in divided] == [0.1, 0.2, 0.3]
    assert sum(len(group["params"]) for group in divided) == len(groups[0]["params"])
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    for group in divided:
        for parameter in group["params"]:
            name = names[id(parameter)]
            rate = 0.3 if ".encoder.layers.0." in name else 0.2 if "encoder" in name or "lm_head" in name else 0.1
            assert group["lr"] == rate


def test_parts_learn_at_their_own_rates(tmp_path):
    """With SGD, a constant rate and one step the weights move in proportion to it."""
    changes = {"max_steps": 1, "model": UNTIED, "max_grad_norm": 0.0, "save_strategy": "no"}
    moved = {}
    for name, options in {"plain": {}, "parts": {"learning_rates": {"decoder": 0.3}, "freeze": ["encoder"]}}.items():
        (tmp_path / name).mkdir()
        job = job_of(recipe_file(tmp_path / name, **changes, **options))
        before = {key: value.clone() for key, value in job.trainer.model.state_dict().items()}
        moved[name] = {key: value - before[key] for key, value in trained(job)[1].items()}
    for key, value in moved["plain"].items():
        factor = 0.0 if "encoder." in key else 3.0 if "decoder." in key else 1.0
        torch.testing.assert_close(moved["parts"][key], factor * value, rtol=1e-3, atol=1e-6)
    assert moved["plain"]["model.encoder.layers.0.mlp.down_proj.weight"].abs().sum() > 0


def test_a_run_with_parts_goes_on_to_the_bit(tmp_path):
    changes = {
        "model": {**UNTIED, "dropout": 0.2}, "freeze": ["encoder"], "optim": "adamw_torch", "weight_decay": 0.1,
        "learning_rates": {"decoder": 0.3, "lm_head": 0.01}, "lr_scheduler_type": "linear",
    }  # fmt: skip
    assert assert_goes_on(recipe_file(tmp_path, **changes), 2) == 4


@pytest.mark.parametrize("changes", [{"freeze": ["decoder"]}, {"learning_rates": {"decoder": 0.3}}], ids=str)
def test_other_parts_do_not_go_on(tmp_path, changes):
    trained(job_of(recipe_file(tmp_path, model=UNTIED, max_steps=2, freeze=["encoder"])))
    recipe = recipe_file(tmp_path, model=UNTIED, **{"freeze": ["encoder"], **changes})
    with pytest.raises(InputError, match=f"{next(iter(changes))}.* is another than .* was trained with"):
        job_of(recipe, "--resume_from_checkpoint", "last")


def test_a_frozen_part_has_no_dropout(tmp_path):
    job = job_of(recipe_file(tmp_path, model={**UNTIED, "dropout": 0.5}, freeze=["encoder"]))
    modes = []
    encoder = job.trainer.model.get_encoder()
    encoder.register_forward_hook(lambda module, *_: modes.append({one.training for one in module.modules()}))
    trained(job)
    assert modes
    assert set().union(*modes) == {False}
    assert job.trainer.model.get_decoder().training


@pytest.mark.parametrize("family", ["crossmask", "bart", "t5", "bridge"])
def test_frozen_layers_are_recomputed_under_gradient_checkpointing(tmp_path, family):
    """Where gradients pass through them; and they drop nothing, so that a step is that without checkpointing."""
    if family == "bridge":
        fields = {**save_parts(tmp_path), "freeze": ["encoder", "decoder"]}
    else:
        model = UNTIED if family == "crossmask" else model_fields(family)
        rate, layers = ("dropout_rate", "block") if family == "t5" else ("dropout", "layers")
        fields = {"model": {**model, rate: 0.5}, "freeze": [f"encoder.{layers}", f"decoder.{layers}"]}
    counts, weights = [], []
    for recomputed in (False, True):
        place = tmp_path / str(recomputed)
        place.mkdir()
        job = job_of(recipe_file(place, **fields, gradient_checkpointing=recomputed, max_steps=1, save_strategy="no"))
        decoder = job.trainer.model.get_decoder()
        layer = next(one for one in decoder.modules() if isinstance(one, GradientCheckpointingLayer))
        calls: list[bool] = []
        product = next(one for one in layer.modules() if isinstance(one, torch.nn.Linear))
        product.register_forward_hook(lambda *_, calls=calls: calls.append(True))
        weights.append(trained(job)[1])
        counts.append(len(calls))
    assert counts == [1, 2]
    torch.testing.assert_close(weights[1], weights[0])


def test_the_report_says_how_much_was_trained(tmp_path, capsys):
    job = job_of(recipe_file(tmp_path, model=UNTIED, freeze=["encoder", "decoder.layers"]))
    execute(job)
    facts = json.loads((tmp_path / "run" / "metrics.json").read_text())
    trained_count = facts["trained_parameters"]
    assert trained_count == trained_parameters(job.trainer.model) < facts["parameters"]
    assert f"training {trained_count:,} of {facts['parameters']:,} parameters" in capsys.readouterr().out
    assert f"| trained parameters | {trained_count} |" in (tmp_path / "run" / "README.md").read_text()


def test_a_part_that_is_not_there_is_said_before_the_data_is_read(tmp_path):
    nowhere = {"format": "tsv", "path": "nowhere.tsv"}
    with pytest.raises(InputError, match="'encodr' must be a part"):
        job_of(recipe_file(tmp_path, train=nowhere, freeze=["encodr"]))
