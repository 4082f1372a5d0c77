"""The losses with a teacher against their definition: of one pass and two, in chunks and not, differentiated twice."""

import pytest
import torch
from bridge_families import bridge_of
from small_models import small_model, tokens

from crossmask.seq2seq import linear_loss
from crossmask.seq2seq.agreement import agreeing_cross_entropy, loss_functions
from crossmask.seq2seq.distillation import Distillation
from crossmask.seq2seq.loss import cross_entropy

OPTIONS = [(0.0, 0.5, 0.0), (0.1, 0.3, 0.0), (0.1, 1.0, 0.0), (0.1, 0.5, 3.0)]  # smoothing, weight, alpha
CHUNKS = [(2**22, 2**19), (72, 36), (1, 1)]


def batch(passes: int, dtype: torch.dtype = torch.float64):
    """States (passes * 2, 5, 6), the weight (9, 6) of an output layer, labels and the teacher's logits (10, 9)."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 9, (2, 5), generator=generator)
    labels = labels.masked_fill(torch.rand(2, 5, generator=generator) < 0.3, -100)
    states, weight, taught = (
        torch.randn(*shape, dtype=dtype, generator=generator) for shape in ((passes * 2, 5, 6), (9, 6), (10, 9))
    )
    return states.requires_grad_(), weight.requires_grad_(), torch.cat([labels] * passes), taught


def defined(logits, labels, taught, smoothing, weight, alpha, items=None) -> torch.Tensor:
    """What is trained without a teacher, of which `weight` gives way to the cross-entropy with its predictions."""
    passes = 2 if alpha else 1
    first = labels[: len(labels) // passes]
    counts = first != -100
    losses = []
    for part in logits.chunk(passes):
        scores = part[counts].log_softmax(-1)
        own = (1 - smoothing) * scores.gather(-1, first[counts][:, None])[:, 0] + smoothing * scores.mean(-1)
        losses.append(-((1 - weight) * own + weight * (taught[counts.flatten()].softmax(-1) * scores).sum(-1)).sum())
    total = sum(losses) / passes
    if alpha:
        plain = agreeing_cross_entropy(logits, first, 1, 0.0, alpha) - agreeing_cross_entropy(logits, first, 1, 0.0, 0)
        total = total + plain
    return total / (items or counts.sum())


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("chunks", CHUNKS, ids=str)
def test_loss_and_gradients_are_those_of_the_definition(options, chunks, monkeypatch):
    monkeypatch.setattr(linear_loss, "CHUNK_ELEMENTS", chunks[0])
    monkeypatch.setattr(linear_loss, "CACHED_ELEMENTS", chunks[1])
    smoothing, weight, alpha = options
    *inputs, labels, taught = batch(2 if alpha else 1)
    by_logits, by_states = loss_functions(labels, alpha, Distillation(taught.__getitem__, weight))
    logits = inputs[0] @ inputs[1].T
    for items in (None, 12):
        given = {"num_items_in_batch": items, "label_smoothing": smoothing}
        found = [by_states(*inputs, **given), by_logits(logits, **given)]
        wanted = defined(logits, labels, taught, *options, items)
        gradients = torch.autograd.grad(2.5 * wanted, inputs, retain_graph=True)
        for loss in found:
            torch.testing.assert_close(loss, wanted)
            torch.testing.assert_close(torch.autograd.grad(2.5 * loss, inputs, retain_graph=True), gradients)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_it_is_the_same_under_transforms_and_differentiated_twice(options):
    smoothing, weight, alpha = options
    *inputs, labels, taught = batch(2 if alpha else 1)
    _, by_states = loss_functions(labels, alpha, Distillation(taught.__getitem__, weight))

    def loss(*given):
        return by_states(*given, label_smoothing=smoothing)

    assert torch.autograd.gradgradcheck(loss, inputs)
    transformed = torch.func.grad(loss)(*(one.detach() for one in inputs))
    torch.testing.assert_close(transformed, torch.autograd.grad(loss(*inputs), inputs)[0])
    with torch.no_grad():
        torch.testing.assert_close(loss(*inputs), loss(*inputs).detach())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_sums_are_made_in_float32(dtype):
    states, weight, labels, taught = batch(1, dtype)
    _, by_states = loss_functions(labels, 0.0, Distillation(taught.__getitem__, 0.5))
    found = by_states(states, weight, label_smoothing=0.1)
    wanted = defined((states.double() @ weight.double().T), labels, taught.double(), 0.1, 0.5, 0.0)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), wanted, rtol=3e-2, atol=3e-2)


def test_a_teacher_that_is_sure_of_the_labels_is_as_none():
    states, weight, labels, _ = batch(1)
    sure = 1e3 * torch.nn.functional.one_hot(labels.flatten().clamp(min=0), 9).double()
    taught = cross_entropy(states @ weight.T, labels, distillation=Distillation(sure.__getitem__, 0.7))
    torch.testing.assert_close(taught, cross_entropy(states @ weight.T, labels))


def test_a_batch_without_targets_has_no_loss():
    states, weight, labels, taught = batch(1)
    for loss in loss_functions(torch.full_like(labels, -100), 0.0, Distillation(taught.__getitem__, 0.5)):
        given = (states, weight) if "linear" in loss.func.__name__ else (states @ weight.T,)
        assert loss(*given) == 0


@pytest.mark.parametrize("r_drop", [0.0, 2.0])
@pytest.mark.parametrize("skip_logits", [False, True])
def test_models_take_it(r_drop, skip_logits):
    for model in (small_model(), bridge_of("llama")):
        model.eval()
        ids, labels = tokens(2, 5), tokens(2, 4)
        if r_drop:
            ids, labels = torch.cat([ids, ids]), torch.cat([labels, labels])
        taught = torch.randn(8, model.config.vocab_size)
        call = {"input_ids": ids, "labels": labels, "r_drop": r_drop, "smoothing": 0.1}
        found = model(**call, distillation=Distillation(taught.__getitem__, 0.4), skip_logits=skip_logits).loss
        logits = model(**call).logits
        torch.testing.assert_close(found, defined(logits, labels, taught, 0.1, 0.4, r_drop), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("weight", [-0.1, 1.1, float("nan")])
def test_a_weight_that_is_no_share_is_refused(weight):
    with pytest.raises(ValueError, match="weight of a teacher must be from 0 to 1, got"):
        Distillation(torch.zeros(1, 9).__getitem__, weight)
