"""`optim: muon`: what it computes, what it trains, how it goes on."""

import pytest
import torch
from causal_lms import causal_lm
from small_models import small_model
from torch import nn
from training_jobs import SIZES, assert_goes_on, job_of, recipe_file, trained
from transformers import BartConfig, BartForConditionalGeneration

from crossmask.training.muon import Muon, build_muon, matrices_of, options_of, orthogonalize
from crossmask.training.optimizers import check_optimizer
from crossmask.training.parsing import parse_run
from crossmask.utils.errors import InputError


def tiny_bart() -> BartForConditionalGeneration:
    sizes = {f"{side}_{what}": 16 for side in ("encoder", "decoder") for what in ("ffn_dim",)}
    sizes |= {f"{side}_layers": 1 for side in ("encoder", "decoder")}
    sizes |= {f"{side}_attention_heads": 2 for side in ("encoder", "decoder")}
    return BartForConditionalGeneration(BartConfig(vocab_size=32, d_model=16, **sizes))


FAMILIES = {"crossmask": small_model, "bart": tiny_bart, "llama": lambda: causal_lm("llama"),
            "gpt2": lambda: causal_lm("gpt2")}  # fmt: skip


def nearest_orthogonal(matrix: torch.Tensor) -> torch.Tensor:
    u, _, v = torch.linalg.svd(matrix.double(), full_matrices=False)
    return u @ v


@pytest.mark.parametrize("shape", [(3, 12, 12), (2, 8, 20), (4, 20, 8), (1, 1, 5), (1, 5, 1)])
def test_singular_values_become_one(shape):
    """Against the singular value decomposition, on matrices that are not nearly singular."""
    generator = torch.Generator().manual_seed(0)
    matrices = torch.randn(shape, generator=generator, dtype=torch.float64)
    expected = torch.stack([nearest_orthogonal(matrix) for matrix in matrices])
    torch.testing.assert_close(orthogonalize(matrices, steps=9), expected, atol=1e-4, rtol=0)
    values = torch.linalg.svdvals(orthogonalize(matrices.float(), steps=5))
    assert values.min() > 0.3
    assert values.max() < 1.15
    alone = torch.cat([orthogonalize(matrix[None]) for matrix in matrices])
    torch.testing.assert_close(orthogonalize(matrices), alone)


@pytest.mark.parametrize(("steps", "lowest", "highest"), [(5, 0.87, 1.13), (4, 0.43, 1.57)])
def test_singular_values_from_a_thousandth_of_the_norm_on_come_close_to_one(steps, lowest, highest):
    torch.manual_seed(0)
    basis = nearest_orthogonal(torch.randn(32, 32)), nearest_orthogonal(torch.randn(32, 32))
    values = torch.logspace(-2, 0, 32, dtype=torch.float64)
    values[0] = 1e-3 * torch.linalg.vector_norm(values)
    matrix = basis[0] * values @ basis[1]
    found = torch.linalg.svdvals(orthogonalize(matrix[None], steps))
    assert lowest < found.min()
    assert found.max() < highest


def test_a_gradient_of_zero_changes_nothing_but_the_decay():
    parameter = nn.Parameter(torch.ones(3, 4))
    parameter.grad = torch.zeros(3, 4)
    Muon([{"params": [parameter], "matrices": True}], lr=0.1, weight_decay=0.5).step()
    torch.testing.assert_close(parameter.detach(), torch.full((3, 4), 1 - 0.1 * 0.5))


@pytest.mark.parametrize("nesterov", [True, False])
def test_steps_are_those_of_the_definition(nesterov):
    """Three steps of two matrices of one shape and one of another, by a loop that takes one matrix at a time."""
    torch.manual_seed(0)
    parameters = [nn.Parameter(torch.randn(shape)) for shape in ((6, 4), (6, 4), (3, 5))]
    plain = [parameter.detach().clone() for parameter in parameters]
    optimizer = Muon(
        [{"params": parameters, "matrices": True}], lr=0.1, weight_decay=0.2, momentum=0.9, nesterov=nesterov
    )
    momenta = [torch.zeros_like(one) for one in plain]
    for _ in range(3):
        for index, parameter in enumerate(parameters):
            gradient = parameter.grad = torch.randn_like(parameter)
            momenta[index] = 0.9 * momenta[index] + 0.1 * gradient
            ahead = 0.1 * gradient + 0.9 * momenta[index] if nesterov else momenta[index]
            update = orthogonalize(ahead[None])[0] * 0.2 * max(parameter.shape) ** 0.5
            plain[index] = plain[index] * (1 - 0.1 * 0.2) - 0.1 * update
        optimizer.step()
    torch.testing.assert_close([parameter.detach() for parameter in parameters], plain)


