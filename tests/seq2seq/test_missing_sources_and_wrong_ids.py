"""A call without a source, or with ids outside of a vocabulary, says so in one line, on every kind of model."""

import pytest
import torch
from attached_families import attached
from bridge_families import bridge_of
from head_cases import HEADS, batch_of, head
from small_models import small_model

from crossmask.seq2seq import generation

pytestmark = pytest.mark.filterwarnings("ignore")
MODELS = {
    "own": small_model,
    "bridge": bridge_of,
    "bridge of t5 and gpt2": lambda: bridge_of("t5", "gpt2"),
    "bart": lambda: attached("bart"),
    "t5, masked": lambda: attached("t5", cross_mask="wait_k(2)"),
    "roberta2roberta": lambda: attached("roberta2roberta"),
}
models = pytest.mark.parametrize("name", MODELS)


@models
@torch.no_grad()
def test_generation_needs_a_source(name):
    model = MODELS[name]()
    for given in ({}, {"decoder_input_ids": torch.full((2, 3), 5)}, {"attention_mask": torch.ones(2, 3)}):
        with pytest.raises(ValueError, match=r"generate\(\) must have a source, got none; give input_ids"):
            model.generate(**given, max_new_tokens=2)
    tokens = torch.tensor([[5, 6, 7], [8, 9, 6]])
    expected = model.generate(tokens, max_new_tokens=4)
    outputs = model.get_encoder()(tokens)
    for given in (outputs, (outputs.last_hidden_state,)):
        assert torch.equal(model.generate(encoder_outputs=given, max_new_tokens=4), expected)
    if not name.startswith("t5"):  # it scales embeddings that it looks up by itself
        embeddings = model.get_encoder().get_input_embeddings()(tokens)
        assert len(model.generate(inputs_embeds=embeddings, max_new_tokens=4)) == 2


def test_generation_from_speech_needs_a_source():
    with pytest.raises(ValueError, match=r"must have a source, got none; give input_features or encoder_outputs"):
        attached("speech_to_text").generate(max_new_tokens=2)


@models
@torch.no_grad()
def test_ids_outside_of_a_vocabulary(name):
    model = MODELS[name]()
    tokens = torch.tensor([[5, 6, 7]])
    for wrong in (-1, 99):
        bad = torch.tensor([[5, wrong, 7]])
        message = rf"ids must be from 0 to \d+, the vocabulary of \w+, got {min(wrong, 5)} to {max(wrong, 7)}; use the"
        for call in (
            lambda bad=bad: model(input_ids=bad, decoder_input_ids=tokens),
            lambda bad=bad: model(input_ids=tokens, decoder_input_ids=bad),
            lambda bad=bad: model.generate(bad, max_new_tokens=2),
            lambda bad=bad: model.generate(tokens, decoder_input_ids=bad[:, 1:], max_new_tokens=2),
        ):
            with pytest.raises(ValueError, match="the vocabulary of") as caught:
                call()
            assert "\n" not in str(caught.value)
        with pytest.raises(ValueError, match=message):
            model(input_ids=bad, decoder_input_ids=tokens)
    with pytest.raises(ValueError, match=r"labels must be from 0 to \d+"):
        model(input_ids=tokens, labels=torch.tensor([[99, 5, -100]]))


@models
def test_ids_are_looked_at_before_an_accelerator_reads_them(name, monkeypatch):
    """In `generate()`, once: one without an embedding would stop the device for the whole process."""
    seen, tokens = {}, torch.tensor([[5, 6, 7]])
    check = lambda name, side, ids: seen.setdefault(name, ids)  # noqa: E731
    monkeypatch.setattr(generation, "check_ids_on_accelerator", check)
    MODELS[name]().generate(tokens, decoder_input_ids=tokens[:, 1:], max_new_tokens=2)
    assert torch.equal(seen["input_ids"], tokens)
    assert torch.equal(seen["decoder_input_ids"], tokens[:, 1:])


@pytest.mark.parametrize("name", list(HEADS)[:2])
def test_heads_name_ids_outside_of_a_vocabulary(name):
    model = head(name)
    batch = batch_of(model)
    batch["input_ids"][0, 0] = 5000
    with pytest.raises(ValueError, match=r"ids must be from 0 to \d+, the vocabulary of .* to 5000"):
        model(**batch)


def test_lengths_that_an_attached_model_does_not_take():
    model = attached("bart")
    short, long = torch.full((1, 3), 5), torch.full((1, 70), 5)
    for side, given in (("source", {"input_ids": long, "decoder_input_ids": short}),
                        ("target", {"input_ids": short, "decoder_input_ids": long}),
                        ("target", {"input_ids": short, "labels": long})):  # fmt: skip
        with pytest.raises(ValueError, match=f"the {side} must have at most 64 tokens, .* got 70"):
            model(**given)
    with pytest.raises(ValueError, match="the source must have at most 64 tokens"):
        model.generate(long, max_new_tokens=2)


@models
def test_a_source_that_is_not_a_tensor(name):
    model = MODELS[name]()
    with pytest.raises(ValueError, match=r"input_ids must be a torch tensor, got list; write torch.as_tensor\(...\)"):
        model.generate([[5, 6, 7]], max_new_tokens=2)
    with pytest.raises(ValueError, match="the attention mask must be a torch tensor, got list"):
        model.generate(torch.tensor([[5, 6, 7]]), attention_mask=[[1, 1, 1]], max_new_tokens=2)
