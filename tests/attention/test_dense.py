"""Both backends against the specification, forward and backward."""

from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mask_cases import expressions, layouts, randomised
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from crossmask import masks
from crossmask.attention.dense import eager_attention

BACKENDS = {"eager": eager_attention, "sdpa": sdpa_attention_forward}
HEADS, WIDTH = 4, 8


def attend(backend, q, k, v, allowed):
    """(B, H, T, D) by a backend; key/value heads may be fewer than H."""
    module = SimpleNamespace(num_key_value_groups=q.shape[1] // k.shape[1], training=False, is_causal=False)
    output, _ = BACKENDS[backend](module, q, k, v, allowed, scaling=WIDTH**-0.5, dropout=0.0)
    return output.transpose(1, 2)


def states(batch, queries, keys, kv_heads, dtype=torch.float32, scale=1.0):
    generator = torch.Generator().manual_seed(queries * 10 + keys)
    shapes = [(batch, HEADS, queries, WIDTH), (batch, kv_heads, keys, WIDTH), (batch, kv_heads, keys, WIDTH)]
    return [(torch.randn(s, generator=generator) * scale).to(dtype).requires_grad_() for s in shapes]


def gradients(output, inputs):
    weights = torch.linspace(-1, 1, output.numel()).view_as(output)
    return torch.autograd.grad((output.float() * weights).sum(), inputs)


@settings(randomised, max_examples=15, derandomize=True)  # rounding is not to fail a build by chance
@given(expressions, layouts(batch=2), layouts(batch=2), st.sampled_from([1, 2, 4]), st.sampled_from([1.0, 3.0]))
@pytest.mark.parametrize("backend", BACKENDS)
def test_backend_is_what_the_specification_says(backend, mask, query, key, kv_heads, scale):
    inputs = states(2, query.length, key.length, kv_heads, scale=scale)
    repeated = [x.repeat_interleave(HEADS // x.shape[1], dim=1) for x in inputs]
    dense = masks.naive_mask(mask, query, key).expand(2, HEADS, -1, -1)
    output = attend(backend, *inputs, masks.compile_mask(mask, query, key))
    expected = naive(*repeated, dense)
    torch.testing.assert_close(output, expected, atol=1e-5 * scale, rtol=1e-5)
    for got, wanted in zip(gradients(output, inputs), gradients(expected, inputs), strict=True):
        torch.testing.assert_close(got, wanted, atol=1e-5 * scale**2, rtol=1e-5)


def naive(q, k, v, dense):
    """The specification's values, with the gradients of the plain formula in float64."""
    values = masks.naive_attention(q.detach(), k.detach(), v.detach(), dense, WIDTH**-0.5)
    scores = (q.double() @ k.double().transpose(2, 3) * WIDTH**-0.5).masked_fill(~dense, -1e300)
    smooth = ((scores.softmax(-1) * dense) @ v.double()).float()
    torch.testing.assert_close(values, smooth.detach(), atol=1e-4, rtol=1e-4)
    return smooth


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kv_heads", [1, 2, 4])
@pytest.mark.parametrize("queries", [1, 5])
@pytest.mark.parametrize("backend", BACKENDS)
def test_query_with_nothing_to_see_gets_zero(backend, queries, kv_heads, dtype):
    inputs = states(2, queries, 7, kv_heads, dtype, scale=20.0)
    allowed = torch.rand(2, 1, queries, 7, generator=torch.Generator().manual_seed(0)) > 0.3
    allowed[0, :, 0] = False
    output = attend(backend, *inputs, allowed)
    assert (output[0, :, 0] == 0).all()
    assert (output[1] != 0).any()
    got = gradients(output, inputs)
    assert all(gradient.isfinite().all() for gradient in got)
    assert (got[0][0, :, 0] == 0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("backend", BACKENDS)
def test_nothing_to_see_at_all(backend, dtype):
    inputs = states(1, 3, 4, 2, dtype)
    output = attend(backend, *inputs, torch.zeros(1, 1, 3, 4, dtype=torch.bool))
    assert (output == 0).all()
    assert all((gradient == 0).all() for gradient in gradients(output, inputs))


@pytest.mark.parametrize("queries", [1, 3])
@pytest.mark.parametrize("backend", BACKENDS)
def test_heads_see_what_their_own_masks_allow(backend, queries):
    inputs = states(2, queries, 5, 2)
    allowed = torch.rand(2, HEADS, queries, 5, generator=torch.Generator().manual_seed(1)) > 0.5
    repeated = [x.detach().repeat_interleave(HEADS // x.shape[1], dim=1) for x in inputs]
    expected = masks.naive_attention(*repeated, allowed, WIDTH**-0.5)
    torch.testing.assert_close(attend(backend, *inputs, allowed), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_forbidden_keys_change_no_bit(backend):
    q, k, v = (x.detach() for x in states(2, 3, 6, 2))
    allowed = torch.ones(2, 1, 3, 6, dtype=torch.bool)
    allowed[..., 2:4] = False
    before = attend(backend, q, k, v, allowed)
    k[:, :, 2:4], v[:, :, 2:4] = 1e4, -1e4
    assert attend(backend, q, k, v, allowed).equal(before)
