"""Texts as vectors: what they are of each kind of model, and that batches change nothing."""

import pytest
import torch
from question_cases import tiny_tokenizer
from tiny_encoders import encoder_config
from transformers import AutoModel, AutoModelForSequenceClassification, BertModel

from crossmask import (
    CrossMaskForQuestionAnswering,
    CrossMaskForSequenceClassification,
    CrossMaskForTokenClassification,
    CrossMaskModel,
    encode_texts,
)
from crossmask.utils.errors import InputError

TEXTS = ["ann is here", "bob sits in the garden near carl and dora", "who left ?"]


def model_of(kind: str):
    torch.manual_seed(0)
    family = "bert" if kind == "classifier" else kind if kind in ("bart", "bert") else "crossmask"
    config = encoder_config(family)
    config.vocab_size = len(tiny_tokenizer())
    if kind == "memory":
        config.memory_length = 3
    if kind == "classifier":
        return CrossMaskForSequenceClassification.from_encoder_pretrained(BertModel(config), initializer_range=0.3)
    return CrossMaskModel(config).eval() if family == "crossmask" else AutoModel.from_config(config).eval()


def encode(kind: str, texts=TEXTS, **options) -> torch.Tensor:
    return encode_texts(model_of(kind), tiny_tokenizer(), texts, **options)


@pytest.mark.parametrize("kind", ["classifier", "memory", "crossmask", "bert", "bart"])
def test_vectors_do_not_depend_on_the_batch(kind):
    found = encode(kind)
    assert found.shape == (3, 96 if kind == "memory" else 32)
    alone = torch.cat([encode(kind, [text]) for text in TEXTS])
    torch.testing.assert_close(found, alone, rtol=1e-4, atol=1e-4)
    assert (found[0] - found[2]).abs().max() > 1e-3
    torch.testing.assert_close(encode(kind, batch_tokens=12), found, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(encode(kind, normalize=True).norm(dim=1), torch.ones(3))


def test_vectors_are_what_each_kind_of_model_has():
    inputs = tiny_tokenizer()(TEXTS[1], return_tensors="pt")
    with torch.no_grad():
        expected = model_of("classifier")(**inputs).pooler_output
        torch.testing.assert_close(encode("classifier", TEXTS[1:2]), expected)
        expected = model_of("bert")(**inputs).last_hidden_state.mean(1)
        torch.testing.assert_close(encode("bert", TEXTS[1:2]), expected)
        memory = model_of("memory").encoder(input_ids=inputs["input_ids"]).last_hidden_state
        torch.testing.assert_close(encode("memory", TEXTS[1:2]), memory.flatten(1))


@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert", "deberta-v2"])
def test_below_a_head_of_transformers_are_the_states_of_its_encoder(family):
    torch.manual_seed(0)
    config = encoder_config(family)
    config.vocab_size = len(tiny_tokenizer())
    model = AutoModelForSequenceClassification.from_config(config).eval()
    encoder = AutoModel.from_config(config).eval()
    encoder.load_state_dict(model.base_model.state_dict(), strict=False)
    found = encode_texts(model, tiny_tokenizer(), TEXTS)
    torch.testing.assert_close(found, encode_texts(encoder, tiny_tokenizer(), TEXTS))


def test_of_a_tagger_and_of_a_reader():
    tagger = CrossMaskForTokenClassification.from_encoder_pretrained(model_of("bert"), encoder_mask="window(1)").eval()
    free = CrossMaskForTokenClassification.from_encoder_pretrained(model_of("bert")).eval()
    found, unmasked = (encode_texts(model, tiny_tokenizer(), TEXTS) for model in (tagger, free))
    torch.testing.assert_close(unmasked, encode("bert"))
    assert (found - unmasked).abs().max() > 1e-3  # the mask of the config holds
    reader = CrossMaskForQuestionAnswering.from_encoder_pretrained(model_of("bert"))
    with pytest.raises(InputError, match="model must read texts without questions"):
        encode_texts(reader, tiny_tokenizer(), TEXTS)


def test_masks_hold_for_all_texts():
    hidden = encode("classifier", ["ann is here", "ann left here"], cross_mask="blind((2, 3))")
    assert torch.equal(hidden[0], hidden[1])
    with pytest.raises(TypeError, match="cross_mask must be left out for BertModel, which takes none"):
        encode("bert", cross_mask="full()")


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ("ann", r"texts must be a list of texts, got one text 'ann'; write \[text\]"),
        ([b"ann"], r"texts\[0\] must be text, got bytes"),
        (["ann", None], r"texts\[1\] must be text, got NoneType"),
        ([], "texts must have at least one text"),
        (["ann", " "], r"texts\[1\] must have something in it, got ' '; leave it out"),
        (["ann", "bob " * 80], r"texts\[1\] has 82 tokens, and the model takes 64; split it, or give truncate=True"),
    ],
)
def test_texts_that_cannot_be_encoded(texts, message):
    with pytest.raises(ValueError, match=message):
        encode("classifier", texts)


def test_long_texts_are_cut_where_that_is_asked_for():
    torch.testing.assert_close(encode("bert", ["bob " * 80], truncate=True), encode("bert", ["bob " * 62]))
