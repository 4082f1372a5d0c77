"""The output layer gives the same logits whichever way round it multiplies."""

import pytest
import torch

from crossmask.modeling.layers import OutputLayer


@pytest.fixture(scope="module")
def layer() -> OutputLayer:
    torch.manual_seed(0)
    return OutputLayer(512, 6200, bias=False)


@pytest.mark.parametrize("shape", [(1, 1), (2, 1), (5, 1), (8, 1), (1, 3), (9, 1)])
def test_logits_are_those_of_a_linear_layer(layer, shape, monkeypatch):
    hidden_states = torch.randn(*shape, 512)
    transposed = []
    mm = torch.mm
    monkeypatch.setattr(torch, "mm", lambda *args: transposed.append(args) or mm(*args))
    with torch.no_grad():
        logits = layer(hidden_states)
        assert len(transposed) == (2 <= shape[0] * shape[1] <= 8)
        torch.testing.assert_close(logits, torch.nn.functional.linear(hidden_states, layer.weight))
        assert logits.is_contiguous()
    assert layer(hidden_states).requires_grad
    assert len(transposed) == (2 <= shape[0] * shape[1] <= 8)  # training multiplies as ever
