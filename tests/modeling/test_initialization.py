"""New weights: how large they are, and that those of a trained model stay."""

import pytest
import torch
from huggingface_hub.errors import StrictDataclassError
from small_models import small_model, tokens
from torch import nn

from crossmask import CrossMaskForConditionalGeneration

MODELS = {
    "plain": {},
    "untied": {"tie_word_embeddings": False},
    "memory": {"memory_length": 3},
    "additive": {"cross_attention_score": "additive"},
    "factorised": {"embedding_size": 8},
}


def _added_to_residuals(model: nn.Module) -> dict[str, torch.Tensor]:
    return {
        name: parameter
        for name, parameter in model.named_parameters()
        if name.endswith(("o_proj.weight", "down_proj.weight"))
    }


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("size", [0, 0.001])
def test_what_is_added_to_residual_connections_has_a_size_of_its_own(kind, size):
    model = small_model(**MODELS[kind], initializer_range=0.2, residual_initializer_range=size)
    last = _added_to_residuals(model)
    config = model.config
    assert len(last) == 2 * config.encoder_layers + 3 * config.decoder_layers + (kind == "memory")
    for parameter in last.values():
        assert parameter.std().item() == pytest.approx(size, rel=0.2)
    others = {name: one for name, one in model.named_parameters() if one.ndim == 2 and name not in last}
    assert all(parameter.std() > 0.1 for parameter in others.values())


def test_without_it_all_weights_are_as_they_were():
    last = _added_to_residuals(small_model(initializer_range=0.2))
    assert all(parameter.std() > 0.1 for parameter in last.values())


def test_blocks_pass_their_input_on_at_first_and_learn():
    model = small_model(residual_initializer_range=0)
    source, target = tokens(2, 5), tokens(2, 4)
    output = model(input_ids=source, decoder_input_ids=target, output_hidden_states=True)
    first = output.decoder_hidden_states[0]
    assert all(torch.equal(first, states) for states in output.decoder_hidden_states[1:-1])
    model(input_ids=source, labels=target).loss.backward()
    assert all(parameter.grad.abs().sum() > 0 for name, parameter in _added_to_residuals(model.model.decoder).items())


def test_trained_weights_stay(tmp_path):
    model = small_model(residual_initializer_range=0)
    for parameter in model.parameters():
        nn.init.normal_(parameter)
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    model.save_pretrained(tmp_path)
    model.init_weights()
    for one in (model, CrossMaskForConditionalGeneration.from_pretrained(tmp_path)):
        assert one.config.residual_initializer_range == 0
        assert all(torch.equal(parameter, before[name]) for name, parameter in one.named_parameters())


@pytest.mark.parametrize("size", [-0.1, float("inf"), "small"])
def test_other_sizes_are_refused(size):
    with pytest.raises(StrictDataclassError, match="residual_initializer_range"):
        small_model(residual_initializer_range=size)
