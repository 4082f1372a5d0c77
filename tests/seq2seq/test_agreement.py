"""The loss of R-Drop against its definition, in chunks and not, differentiated once, twice and under transforms."""

import pytest
import torch
from bridge_families import bridge_of
from small_models import small_model, tokens
from torch.nn.functional import cross_entropy, kl_div

from crossmask.seq2seq import linear_loss
from crossmask.seq2seq.agreement import agreeing_cross_entropy, agreeing_linear_cross_entropy


def batch(dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits (4, 5, 9) of two examples, twice, and their labels (2, 5), some of which do not count."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 9, (2, 5), generator=generator)
    labels = labels.masked_fill(torch.rand(2, 5, generator=generator) < 0.3, -100)
    return torch.randn(4, 5, 9, dtype=dtype, generator=generator).requires_grad_(), labels


def defined(logits, labels, items=None, smoothing=0.0, alpha=1.0) -> torch.Tensor:
    """Half of the paper's loss."""
    counts = labels != -100
    first, second = (part[counts] for part in logits.chunk(2))
    entropies = [
        cross_entropy(part, labels[counts], label_smoothing=smoothing, reduction="sum") for part in (first, second)
    ]
    divergences = [
        kl_div(one.log_softmax(-1), other.log_softmax(-1), reduction="sum", log_target=True)
        for one, other in ((first, second), (second, first))
    ]
    return (sum(entropies) + alpha / 2 * sum(divergences)) / 2 / (items or counts.sum())


@pytest.mark.parametrize("chunk", [linear_loss.CACHED_ELEMENTS, 36])
@pytest.mark.parametrize("options", [(None, 0.0, 1.0), (None, 0.1, 3.0), (12, 0.1, 0.5)], ids=str)
def test_loss_and_gradient_are_those_of_the_paper(options, chunk, monkeypatch):
    monkeypatch.setattr(linear_loss, "CACHED_ELEMENTS", chunk)
    logits, labels = batch()
    losses = [loss(logits, labels, *options) for loss in (agreeing_cross_entropy, defined)]
    torch.testing.assert_close(*losses)
    torch.testing.assert_close(*(torch.autograd.grad(2.5 * loss, logits)[0] for loss in losses))


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.bfloat16, 2e-2), (torch.float16, 2e-3), (torch.float32, 1e-6)]
)
def test_sums_are_made_in_float32(dtype, tolerance):
    logits, labels = batch(dtype)
    loss = agreeing_cross_entropy(logits, labels, None, 0.1, 3.0)
    assert loss.dtype == torch.float32
    wide = logits.detach().double().requires_grad_()
    wanted = defined(wide, labels, None, 0.1, 3.0)
    torch.testing.assert_close(loss.double(), wanted, rtol=1e-5, atol=1e-5)
    found = torch.autograd.grad(loss, logits)[0]
    assert found.dtype == dtype
    torch.testing.assert_close(found.double(), torch.autograd.grad(wanted, wide)[0], rtol=0, atol=tolerance)


def test_the_gradient_can_be_differentiated():
    logits, labels = batch()
    assert torch.autograd.gradgradcheck(lambda one: agreeing_cross_entropy(one, labels, None, 0.1, 2.0), logits)


def test_under_a_transform_it_is_the_same():
    logits, labels = batch()
    loss = agreeing_cross_entropy(logits, labels, 7, 0.1, 2.0)
    transformed = torch.func.grad(lambda one: agreeing_cross_entropy(one, labels, 7, 0.1, 2.0))(logits.detach())
    torch.testing.assert_close(transformed, torch.autograd.grad(loss, logits)[0])


def test_without_gradients_it_is_the_same():
    logits, labels = batch()
    with torch.no_grad():
        alone = agreeing_cross_entropy(logits, labels)
    assert not alone.requires_grad
    torch.testing.assert_close(alone, agreeing_cross_entropy(logits, labels).detach())


def test_passes_that_agree_have_the_loss_of_one():
    logits, labels = batch()
    one = logits[:2].detach()
    twice = agreeing_cross_entropy(torch.cat([one, one]), labels, None, 0.1, 5.0)
    torch.testing.assert_close(twice, cross_entropy(one.flatten(0, 1), labels.flatten(), label_smoothing=0.1))


def test_a_batch_without_targets_has_no_loss():
    logits = torch.randn(2, 3, 7, requires_grad=True)
    loss = agreeing_cross_entropy(logits, torch.full((1, 3), -100), None, 0.1)
    assert loss == 0
    assert not torch.autograd.grad(loss, logits)[0].any()


def test_labels_that_cannot_be_are_refused():
    logits, labels = batch()
    with pytest.raises(ValueError, match="labels must be from 0 to 8, or -100 to be ignored, got 9"):
        agreeing_cross_entropy(logits, torch.full_like(labels, 9))
    with pytest.raises(ValueError, match="smoothing must be from 0 to 1, got 2"):
        agreeing_cross_entropy(logits, labels, None, 2)
    with pytest.raises(ValueError, match=r"shape \(2, 5\) with twice the rows, got \(3, 5, 9\)"):
        agreeing_cross_entropy(logits[:3], labels)


def test_float16_keeps_small_gradients_until_they_are_scaled():
    logits, labels = torch.randn(2, 4, 32000).half().requires_grad_(), torch.randint(0, 32000, (1, 4))
    found = torch.autograd.grad(65536 * agreeing_cross_entropy(logits, labels), logits)[0]
    wide = logits.detach().float().requires_grad_()
    wanted = torch.autograd.grad(65536 * agreeing_cross_entropy(wide, labels), wide)[0]
    torch.testing.assert_close(found.float(), wanted, rtol=1e-2, atol=1e-5)


