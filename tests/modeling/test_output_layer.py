"""The product with the output layer gives the same logits whichever way round it multiplies, and only where it may."""

import pytest
import torch
from torch import nn
from torch.nn.utils.prune import custom_from_mask

from crossmask.modeling.layers import is_plain_linear, output_logits


@pytest.fixture
def layer() -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(512, 6200, bias=False)


@pytest.fixture
def transposed(monkeypatch) -> list:
    """The products that were made transposed."""
    products, mm = [], torch.mm
    monkeypatch.setattr(torch, "mm", lambda *args: products.append(args) or mm(*args))
    return products


@pytest.mark.parametrize("shape", [(1, 1), (2, 1), (5, 1), (8, 1), (1, 3), (9, 1)])
def test_logits_are_those_of_a_linear_layer(layer, transposed, shape):
    hidden_states = torch.randn(*shape, 512)
    with torch.no_grad():
        logits = output_logits(layer, hidden_states)
        assert len(transposed) == (2 <= shape[0] * shape[1] <= 8)
        torch.testing.assert_close(logits, layer(hidden_states))
        assert logits.is_contiguous()
    assert output_logits(layer, hidden_states).requires_grad
    assert len(transposed) == (2 <= shape[0] * shape[1] <= 8)  # training multiplies as ever


class Doubled(nn.Linear):
    def forward(self, hidden_states):
        return 2 * super().forward(hidden_states)


def doubled(layer: nn.Linear) -> nn.Module:
    other = Doubled(512, 6200, bias=False)
    other.load_state_dict(layer.state_dict())
    return other


def own_forward(layer: nn.Linear) -> nn.Module:
    forward = layer.forward
    layer.forward = lambda states: 2 * forward(states)
    return layer


def hooked(layer: nn.Linear) -> nn.Module:
    layer.register_forward_hook(lambda layer, args, output: 2 * output)
    return layer


def pre_hooked(layer: nn.Linear) -> nn.Module:
    layer.register_forward_pre_hook(lambda layer, args: (2 * args[0],))
    return layer


def parametrised(layer: nn.Linear) -> nn.Module:
    double = nn.Module()
    double.forward = lambda weight: 2 * weight
    nn.utils.parametrize.register_parametrization(layer, "weight", double)
    return layer


def pruned(layer: nn.Linear) -> nn.Module:
    mask = (torch.rand_like(layer.weight) > 0.5).float()
    return custom_from_mask(layer, "weight", mask)


def biased(layer: nn.Linear) -> nn.Module:
    layer.bias = nn.Parameter(torch.randn(6200))
    return layer


CHANGES = [doubled, own_forward, hooked, pre_hooked, parametrised, pruned, biased]


@pytest.mark.parametrize("change", CHANGES)
@torch.no_grad()
def test_a_changed_layer_is_called_as_it_is(layer, transposed, change):
    assert is_plain_linear(layer)
    changed, states = change(layer), torch.randn(3, 1, 512)
    assert not is_plain_linear(changed)
    assert output_logits(changed, states).equal(changed(states))
    assert not transposed


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
@torch.no_grad()
def test_other_dtypes_multiply_as_ever(layer, transposed, dtype):
    layer, states = layer.to(dtype), torch.randn(3, 1, 512, dtype=dtype)
    assert output_logits(layer, states).equal(layer(states))
    assert not transposed


@torch.no_grad()
def test_a_hook_on_all_modules_sees_the_layer(layer, transposed):
    seen = []
    handle = nn.modules.module.register_module_forward_hook(lambda module, *call: seen.append(module))
    try:
        output_logits(layer, torch.randn(3, 1, 512))
    finally:
        handle.remove()
    assert seen == [layer]
    assert not transposed
