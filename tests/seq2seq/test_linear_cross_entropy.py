"""The loss without logits equals the plain one, in value and gradient, and holds less memory."""

import pytest
import torch
from small_models import small_model, tokens
from torch.utils._python_dispatch import TorchDispatchMode

from crossmask.seq2seq import linear_loss
from crossmask.seq2seq import loss as losses
from crossmask.seq2seq.loss import cross_entropy, linear_cross_entropy


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
@pytest.mark.parametrize(("chunk", "cached"), [(1, 1), (29 * 5, 29 * 2), (29 * 5, 10**9), (10**9, 10**9)])
def test_it_equals_the_plain_loss(problem, monkeypatch, smoothing, items, chunk, cached):
    monkeypatch.setattr(linear_loss, "CHUNK_ELEMENTS", chunk)
    monkeypatch.setattr(linear_loss, "CACHED_ELEMENTS", cached)
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


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_other_dtypes(problem, dtype, smoothing):
    hidden, weight = (tensor.detach().to(dtype).requires_grad_() for tensor in problem[:2])
    labels = problem[2]
    chunked = linear_cross_entropy(hidden, weight, labels, None, smoothing)
    exact = [tensor.detach().double().requires_grad_() for tensor in (hidden, weight)]
    plain = cross_entropy(exact[0] @ exact[1].T, labels, None, smoothing)
    assert chunked.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    tolerance = {"rtol": 1e-12, "atol": 1e-12} if dtype == torch.float64 else {"rtol": 3e-2, "atol": 3e-3}
    torch.testing.assert_close(chunked.double(), plain, **tolerance)
    found, expected = torch.autograd.grad(chunked, (hidden, weight)), torch.autograd.grad(plain, exact)
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == dtype
        torch.testing.assert_close(one.double(), other, **tolerance)


def test_sums_over_many_rows_stay_finite_in_float16():
    """The weight's gradient before it is divided by the number of labels would pass 65504."""
    hidden = torch.full((1, 30000, 8), 8.0, dtype=torch.float16, requires_grad=True)
    weight = torch.zeros(4, 8, dtype=torch.float16, requires_grad=True)
    labels = torch.zeros(1, 30000, dtype=torch.long)
    grads = torch.autograd.grad(linear_cross_entropy(hidden, weight, labels), (hidden, weight))
    torch.testing.assert_close(grads[1][:, 0], torch.tensor([-6.0, 2.0, 2.0, 2.0], dtype=torch.float16))
    assert grads[0].isfinite().all()


class Products(TorchDispatchMode):
    """Counts matrix products, forward and backward."""

    count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += function in (torch.ops.aten.mm.default, torch.ops.aten.mm.out)
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    ("frozen", "products"), [((), 3), ((0,), 2), ((1,), 2), ((0, 1), 1)], ids=["none", "hidden", "weight", "both"]
)
@pytest.mark.parametrize("enabled", [True, False])
def test_only_the_gradients_that_are_wanted_are_computed(problem, monkeypatch, frozen, products, enabled):
    monkeypatch.setattr(losses, "fast_path_allowed", lambda *tensors, **options: True)  # also while it is watched
    hidden, weight, labels = problem
    for index in frozen:
        problem[index].requires_grad_(False)
    with Products() as counted, torch.set_grad_enabled(enabled):
        loss = linear_cross_entropy(hidden, weight, labels)
    assert counted.count == (products if enabled else 1)
    assert loss.requires_grad == (enabled and products > 1)
    if loss.requires_grad:
        wanted = [tensor for tensor in (hidden, weight) if tensor.requires_grad]
        plain = torch.autograd.grad(cross_entropy(hidden @ weight.T, labels), wanted)
        torch.testing.assert_close(torch.autograd.grad(loss, wanted), plain)


@pytest.mark.parametrize("smoothing", [-1, 1.01, float("nan"), float("inf")])
def test_a_smoothing_that_is_none_is_refused(problem, smoothing):
    hidden, weight, labels = problem
    with pytest.raises(ValueError, match="smoothing must be from 0 to 1, got"):
        linear_cross_entropy(hidden, weight, labels, None, smoothing)
    with pytest.raises(ValueError, match="smoothing must be from 0 to 1, got"):
        cross_entropy(hidden @ weight.T, labels, None, smoothing)
    with pytest.raises(ValueError, match="smoothing must be from 0 to 1, got"):
        small_model()(input_ids=tokens(1, 3), labels=tokens(1, 3), smoothing=smoothing)


@pytest.mark.parametrize("label", [-1, -99, -101, 29, 2**40])
@pytest.mark.parametrize("skip_logits", [False, True])
def test_a_label_outside_of_the_vocabulary_is_refused(problem, label, skip_logits):
    hidden, weight, labels = problem
    labels[1, 2] = label
    refused = pytest.raises(ValueError, match=f"labels must be from 0 to 28, or -100 to be ignored, got {label}")
    if skip_logits:
        with refused:
            linear_cross_entropy(hidden, weight, labels)
    else:
        with refused:
            cross_entropy(hidden @ weight.T, labels)
    model = small_model(vocab_size=29)
    with pytest.raises(ValueError, match=f"labels must be .* got {label}"):
        model(input_ids=tokens(3, 4, vocab_size=29), labels=labels, skip_logits=skip_logits)


@pytest.mark.parametrize("dtype", [torch.int32, torch.float32, torch.bool])
def test_labels_of_another_dtype_are_refused(problem, dtype):
    hidden, weight, labels = problem
    with pytest.raises(TypeError, match="labels must be int64, got"):
        linear_cross_entropy(hidden, weight, labels.to(dtype))


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
