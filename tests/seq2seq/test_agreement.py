"""The loss of R-Drop against its definition, in chunks and not, differentiated once, twice and under transforms."""

import pytest
import torch
from torch.nn.functional import cross_entropy, kl_div

from crossmask.seq2seq import agreement
from crossmask.seq2seq.agreement import agreeing_cross_entropy


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


@pytest.mark.parametrize("chunk", [agreement.CHUNK_ELEMENTS, 36])
@pytest.mark.parametrize("options", [(None, 0.0, 1.0), (None, 0.1, 3.0), (12, 0.1, 0.5)], ids=str)
def test_loss_and_gradient_are_those_of_the_paper(options, chunk, monkeypatch):
    monkeypatch.setattr(agreement, "CHUNK_ELEMENTS", chunk)
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
