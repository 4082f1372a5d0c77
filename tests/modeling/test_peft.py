"""PEFT's adapters compute, learn and merge here as in Transformers' own models."""

import pytest
import torch
from peft import (
    IA3Config,
    LoraConfig,
    PeftModel,
    PrefixTuningConfig,
    PromptEncoderConfig,
    PromptTuningConfig,
    get_peft_model,
)
from small_models import TIES, small_model, tokens

from crossmask import CrossMaskForConditionalGeneration

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


def logits(model) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(input_ids=SOURCE, attention_mask=torch.ones_like(SOURCE), labels=LABELS).logits


def train(model) -> None:
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    for _ in range(2):
        model.train()(input_ids=SOURCE, attention_mask=torch.ones_like(SOURCE), labels=LABELS).loss.backward()
        optimizer.step()
        optimizer.zero_grad()


def embeddings(model) -> list[torch.Tensor]:
    """The weights that are used of the encoder's embedding, the decoder's and the head."""
    return [model.get_encoder().embed_tokens.weight, model.get_decoder().embed_tokens.weight, model.lm_head.weight]


def of_lora(targets, **options) -> LoraConfig:
    return LoraConfig(task_type="SEQ_2_SEQ_LM", r=2, target_modules=targets, **options)


TASK = {"task_type": "SEQ_2_SEQ_LM"}
METHODS = {
    "attention": lambda: of_lora(["q_proj", "v_proj"]),
    "all linear layers": lambda: of_lora("all-linear"),
    "DoRA": lambda: of_lora(["q_proj", "up_proj"], use_dora=True),
    "tokens": lambda: of_lora(["q_proj"], trainable_token_indices=[5, 6, 7]),
    "whole embeddings": lambda: of_lora(["q_proj"], modules_to_save=["embed_tokens", "lm_head"]),
    "IA3": lambda: IA3Config(
        target_modules=["k_proj", "v_proj", "down_proj"], feedforward_modules=["down_proj"], **TASK
    ),
}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("tie", TIES)
def test_adapters_are_saved_loaded_and_merged(tie, method, tmp_path):
    """Merged models are saved as they are, though PEFT says in their config that nothing is tied."""
    fields = {"tie_word_embeddings": tie}
    model = get_peft_model(small_model(**fields), METHODS[method]())
    train(model)
    expected = logits(model)
    assert (expected - logits(small_model(**fields))).abs().max() > 1e-2
    model.save_pretrained(tmp_path / "adapter")
    loaded = PeftModel.from_pretrained(small_model(**fields), tmp_path / "adapter")
    assert torch.equal(logits(loaded), expected)
    merged = loaded.merge_and_unload()
    torch.testing.assert_close(logits(merged), expected, atol=1e-4, rtol=1e-4)
    merged.save_pretrained(tmp_path / "merged")
    again = CrossMaskForConditionalGeneration.from_pretrained(tmp_path / "merged")
    assert torch.equal(logits(again), logits(merged))


@pytest.mark.parametrize(
    "config",
    [
        PromptTuningConfig(num_virtual_tokens=3, **TASK),
        PrefixTuningConfig(num_virtual_tokens=3, **TASK),
        PromptEncoderConfig(num_virtual_tokens=3, encoder_hidden_size=8, **TASK),
    ],
    ids=lambda config: config.peft_type.value,
)
def test_prompts_are_saved_and_loaded(config, tmp_path):
    model = get_peft_model(small_model(), config)
    train(model)
    model.save_pretrained(tmp_path)
    assert torch.equal(logits(PeftModel.from_pretrained(small_model(), tmp_path)), logits(model))


@pytest.mark.parametrize("tie", [True, "embedding"])
@pytest.mark.parametrize(
    "names", [["embed_tokens"], ["model.encoder.embed_tokens"], ["encoder.embed_tokens"], ["embed_tokens", "lm_head"]]
)
def test_embeddings_trained_whole_stay_tied(names, tie, tmp_path):
    """PEFT puts linear layers in the place of all that is tied to the encoder's embedding, embeddings too."""

    def check(model) -> None:
        encoder, decoder, head = embeddings(model)
        assert encoder is decoder
        assert (head is encoder) == (tie is True)

    fields = {"tie_word_embeddings": tie, "vocab_size": 44}
    config = of_lora(["q_proj"], modules_to_save=list(names), ensure_weight_tying=True)
    model = get_peft_model(small_model(**fields), config)
    check(model.get_base_model())
    assert type(model.get_decoder().embed_tokens.modules_to_save["default"]) is torch.nn.Embedding
    torch.testing.assert_close(logits(model), logits(small_model(**fields)))
    before = embeddings(model.get_base_model())[0].detach().clone()
    train(model)
    check(model.get_base_model())
    moved = (embeddings(model.get_base_model())[0] - before).abs().amax(-1)
    assert (moved[SOURCE.unique()] > 0).all()
    expected = logits(model)
    model.save_pretrained(tmp_path / "adapter")
    loaded = PeftModel.from_pretrained(small_model(**fields), tmp_path / "adapter")
    check(loaded.get_base_model())
    assert torch.equal(logits(loaded), expected)
    with loaded.disable_adapter():
        torch.testing.assert_close(logits(loaded), logits(small_model(**fields)))
    merged = loaded.merge_and_unload()
    check(merged)
    assert type(merged.get_decoder().embed_tokens) is type(merged.get_encoder().embed_tokens)
    torch.testing.assert_close(logits(merged), expected, atol=1e-4, rtol=1e-4)
    merged.save_pretrained(tmp_path / "merged")
    again = CrossMaskForConditionalGeneration.from_pretrained(tmp_path / "merged")
    check(again)
    assert torch.equal(logits(again), logits(merged))
    merged.resize_token_embeddings(50, mean_resizing=False)
    check(merged)


def test_the_head_as_the_name_of_all_that_is_tied():
    model = get_peft_model(small_model(), of_lora(["q_proj"], modules_to_save=["lm_head"], ensure_weight_tying=True))
    train(model)
    encoder, decoder, head = embeddings(model.get_base_model())
    assert encoder is decoder
    assert encoder is head
