"""Lists of texts in batches of like length."""

import pytest
import torch
from small_models import small_model
from transformers import BartConfig, BartForConditionalGeneration

from crossmask import masks, translate_batch
from crossmask.data.tokenizer import train_tokenizer

TEXTS = ["a dog", "a dog and a cat and a bird are at work in the old house", "", "a cat", "two men and a dog", "a dog"]
LENGTHS = {"min_new_tokens": 5, "max_new_tokens": 5}


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(TEXTS * 3, vocab_size=320)


@pytest.fixture(scope="module")
def model(tokenizer):
    return small_model(vocab_size=len(tokenizer))


def alone(model, tokenizer, text: str, **options) -> str:
    if not text:
        return ""
    inputs = tokenizer([text], return_tensors="pt")
    output = model.generate(input_ids=inputs["input_ids"], **LENGTHS, **options)
    return tokenizer.decode(output[0], skip_special_tokens=True)


@pytest.mark.parametrize("options", [{}, {"num_beams": 3}, {"cross_mask": "wait_k(2)", "encoder_mask": "causal()"}])
@pytest.mark.parametrize("batch_tokens", [1, 20, 1000])
def test_each_text_comes_out_in_its_place_as_it_does_alone(model, tokenizer, options, batch_tokens):
    outputs = translate_batch(model, tokenizer, TEXTS, batch_tokens=batch_tokens, progress=False, **LENGTHS, **options)
    assert outputs == [alone(model, tokenizer, text, **options) for text in TEXTS]
    assert len(set(outputs)) > 2


def test_batches_keep_to_the_budget_longest_first(model, tokenizer, monkeypatch):
    shapes = []
    generate = model.generate
    monkeypatch.setattr(
        model, "generate", lambda **inputs: (shapes.append(inputs["input_ids"].shape), generate(**inputs))[1]
    )
    translate_batch(model, tokenizer, TEXTS, batch_tokens=20, progress=False, **LENGTHS)
    longest = max(len(ids) for ids in tokenizer(TEXTS)["input_ids"])
    assert shapes[0] == (1, longest)
    assert sum(rows for rows, _ in shapes) == len([text for text in TEXTS if text])
    assert all(rows * width <= 20 for rows, width in shapes[1:])
    assert len(shapes) < len(TEXTS)


def test_a_bar_counts_texts_and_only_where_it_is_wanted(model, tokenizer, capsys):
    translate_batch(model, tokenizer, TEXTS, **LENGTHS)
    assert "6/6" in capsys.readouterr().err
    translate_batch(model, tokenizer, TEXTS, progress=False, **LENGTHS)
    assert capsys.readouterr().err == ""


def test_dropout_is_off_and_the_mode_comes_back(tokenizer):
    model = small_model(vocab_size=len(tokenizer), dropout=0.5)
    expected = translate_batch(model, tokenizer, TEXTS, progress=False, **LENGTHS)
    model.train()
    assert translate_batch(model, tokenizer, TEXTS, progress=False, **LENGTHS) == expected
    assert model.training


def test_another_model_of_transformers(tokenizer):
    torch.manual_seed(0)
    config = BartConfig(
        vocab_size=len(tokenizer), d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=16, decoder_ffn_dim=16, max_position_embeddings=64, init_std=0.5,
        pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=1, forced_eos_token_id=None,
    )  # fmt: skip
    bart = BartForConditionalGeneration(config).eval()
    outputs = translate_batch(bart, tokenizer, TEXTS, batch_tokens=30, progress=False, **LENGTHS)
    assert outputs == [alone(bart, tokenizer, text) for text in TEXTS]


def test_nothing_gives_nothing(model, tokenizer):
    assert translate_batch(model, tokenizer, [], progress=False) == []


@pytest.mark.parametrize(
    ("texts", "options", "error", "message"),
    [
        ("a dog", {}, TypeError, r"texts is one text, 'a dog'.*write \[text\]"),
        (["a dog", None], {}, TypeError, r"texts\[1\] is NoneType: expected text"),
        (["a dog", "a dog " * 90], {}, ValueError, r"texts\[1\] has \d+ tokens, more than .*=64: split it"),
        (["a"], {"cross_mask": torch.ones(1, 3, 2).bool()}, TypeError, "cross_mask is laid out .* give a rule"),
        (["a"], {"cross_mask": masks.keep(examples=(((0, 1),),))}, TypeError, "cross_mask is laid out .* give a rule"),
        (["a"], {"num_return_sequences": 2}, ValueError, "one text for each text"),
        (["a"], {"return_dict_in_generate": True}, ValueError, "one text for each text"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named(model, tokenizer, texts, options, error, message):
    with pytest.raises(error, match=message):
        translate_batch(model, tokenizer, texts, progress=False, **options)
