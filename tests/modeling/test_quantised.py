"""Tools that quantise or replace layers find ours, and what they make of the model computes what it should."""

import pytest
import torch
from mask_cases import tiny_model, tokens
from torch import nn
from torch.ao.quantization import float_qparams_weight_only_qconfig, quantize_dynamic

KINDS = [{}, {"embedding_size": 16, "tie_word_embeddings": False}, {"memory_length": 3}]
INPUTS = {"input_ids": tokens(3, 6), "decoder_input_ids": tokens(3, 4, seed=1)}
WIDE = {"vocab_size": 8192, "hidden_size": 512, "encoder_layers": 1, "decoder_layers": 1, "initializer_range": 0.05}


def close(model: nn.Module, plain: nn.Module) -> None:
    """The logits are those of the unquantised model but for a few percent."""
    with torch.no_grad():
        found, expected = model(**INPUTS).logits, plain(**INPUTS).logits
    assert (found - expected).norm() < 0.1 * expected.norm()


def test_layers_are_of_the_exact_classes_that_tools_look_for():
    model = tiny_model()
    classes = {type(module) for module in model.modules()}
    assert type(model.lm_head) is nn.Linear
    assert type(model.get_input_embeddings()) is type(model.get_decoder().embed_tokens) is nn.Embedding
    assert not [
        kind for kind in classes if issubclass(kind, nn.Linear | nn.Embedding) and kind.__module__[:6] != "torch."
    ]


@pytest.mark.parametrize("fields", KINDS)
@pytest.mark.filterwarnings("ignore")
def test_dynamic_int8_of_all_linear_layers(fields):
    plain = tiny_model(**fields, initializer_range=0.1)
    model = quantize_dynamic(plain, {nn.Linear}, dtype=torch.qint8)
    linear = [name for name, module in plain.named_modules() if type(module) is nn.Linear]
    assert "lm_head" in linear
    for name in linear:
        assert type(model.get_submodule(name)).__module__.startswith("torch.ao.nn.quantized"), name
    close(model, plain)
    assert model.generate(INPUTS["input_ids"], num_beams=2, max_new_tokens=4).shape == (3, 5)
    with torch.no_grad():
        labels = INPUTS["decoder_input_ids"]
        losses = [model(**INPUTS, labels=labels, skip_logits=skip).loss for skip in (False, True)]
    torch.testing.assert_close(*losses)


@pytest.mark.filterwarnings("ignore")
def test_dynamic_int8_of_embeddings_keeps_their_scale():
    plain = tiny_model(initializer_range=0.1)
    model = quantize_dynamic(plain, {nn.Embedding: float_qparams_weight_only_qconfig}, dtype=torch.quint8)
    assert type(model.get_input_embeddings()).__module__.startswith("torch.ao.nn.quantized")
    close(model, plain)


class Rounded(nn.Module):
    """A layer of another library, put in the place of a linear layer or an embedding: weights rounded."""

    def __init__(self, layer: nn.Linear | nn.Embedding):
        super().__init__()
        self.function = nn.functional.linear if isinstance(layer, nn.Linear) else nn.functional.embedding
        self.weight = nn.Parameter((layer.weight * 1024).round() / 1024)

    def forward(self, inputs):
        return self.function(inputs, self.weight)


@pytest.mark.parametrize("kind", [nn.Linear, nn.Embedding])
def test_layers_that_another_library_puts_in_their_place(kind):
    model, plain = tiny_model(), tiny_model()
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, kind):
                setattr(module, name, Rounded(child))
    close(model, plain)
    labels = INPUTS["decoder_input_ids"]
    losses = [model(**INPUTS, labels=labels, skip_logits=skip).loss for skip in (False, True)]
    torch.testing.assert_close(*losses)


def test_norm_and_dropout_that_are_replaced_by_those_of_torch():
    model, plain = tiny_model().train(), tiny_model().train()
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.RMSNorm):
                other = nn.RMSNorm(child.normalized_shape, eps=child.eps)
                other.load_state_dict(child.state_dict())
                setattr(module, name, other)
            elif isinstance(child, nn.Dropout):
                setattr(module, name, nn.Dropout(child.p))
    results = [net(**INPUTS).logits for net in (model, plain)]
    torch.testing.assert_close(*results, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("beams", [1, 4])
@pytest.mark.parametrize("rows", [1, 3])
def test_torchao_int8_weights(rows, beams):
    quantization = pytest.importorskip("torchao.quantization", reason="torchao is not installed")
    model, plain = tiny_model("sdpa", **WIDE), tiny_model("sdpa", **WIDE)
    quantization.quantize_(model, quantization.Int8WeightOnlyConfig())
    source = tokens(rows, 9)
    assert model.generate(source, num_beams=beams, max_new_tokens=4).shape[0] == rows
    close(model, plain)
    with torch.no_grad():
        losses = [model(**INPUTS, labels=INPUTS["decoder_input_ids"], skip_logits=skip).loss for skip in (True, False)]
    torch.testing.assert_close(*losses)