def states_of(dtype: torch.dtype = torch.float64) -> list[torch.Tensor]:
    """Hidden states (4, 5, 6) of two examples, twice, and the weight (9, 6) of the layer that makes logits of them."""
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(*shape, dtype=dtype, generator=generator).requires_grad_() for shape in ((4, 5, 6), (9, 6))]


@pytest.mark.parametrize("chunks", [(2**22, 2**19), (72, 36), (72, 10**9), (1, 1)], ids=str)
@pytest.mark.parametrize("options", [(None, 0.0, 1.0), (12, 0.1, 3.0)], ids=str)
@pytest.mark.parametrize("frozen", [None, 0, 1])
def test_without_logits_it_is_the_same(options, chunks, frozen, monkeypatch):
    monkeypatch.setattr(linear_loss, "CHUNK_ELEMENTS", chunks[0])
    monkeypatch.setattr(linear_loss, "CACHED_ELEMENTS", chunks[1])
    labels, inputs = batch()[1], states_of()
    if frozen is not None:
        inputs[frozen].requires_grad_(False)
    wanted = [one for one in inputs if one.requires_grad]
    found = agreeing_linear_cross_entropy(*inputs, labels, *options)
    plain = defined(inputs[0] @ inputs[1].T, labels, *options)
    torch.testing.assert_close(found, plain)
    grads = (torch.autograd.grad(2.5 * loss, wanted) for loss in (found, plain))
    torch.testing.assert_close(*grads)


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.bfloat16, 3e-2), (torch.float16, 3e-3), (torch.float32, 1e-6)]
)
def test_without_logits_sums_are_made_in_float32(dtype, tolerance):
    labels, inputs = batch()[1], states_of(dtype)
    wide = [one.detach().double().requires_grad_() for one in inputs]
    found = agreeing_linear_cross_entropy(*inputs, labels, None, 0.1, 3.0)
    wanted = defined(wide[0] @ wide[1].T, labels, None, 0.1, 3.0)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), wanted, rtol=tolerance, atol=tolerance)
    for one, other in zip(torch.autograd.grad(found, inputs), torch.autograd.grad(wanted, wide), strict=True):
        assert one.dtype == dtype
        torch.testing.assert_close(one.double(), other, rtol=0, atol=tolerance)


def test_without_logits_the_gradient_can_be_differentiated():
    labels = batch()[1]
    assert torch.autograd.gradgradcheck(
        lambda *inputs: agreeing_linear_cross_entropy(*inputs, labels, None, 0.1, 2.0), states_of()
    )


def test_without_logits_it_is_the_same_under_a_transform():
    labels, (states, weight) = batch()[1], states_of()
    loss = agreeing_linear_cross_entropy(states, weight, labels, 7, 0.1, 2.0)
    transformed = torch.func.grad(lambda one: agreeing_linear_cross_entropy(one, weight, labels, 7, 0.1, 2.0))
    torch.testing.assert_close(transformed(states), torch.autograd.grad(loss, states)[0])


@pytest.mark.parametrize("frozen", [False, True])
def test_without_logits_a_batch_without_targets_has_no_loss(frozen):
    states, weight = (one.requires_grad_(not frozen) for one in states_of())
    loss = agreeing_linear_cross_entropy(states, weight, torch.full((2, 5), -100))
    assert loss == 0
    assert loss.requires_grad is not frozen


def test_without_logits_what_cannot_be_is_refused():
    labels, (states, weight) = batch()[1], states_of()
    with pytest.raises(ValueError, match="labels must be from 0 to 8, or -100 to be ignored, got 9"):
        agreeing_linear_cross_entropy(states, weight, torch.full_like(labels, 9))
    with pytest.raises(
        ValueError, match=r"hidden_states must have .* shape \(2, 5\) with twice the rows, got \(3, 5, 6\)"
    ):
        agreeing_linear_cross_entropy(states[:3], weight, labels)


@pytest.mark.parametrize("skip_logits", [False, True])
@pytest.mark.parametrize("kind", ["crossmask", "bridge"])
def test_models_compute_it(kind, skip_logits):
    model = small_model(dropout=0.2) if kind == "crossmask" else bridge_of("bert", "gpt2", decoder_dropout=0.2)
    ids, labels = tokens(2, 6), tokens(2, 5, seed=1)
    labels[0, 3:] = -100
    twice = {"input_ids": torch.cat([ids, ids]), "labels": torch.cat([labels, labels])}
    torch.manual_seed(0)
    plain = model.train()(**twice).logits
    torch.manual_seed(0)
    found = model(**twice, r_drop=3.0, smoothing=0.1, num_items_in_batch=9, skip_logits=skip_logits)
    assert (found.logits is None) is skip_logits
    torch.testing.assert_close(found.loss, agreeing_cross_entropy(plain, labels, 9, 0.1, 3.0))
    wanted = agreeing_cross_entropy(plain, labels, 9, 0.1, 3.0)
    weights = [one for one in model.parameters() if one.requires_grad]
    grads = (torch.autograd.grad(loss, weights, allow_unused=True) for loss in (found.loss, wanted))
    for one, other in zip(*grads, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf")])
def test_models_refuse_a_weight_that_is_none(value):
    with pytest.raises(ValueError, match="r_drop must be a finite number from 0 up, got"):
        small_model()(input_ids=tokens(2, 6), labels=tokens(2, 5), r_drop=value)


@pytest.mark.parametrize("rows", [2, 3])
def test_models_refuse_a_batch_that_does_not_stand_there_twice(rows):
    with pytest.raises(ValueError, match="with r_drop the batch must stand twice"):
        small_model()(input_ids=tokens(rows, 6), labels=tokens(rows, 5), r_drop=1.0)
