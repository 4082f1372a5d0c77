"""Norm and dropout do what torch's do."""

import pytest
import torch
from torch import nn

from crossmask.seq2seq.cpu_ops import Dropout, RMSNorm


def norms(width: int) -> tuple[RMSNorm, nn.RMSNorm]:
    mine, plain = RMSNorm(width, eps=1e-6), nn.RMSNorm(width, eps=1e-6)
    nn.init.normal_(mine.weight)
    plain.load_state_dict(mine.state_dict())
    return mine, plain


@pytest.mark.parametrize("shape", [(7, 8), (2, 3, 8)])
def test_norm_and_its_gradient(shape):
    torch.manual_seed(0)
    mine, plain = norms(8)
    states = torch.randn(shape) * torch.tensor([1e-3, 1, 30, 1, 1, 1, 1, 1])
    states[0] = 0
    results = []
    for norm in (mine, plain):
        inputs = states.clone().requires_grad_()
        output = norm(inputs)
        gradients = torch.autograd.grad(
            (output * torch.linspace(-1, 2, output.numel()).view(shape)).sum(), (inputs, norm.weight)
        )
        results.append((output, *gradients))
    for got, wanted in zip(*results, strict=True):
        torch.testing.assert_close(got, wanted, atol=1e-5, rtol=1e-5)


def test_norm_under_autocast_is_made_in_full_precision():
    torch.manual_seed(0)
    mine, plain = norms(64)
    states = torch.randn(5, 64, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        output = mine(states)
    assert output.dtype == torch.bfloat16
    torch.testing.assert_close(output, plain(states).bfloat16(), atol=0, rtol=2**-7)  # the last bit
    output.sum().backward()
    assert states.grad.dtype == torch.float32


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_dropout(dtype):
    torch.manual_seed(0)
    dropout = Dropout(0.3)
    states = torch.full((101, 333), 2.0, dtype=dtype, requires_grad=True)  # an odd number of numbers
    output = dropout(states)
    dropped = output == 0
    assert abs(dropped.float().mean() - 0.3) < 0.01
    assert abs((dropped[1:] & dropped[:-1]).float().mean() - 0.09) < 0.01
    torch.testing.assert_close(output[~dropped], torch.full_like(output[~dropped], 2 / 0.7), rtol=1e-2, atol=0)
    output.sum().backward()
    torch.testing.assert_close(states.grad, output.detach() / 2)
    assert not dropout(states).equal(output)
    torch.manual_seed(0)
    assert dropout(states).equal(output)


@pytest.mark.parametrize(("p", "training"), [(0.0, True), (1.0, True), (0.3, False)])
def test_dropout_of_nothing_and_all(p, training):
    states = torch.randn(4, 5)
    assert Dropout(p).train(training)(states).equal(torch.zeros(4, 5) if p == 1.0 else states)


def test_norm_under_torch_func():
    """Gradients of each example alone, as `vmap` over `grad` has them."""
    torch.manual_seed(0)
    mine, plain = norms(8)
    states = torch.randn(3, 5, 8)
    factors = torch.randn(5, 8)

    def loss(weight, example, norm):
        return (torch.func.functional_call(norm, {"weight": weight}, (example,)) * factors).sum()

    got, wanted = (
        torch.vmap(torch.func.grad(loss), (None, 0, None))(norm.weight.detach(), states, norm)
        for norm in (mine, plain)
    )
    torch.testing.assert_close(got, wanted)
