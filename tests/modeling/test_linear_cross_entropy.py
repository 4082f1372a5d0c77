"""The loss without logits equals the plain one, in value and gradient, and holds less memory."""

import pytest
import torch

from crossmask.modeling import loss as losses
from crossmask.modeling.loss import cross_entropy, linear_cross_entropy


@pytest.fixture
def problem():
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(3, 11, 8, generator=generator, requires_grad=True)
    weight = torch.randn(29, 8, generator=generator, requires_grad=True)
    labels = torch.randint(0, 29, (3, 11), generator=generator)
    labels[0, 4:], labels[2, :3] = -100, -100
    return hidden, weight, labels


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("items", [None, 40, torch.tensor(40)])
@pytest.mark.parametrize("chunk", [1, 29 * 5, 10**9])
def test_it_equals_the_plain_loss(problem, monkeypatch, smoothing, items, chunk):
    monkeypatch.setattr(losses, "CHUNK_ELEMENTS", chunk)
    hidden, weight, labels = problem
    plain = cross_entropy(hidden @ weight.T, labels, items, smoothing)
    chunked = linear_cross_entropy(hidden, weight, labels, items, smoothing)
    torch.testing.assert_close(chunked, plain)
    expected = torch.autograd.grad(plain * 3, (hidden, weight))
    found = torch.autograd.grad(chunked * 3, (hidden, weight))
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)


def test_a_hand_example():
    logits = torch.tensor([[[0.0, 0.0], [0.0, 0.0], [5.0, 1.0]]])
    labels = torch.tensor([[0, 1, -100]])
    assert cross_entropy(logits, labels).item() == pytest.approx(0.693147, abs=1e-6)
    assert cross_entropy(logits, labels, num_items_in_batch=4).item() == pytest.approx(2 * 0.693147 / 4, abs=1e-6)


def test_under_autocast_it_multiplies_in_bf16_and_sums_in_fp32(problem):
    hidden, weight, labels = problem
    with torch.autocast("cpu", torch.bfloat16):
        chunked = linear_cross_entropy(hidden, weight, labels, label_smoothing=0.1)
        plain = cross_entropy(hidden @ weight.T, labels, label_smoothing=0.1)
    assert chunked.dtype == torch.float32
    torch.testing.assert_close(chunked, plain, rtol=1e-2, atol=1e-2)
    grads = torch.autograd.grad(chunked, (hidden, weight))
    for one, other in zip(grads, torch.autograd.grad(plain, (hidden, weight)), strict=True):
        assert one.dtype == torch.float32
        torch.testing.assert_close(one, other, rtol=5e-2, atol=5e-3)


def test_the_model_gives_the_same_loss_and_gradients_without_logits():
    from small_models import small_config

    from crossmask import CrossMaskForConditionalGeneration

    torch.manual_seed(0)
    model = CrossMaskForConditionalGeneration(small_config(embedding_size=16)).eval()
    labels = torch.randint(4, 30, (2, 6))
    labels[1, 3:] = -100
    batch = {"input_ids": torch.randint(4, 30, (2, 7)), "labels": labels, "smoothing": 0.1}
    results = []
    for skip in (False, True):
        model.zero_grad()
        output = model(**batch, skip_logits=skip)
        output.loss.backward()
        assert (output.logits is None) == skip
        results.append((output.loss.detach(), [p.grad.clone() for p in model.parameters()]))
    torch.testing.assert_close(results[1], results[0])