@pytest.mark.parametrize("family", FAMILIES)
def test_matrices_inside_layers_are_trained_by_muon_and_all_else_by_adamw(family, tmp_path):
    model = FAMILIES[family]()
    names = {name for name, parameter in model.named_parameters() if id(parameter) in matrices_of(model)}
    assert any("q_proj" in name or "c_attn" in name for name in names)
    for name, parameter in model.named_parameters():
        outside = any(word in name for word in ("embed", "shared", "wte", "wpe", "norm", "ln_", "lm_head", "bias"))
        assert (name in names) is (parameter.ndim == 2 and not outside), name
    arguments = job_of(recipe_file(tmp_path, optim="muon", learning_rate=0.01)).trainer.args
    model.get_input_embeddings().weight.requires_grad_(False)
    optimizer = build_muon(model, arguments, names)
    grouped = [id(parameter) for group in optimizer.param_groups for parameter in group["params"]]
    assert sorted(grouped) == sorted(id(p) for p in model.parameters() if p.requires_grad)


@pytest.mark.parametrize("fields", [{}, {"learning_rates": {"decoder": 0.01}, "freeze": ["encoder.norm"]}], ids=str)
def test_a_run_goes_on_to_the_bit(tmp_path, fields):
    model = {**SIZES, "dropout": 0.2, "tie_word_embeddings": False}
    changes = {"optim": "muon", "optim_args": "momentum=0.9, ns_steps=4, learning_rate=0.02", "weight_decay": 0.1}
    assert assert_goes_on(recipe_file(tmp_path, model=model, lr_scheduler_type="linear", **changes, **fields), 2) == 4


def test_a_closure_sees_the_matrices_too():
    matrix = torch.nn.Parameter(torch.eye(2))
    optimizer = Muon([{"params": [matrix], "matrices": True}], lr=0.1)

    def closure():
        optimizer.zero_grad()
        loss = matrix.square().sum()
        loss.backward()
        return loss

    for _ in range(2):
        before = matrix.detach().clone()
        assert optimizer.step(closure) == before.square().sum()
        torch.testing.assert_close(matrix.grad, 2 * before)


def test_both_learning_rates_are_obeyed(tmp_path):
    job = job_of(recipe_file(tmp_path, optim="muon", optim_args="learning_rate=0.02", learning_rate=0.01))
    trained(job)
    rates = {group["matrices"]: group["initial_lr"] for group in job.trainer.optimizer.optimizer.param_groups}
    assert rates == {True: 0.02, False: 0.01}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"optim_args": "momentums=0.9"}, "optim_args has no setting 'momentums': did you mean 'momentum'"),
        ({"optim_args": "momentum=1"}, "optim_args momentum must be from 0 to below 1, got '1'"),
        ({"optim_args": "ns_steps=0"}, "optim_args ns_steps must be a whole number from 1 to 20, got '0'"),
        ({"optim_args": "learning_rate=inf"}, "optim_args learning_rate must be a finite number above 0, got 'inf'"),
        ({"optim_args": "nesterov=1"}, "optim_args nesterov must be true or false, got '1'"),
        (
            {"optim_args": "learning_rate=1e300"},
            "optim_args learning_rate must be a finite number above 0, got '1e300'",
        ),
        ({"optim_args": "momentum=0.9, momentum=0.1"}, "optim_args must be name=value, .* each name once"),
        ({"optim_args": "momentum"}, "optim_args must be name=value, .* got 'momentum'"),
        ({"optim_args": '{"momentum":0.9}'}, "optim_args must be name=value"),
        ({"optim": "muons"}, "optim must be .* got 'muons'; did you mean 'muon'"),
    ],
    ids=str,
)
def test_options_that_it_does_not_have_are_refused_before_training(tmp_path, fields, message):
    with pytest.raises(InputError, match=message) as error:
        job_of(recipe_file(tmp_path, **{"optim": "muon", **fields}))
    assert "\n" not in str(error.value)


def test_a_model_whose_matrices_are_all_frozen_is_refused(tmp_path):
    nowhere = {"format": "tsv", "path": "nowhere.tsv"}  # and so before data is read
    with pytest.raises(InputError, match="optim must not be muon where no weight of a linear layer"):
        job_of(recipe_file(tmp_path, optim="muon", freeze=["encoder.layers", "decoder.layers"], train=nowhere))


def test_a_rate_that_no_matrix_has_is_refused(tmp_path):
    rates = {"encoder.layers": 0.01, "decoder.layers": 0.02}
    job = job_of(recipe_file(tmp_path, optim="muon", optim_args="learning_rate=0.03", learning_rates=rates))
    with pytest.raises(InputError, match=r"optim_args must be without learning_rate if .* of all matrices, got 0.03"):
        job.trainer.train()
    assert job.trainer.state.global_step == 0


def test_weights_spread_over_processes_are_refused_before_training(tmp_path, monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    arguments = parse_run([recipe_file(tmp_path, optim="muon")], command="c").arguments
    message = "optim must not be muon under fsdp, where no process has a whole matrix; set it to adamw_torch_fused"
    with pytest.raises(InputError, match=message):
        check_optimizer(arguments)


def test_options_are_read():
    given = options_of("momentum=0.9, nesterov=False,ns_steps=4")
    assert given == {"momentum": 0.9, "nesterov": False, "ns_steps": 4}


def test_another_optimizer_does_not_go_on(tmp_path):
    trained(job_of(recipe_file(tmp_path, max_steps=2, optim="muon")))
    with pytest.raises(InputError, match=r"optim.* is another than .* was trained with"):
        job_of(recipe_file(tmp_path, optim="adamw_torch"), "--resume_from_checkpoint", "last")
