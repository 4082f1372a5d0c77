"""Gradients of gradients, forward-mode gradients and Hessians are right through every gradient of our own."""

import pytest
import torch
from mask_cases import tiny_model, tokens
from torch.nn.attention import SDPBackend, sdpa_kernel

from crossmask.seq2seq import linear_loss
from crossmask.seq2seq.cpu_ops import _RMSNorm
from crossmask.seq2seq.loss import cross_entropy, linear_cross_entropy

LABELS = torch.tensor([[5, 6, 7, -100], [8, -100, 9, 10]])
ONE_LAYER = {"encoder_layers": 1, "decoder_layers": 1, "hidden_size": 16, "intermediate_size": 16}


def numbers(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64).requires_grad_()


@pytest.mark.parametrize("frozen", [(), (0,), (1,)])
def test_norm(frozen):
    inputs = [numbers(2, 3, 4), numbers(4, seed=1)]
    for index in frozen:
        inputs[index].requires_grad_(False)
    assert torch.autograd.gradcheck(_RMSNorm.apply, (*inputs, 1e-6))
    assert torch.autograd.gradgradcheck(_RMSNorm.apply, (*inputs, 1e-6))


def test_norm_of_zeros():
    states, weight = torch.zeros(1, 4, dtype=torch.float64, requires_grad=True), numbers(4)

    def second(norm):
        gradient = torch.autograd.grad(norm(states).pow(3).sum() + norm(states).sum(), states, create_graph=True)[0]
        return torch.autograd.grad(gradient.square().sum(), states, allow_unused=True)[0]

    ours = second(lambda x: _RMSNorm.apply(x, weight, 0.1))
    torch.testing.assert_close(ours, second(lambda x: torch.nn.functional.rms_norm(x, (4,), weight, 0.1)))


@pytest.mark.parametrize("frozen", [(), (0,), (1,)])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_loss_without_logits(monkeypatch, frozen, smoothing):
    monkeypatch.setattr(linear_loss, "CHUNK_ELEMENTS", 22)  # two rows at a time
    inputs = [numbers(2, 4, 3), numbers(11, 3, seed=1)]
    for index in frozen:
        inputs[index].requires_grad_(False)

    def loss(hidden, weight):
        return linear_cross_entropy(hidden, weight, LABELS, None, smoothing)

    assert torch.autograd.gradcheck(loss, inputs)
    assert torch.autograd.gradgradcheck(loss, inputs)


def penalty(model, embeddings: torch.Tensor, **inputs) -> list[torch.Tensor]:
    """Gradients of the parameters, of a gradient penalty on the source's embeddings."""
    embeddings = embeddings.clone().requires_grad_()
    loss = model(inputs_embeds=embeddings, use_cache=False, **inputs).loss
    gradient = torch.autograd.grad(loss, embeddings, create_graph=True)[0]
    weights = [w for name, w in model.named_parameters() if "encoder.embed_tokens" not in name]
    return torch.autograd.grad(gradient.square().sum(), weights, allow_unused=True)


MODELS = {
    "plain": {},
    "memory": {"memory_length": 2},
    "factorised": {"embedding_size": 8, "embedding_act": "gelu", "tie_word_embeddings": False},
    "additive": {"cross_attention_score": "additive"},
}


@pytest.mark.parametrize("skip_logits", [False, True])
@pytest.mark.parametrize("attention", ["eager", "math", "blockwise"])
@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("packed", [False, True])
def test_a_gradient_penalty_is_that_of_plain_operations(kind, attention, skip_logits, packed):
    """In float64 neither norm nor attention has a path of its own: it is the reference."""
    layout = {"attention_mask": torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])}
    if packed:
        layout = {
            "segment_ids": torch.tensor([[1, 1, 1, 2, 2], [1, 1, 2, 0, 0]]),
            "decoder_segment_ids": torch.tensor([[1, 1, 2, 2], [1, 2, 2, 0]]),
        }
    options = {**ONE_LAYER, **MODELS[kind], "initializer_range": 0.2, "dropout": 0.0}
    inputs = {**layout, "labels": LABELS, "skip_logits": skip_logits}
    model = tiny_model("sdpa" if attention == "math" else attention, **options).train()
    embeddings = model.get_input_embeddings()(tokens(2, 5)).detach()
    with sdpa_kernel(SDPBackend.MATH):
        found = penalty(model, embeddings, **inputs)
    plain = tiny_model("eager", **options).double().train()
    inputs["skip_logits"] = False
    for got, wanted in zip(found, penalty(plain, embeddings.double(), **inputs), strict=True):
        assert (got is None) == (wanted is None)
        if got is not None:
            torch.testing.assert_close(got.double(), wanted, rtol=2e-3, atol=2e-4 * wanted.abs().max().item() + 1e-6)


@pytest.mark.parametrize("skip_logits", [False, True])
def test_a_gradient_penalty_under_dropout(skip_logits):
    """The drawn masks are the same at every call, so that differences of the gradient are its derivative."""
    model = tiny_model("eager", **ONE_LAYER, initializer_range=0.2).train()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.2
    embeddings = model.get_input_embeddings()(tokens(2, 5)).detach()
    direction = torch.randn(embeddings.shape, generator=torch.Generator().manual_seed(1))

    def gradient(moved: torch.Tensor, create_graph: bool = False) -> torch.Tensor:
        torch.manual_seed(3)
        loss = model(inputs_embeds=moved, labels=LABELS, skip_logits=skip_logits).loss
        return torch.autograd.grad(loss, moved, create_graph=create_graph)[0]

    at = embeddings.clone().requires_grad_()
    along = torch.autograd.grad((gradient(at, create_graph=True) * direction).sum(), at)[0]
    step = 3e-3
    ends = [gradient((embeddings + sign * step * direction).requires_grad_()) for sign in (1, -1)]
    difference = (ends[0] - ends[1]) / (2 * step)
    torch.testing.assert_close(along, difference, rtol=0.05, atol=0.02 * difference.abs().max().item())


@pytest.mark.parametrize("kind", MODELS)
def test_forward_mode_and_hessians(kind):
    model = tiny_model("eager", **ONE_LAYER, **MODELS[kind], initializer_range=0.2).double()
    embeddings = model.get_input_embeddings()(tokens(1, 3)).detach()
    directions = torch.randn_like(embeddings)

    def loss(moved):
        return model(inputs_embeds=moved, labels=LABELS[:1, :3], use_cache=False, skip_logits=True).loss

    gradient = torch.func.grad(loss)(embeddings)
    value, along = torch.func.jvp(loss, (embeddings,), (directions,))
    torch.testing.assert_close(value, loss(embeddings))
    torch.testing.assert_close(along, (gradient * directions).sum())
    with torch.autograd.forward_ad.dual_level():
        dual = loss(torch.autograd.forward_ad.make_dual(embeddings, directions))
        torch.testing.assert_close(torch.autograd.forward_ad.unpack_dual(dual).tangent, along)
    hessian = torch.func.hessian(loss)(embeddings)
    torch.testing.assert_close(hessian, torch.autograd.functional.hessian(loss, embeddings))


def test_first_gradients_are_those_of_the_plain_loss():
    hidden, weight = numbers(2, 4, 3), numbers(11, 3, seed=1)
    losses_of = linear_cross_entropy(hidden, weight, LABELS), cross_entropy(hidden @ weight.T, LABELS)
    first, second = (torch.autograd.grad(loss, (hidden, weight), create_graph=True) for loss in losses_of)
    torch.testing.assert_close(first, second)
