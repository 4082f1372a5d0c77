"""Pipelines that classify texts: those of Transformers, with inputs that are checked."""

from functools import cache

import pytest
import torch
from question_cases import tiny_tokenizer
from tiny_encoders import encoder_config
from transformers import BertForSequenceClassification, TextClassificationPipeline, pipeline

from crossmask.pipelines import ClassificationPipeline, PipelineInputError

TEXTS = ["ann left", "bob is in the garden with dora", "carl ?"]


@cache
def classifier():
    torch.manual_seed(0)
    config = encoder_config("bert")
    config.vocab_size, config.num_labels = len(tiny_tokenizer()), 3
    model = BertForSequenceClassification(config).eval()
    return pipeline("crossmask-text-classification", model=model, tokenizer=tiny_tokenizer(), device="cpu")


def test_labels_are_those_of_transformers():
    pipe = classifier()
    assert type(pipe) is ClassificationPipeline
    plain = TextClassificationPipeline(model=pipe.model, tokenizer=pipe.tokenizer, device="cpu")
    assert pipe(TEXTS[0]) == plain(TEXTS[0])
    assert pipe(TEXTS) == plain(TEXTS)
    assert pipe(TEXTS[0], top_k=2) == plain(TEXTS[0], top_k=2)
    assert list(pipe(text for text in TEXTS)) == plain(TEXTS)
    pair = {"text": TEXTS[0], "text_pair": TEXTS[1]}
    assert pipe([pair]) == plain([pair])
    batched = pipe(TEXTS, batch_size=3)
    assert [one["label"] for one in batched] == [one["label"] for one in plain(TEXTS)]
    assert pipe([]) == []


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (["a", b"x"], r"inputs\[1\] must be text, got bytes; decode it"),
        (None, "the input must be text, got NoneType"),
        (["a", ""], r"inputs\[1\] must have something in it"),
        ([{"text": "a", "pair": "b"}], r"inputs\[0\] must have no other keys than 'text', 'text_pair', got 'pair'"),
        ([{"text": "a", "text_pair": None}], r"inputs\[0\]: 'text_pair' must be text, got NoneType"),
    ],
)
def test_what_cannot_be_used_is_named(inputs, message):
    with pytest.raises(PipelineInputError, match=message):
        classifier()(inputs)
