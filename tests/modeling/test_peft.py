"""PEFT's adapters compute, learn and merge here as in Transformers' own models."""

import pytest
import torch
from peft import LoraConfig, PrefixTuningConfig, get_peft_model
from small_models import small_model, tokens

SOURCE, LABELS = tokens(2, 6), tokens(2, 5, seed=1)
INNER = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def adapted(fields: dict, targets: list[str], **options):
    """A small model with random adapters, in training mode but without dropout."""
    config = LoraConfig(r=2, target_modules=targets, task_type="SEQ_2_SEQ_LM", **options)
    model = get_peft_model(small_model(**fields), config).train()
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    return model


@pytest.mark.parametrize(
    "fields", [{"tie_word_embeddings": False}, {"tie_word_embeddings": False, "embedding_size": 8}]
)
def test_adapters_of_every_layer_learn(fields):
    """Also the one on the output layer, whose weight the loss without logits would read by itself."""
    model = adapted(fields | {"dropout": 0.0}, [*INNER, "lm_head", "embed_tokens"])
    whole = model(input_ids=SOURCE, labels=LABELS).loss
    short = model(input_ids=SOURCE, labels=LABELS, skip_logits=True)
    assert short.logits is None
    torch.testing.assert_close(short.loss, whole)
    short.loss.backward()
    trained = {name: parameter.grad for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert sum("lm_head" in name for name in trained) == 2
    assert [name for name, grad in trained.items() if grad is None or not grad.any()] == []


@pytest.mark.parametrize("targets", [["q_proj"], ["embed_tokens"], ["lm_head", "v_proj"]])
@torch.no_grad()
def test_merged_adapters_compute_the_same(targets):
    model = adapted({"tie_word_embeddings": False}, targets).eval()
    expected = model(input_ids=SOURCE, labels=LABELS).loss
    plain = small_model(tie_word_embeddings=False)(input_ids=SOURCE, labels=LABELS).loss
    assert (expected - plain).abs() > 1e-3
    torch.testing.assert_close(model.merge_and_unload()(input_ids=SOURCE, labels=LABELS).loss, expected)


@pytest.mark.parametrize("tied", [True, False])
@torch.no_grad()
def test_trainable_tokens_begin_as_they_are(tied):
    plain = small_model(tie_word_embeddings=tied)(input_ids=SOURCE, labels=LABELS).loss
    config = LoraConfig(r=2, target_modules=["q_proj"], trainable_token_indices=[5, 6, 7], task_type="SEQ_2_SEQ_LM")
    model = get_peft_model(small_model(tie_word_embeddings=tied), config).eval()
    torch.testing.assert_close(model(input_ids=SOURCE, labels=LABELS).loss, plain)


def test_prefix_tuning_learns():
    config = PrefixTuningConfig(num_virtual_tokens=3, task_type="SEQ_2_SEQ_LM")
    model = get_peft_model(small_model(), config).train()
    model(input_ids=SOURCE, attention_mask=torch.ones_like(SOURCE), labels=LABELS).loss.backward()
    assert all(p.grad is not None and p.grad.any() for p in model.parameters() if p.requires_grad)
