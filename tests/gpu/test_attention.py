"""On a GPU the network gives what it gives on a processor, under every mask, on every backend, in every precision."""

import pytest
import torch
from gpu_device import DEVICE, assert_near, logits_and_gradients, on_gpu, to_device
from mask_cases import EXAMPLES, fits_every_batch, names_source_tokens
from small_models import START, small_model, tokens

from crossmask.attention.backends import BACKENDS

pytestmark = on_gpu
SIZES = {"hidden_size": 64, "intermediate_size": 96, "max_position_embeddings": 400, "initializer_range": 0.1}
TEXTS = [text for text, mask in EXAMPLES.items() if fits_every_batch(mask) and not names_source_tokens(mask)]
TEXTS = [text for text in TEXTS if not text.startswith("random(")]  # which a config cannot have
FIELDS = {
    "no masks": {},
    "all scopes": {"encoder_mask": "window(9)", "decoder_mask": "causal() & window(4)", "cross_mask": "wait_k(3)"},
    "heads and layers": {
        "encoder_mask": 'layers({0: window(9), "rest": heads({0: causal(), "rest": full()})})',
        "cross_mask": 'heads({1: wait_k(2), "rest": prefix(5)})',
    },
    "queries without keys": {"encoder_mask": "window(9) & ~prefix(20)", "cross_mask": "wait_k(2) & ~prefix(4)"},
    "memory": {"memory_length": 4, "encoder_mask": "window(9)"},
    "additive": {"cross_attention_score": "additive", "cross_mask": "wait_k(2)"},
}
LENGTHS = (63, 64, 65, 128, 192, 320)  # kernels of 64 and 128 keys at a time


def model_on(name: str, **fields):
    return small_model(attention=name, **{**SIZES, **fields})


def batch_of(kind: str, length: int = 150) -> dict[str, torch.Tensor]:
    """Two rows of sources and targets, padded on the left and on the right, or packed."""
    source, target = tokens(2, length), tokens(2, length // 3, seed=1)
    inputs = torch.nn.functional.pad(target, (1, -1), value=START)
    batch = {"input_ids": source, "decoder_input_ids": inputs, "labels": target.clone()}
    if kind == "padded":
        batch["attention_mask"] = (torch.arange(length) >= torch.tensor([[0], [length // 4]])).long()
        batch["decoder_attention_mask"] = (torch.arange(length // 3) < torch.tensor([[length // 3], [9]])).long()
        batch["labels"][1, 9:] = -100
        return batch
    for name, side in (("segment_ids", source), ("decoder_segment_ids", target)):
        batch[name] = torch.ones_like(side)
        batch[name][:, side.shape[1] // 2 :] = 2
        batch[name][1, -3:] = 0
    batch["labels"][1, -3:] = -100
    return batch


def implementations() -> list[str]:
    """All but those of packages that are not there."""
    return [name for name in BACKENDS if "flash" not in name]


@pytest.mark.parametrize("kind", ["padded", "packed"])
@pytest.mark.parametrize("name", implementations())
@pytest.mark.parametrize("fields", FIELDS.values(), ids=FIELDS)
def test_every_backend(fields, name, kind):
    expected = logits_and_gradients(model_on("eager", **fields), batch_of(kind))
    assert_near(logits_and_gradients(model_on(name, **fields).to(DEVICE), to_device(batch_of(kind))), expected)


@pytest.mark.parametrize("kind", ["padded", "packed"])
@pytest.mark.parametrize("text", TEXTS)
def test_every_rule(text, kind):
    fields = {"encoder_mask": text, "decoder_mask": f"causal() & ({text})", "cross_mask": text}
    expected = logits_and_gradients(model_on("eager", **fields), batch_of(kind))
    for name in implementations():
        model, batch = model_on(name, **fields).to(DEVICE), to_device(batch_of(kind))
        assert_near(logits_and_gradients(model, batch), expected)


@pytest.mark.parametrize("autocast", [False, True], ids=["weights", "autocast"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("name", implementations())
@pytest.mark.parametrize("fields", [FIELDS["queries without keys"], FIELDS["no masks"]], ids=["masks", "no masks"])
def test_half_precision_at_every_length(fields, name, dtype, autocast):
    for kind in ("padded", "packed"):
        for length in LENGTHS:
            model, batch = model_on(name, **fields), batch_of(kind, length)
            expected = logits_and_gradients(model, batch)
            model.to(DEVICE, None if autocast else dtype)
            with torch.autocast(DEVICE.type, dtype=dtype, enabled=autocast):
                assert_near(logits_and_gradients(model, to_device(batch)), expected, 0.15)


@pytest.mark.parametrize("name", implementations())
@pytest.mark.parametrize("fields", [FIELDS["all scopes"], FIELDS["memory"]], ids=["all scopes", "memory"])
def test_compiled_in_one_graph(fields, name):
    expected = logits_and_gradients(model_on("eager", **fields), batch_of("padded"))
    model = torch.compile(model_on(name, **fields).to(DEVICE), fullgraph=name != "flex_attention")
    got = logits_and_gradients(model, {**to_device(batch_of("padded")), "use_cache": False})
    assert_near({key.removeprefix("_orig_mod."): value for key, value in got.items()}, expected)


@pytest.mark.parametrize("name", implementations())
@pytest.mark.parametrize("reentrant", [False, True])
def test_gradient_checkpointing(name, reentrant):
    fields, batch = FIELDS["all scopes"], batch_of("packed")
    expected = logits_and_gradients(model_on("eager", **fields).train(), batch)
    model = model_on(name, **fields).to(DEVICE).train()
    model.gradient_checkpointing_enable({"use_reentrant": reentrant})
    model(**to_device(batch)).loss.backward()
    gradients = {key: parameter.grad.cpu() for key, parameter in model.named_parameters()}
    assert_near(gradients, {key: value for key, value in expected.items() if key != "logits"})


def test_deterministic_algorithms():
    batch = to_device(batch_of("padded"))
    torch.use_deterministic_algorithms(True, warn_only=False)
    try:
        for name in ("eager", "sdpa", "blockwise"):
            model = model_on(name, **FIELDS["queries without keys"]).to(DEVICE)
            one, another = (logits_and_gradients(model, batch) for _ in range(2))
            torch.testing.assert_close(one, another, rtol=0, atol=0)
    finally:
        torch.use_deterministic_algorithms(False)


def test_masks_that_are_tensors_come_from_any_device():
    model, batch = model_on("sdpa").to(DEVICE), to_device(batch_of("padded"))
    allowed = torch.rand(2, batch["labels"].shape[1], 150, generator=torch.Generator().manual_seed(0)) < 0.5
    here, there = (model(**batch, cross_mask=mask).logits for mask in (allowed.to(DEVICE), allowed))
    assert torch.equal(here, there)
    assert not torch.equal(here, model(**batch).logits)
