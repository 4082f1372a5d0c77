"""In half precision, and under autocast, the model trains and generates on CPU, close to what float32 gives."""

import pytest
import torch
from mask_cases import tiny_model, tokens

MODELS = {
    "plain": {},
    "memory": {"memory_length": 3},
    "factorised": {"embedding_size": 16, "tie_word_embeddings": False, "embedding_act": "gelu"},
    "additive": {"cross_attention_score": "additive"},
}
HALF = [torch.bfloat16, torch.float16]
INPUTS = {
    "input_ids": tokens(3, 9),
    "attention_mask": torch.tensor([[1] * 9, [0, 0, 0, 1, 1, 1, 1, 1, 1], [1, 1, 0, 0, 0, 0, 0, 0, 0]]),
    "labels": torch.tensor([[5, 6, 7, 8, 9], [9, 8, -100, -100, -100], [11, 12, 13, 14, -100]]),
}
EVERY = [(kind, "eager") for kind in MODELS] + [("plain", "sdpa"), ("plain", "blockwise")]
WIDE = {"vocab_size": 8192, "hidden_size": 512, "encoder_layers": 1, "decoder_layers": 1, "initializer_range": 0.05}


def near(found: torch.Tensor, wanted: torch.Tensor, dtype: torch.dtype) -> None:
    limit = 0.15 if dtype == torch.bfloat16 else 0.02
    assert found.isfinite().all()
    assert (found.float() - wanted).norm() <= limit * wanted.norm()


def model_of(kind: str, attention: str = "sdpa"):
    return tiny_model(attention, **MODELS[kind], initializer_range=0.15)


def trained(model: torch.nn.Module, skip_logits: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """The loss, and all gradients in one vector."""
    loss = model(**INPUTS, smoothing=0.1, skip_logits=skip_logits).loss
    loss.backward()
    return loss.detach(), torch.cat([parameter.grad.flatten().float() for parameter in model.parameters()])


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize(("kind", "attention"), EVERY)
@pytest.mark.parametrize("skip_logits", [False, True])
def test_weights_in_half_precision(kind, attention, dtype, skip_logits):
    model = model_of(kind, attention).to(dtype).train()
    loss, grad = trained(model, skip_logits)
    assert loss.dtype == torch.float32  # the loss is summed in full
    assert {parameter.grad.dtype for parameter in model.parameters()} == {dtype}
    wanted, wanted_grad = trained(model_of(kind).train(), skip_logits)
    near(loss, wanted, dtype)
    near(grad, wanted_grad, dtype)


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize(("kind", "attention"), EVERY)
@pytest.mark.parametrize("skip_logits", [False, True])
def test_autocast(kind, attention, dtype, skip_logits):
    model = model_of(kind, attention).train()
    with torch.autocast("cpu", dtype):
        loss = model(**INPUTS, smoothing=0.1, skip_logits=skip_logits).loss
    loss.backward()
    assert loss.dtype == torch.float32
    assert {parameter.grad.dtype for parameter in model.parameters()} == {torch.float32}
    wanted, wanted_grad = trained(model_of(kind).train(), skip_logits)
    near(loss, wanted, dtype)
    near(torch.cat([parameter.grad.flatten() for parameter in model.parameters()]), wanted_grad, dtype)


@pytest.mark.parametrize("dtype", HALF)
def test_dropout_in_half_precision_trains(dtype):
    model = model_of("plain").to(dtype).train()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.3
    loss, grad = trained(model, skip_logits=True)
    assert loss.isfinite()
    assert grad.isfinite().all()


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize(("rows", "beams"), [(1, 1), (3, 1), (8, 1), (1, 4)])
def test_generation_with_few_rows_and_a_large_vocabulary(dtype, autocast, rows, beams):
    """The output layer's product of few rows is made another way in float32 only."""
    plain = tiny_model("sdpa", **WIDE)
    model = plain if autocast else tiny_model("sdpa", **WIDE).to(dtype)
    source = tokens(rows, 7)
    with torch.no_grad(), torch.autocast("cpu", dtype, enabled=autocast):
        output = model.generate(
            source, num_beams=beams, max_new_tokens=4, output_scores=True, return_dict_in_generate=True
        )
        target = output.sequences[:, :3]
        logits = model(input_ids=source, decoder_input_ids=target).logits
    assert output.sequences.shape[0] == rows
    assert output.scores[0][:, 4:].isfinite().all()
    with torch.no_grad():
        near(logits, plain(input_ids=source, decoder_input_ids=target).logits, dtype)
