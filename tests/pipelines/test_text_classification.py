"""Pipelines that classify texts: those of Transformers, with inputs that are checked, and masks."""

from functools import cache

import pytest
import torch
from head_cases import head
from question_cases import tiny_tokenizer
from tiny_encoders import encoder_config
from transformers import (
    BertForSequenceClassification,
    RobertaForSequenceClassification,
    TextClassificationPipeline,
    pipeline,
)

from crossmask import masks
from crossmask.pipelines import ClassificationPipeline, PipelineInputError

TEXTS = ["ann left", "bob is in the garden with dora", "carl ?"]


@cache
def classifier():
    torch.manual_seed(0)
    config = encoder_config("bert")
    config.vocab_size, config.num_labels = len(tiny_tokenizer()), 3
    model = BertForSequenceClassification(config).eval()
    return pipeline("crossmask-text-classification", model=model, tokenizer=tiny_tokenizer(), device="cpu")


@cache
def masked_classifier():
    model = head("bert, attention", num_labels=3)
    model.resize_token_embeddings(len(tiny_tokenizer()))
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


def test_a_text_has_a_mask_of_its_own(monkeypatch):
    classify, text = masked_classifier(), TEXTS[1]
    length = len(classify.tokenizer(text)["input_ids"])
    given = (
        {},
        {"cross_mask": "keep((0, 2))"},
        {"cross_mask": torch.arange(length) < 2},
        {"encoder_mask": "window(1)"},
    )
    items = [{"text": text, **masks} for masks in given] + [TEXTS[0]]
    found = [classify(item) for item in items]
    with torch.no_grad():
        inputs = classify.tokenizer(text, return_tensors="pt")
        for one, own in zip(found, given, strict=False):
            mask = {key: value[None] if isinstance(value, torch.Tensor) else value for key, value in own.items()}
            assert one["score"] == pytest.approx(classify.model(**inputs, **mask).logits.softmax(-1).max().item())
    assert found[1]["score"] == found[2]["score"] != found[0]["score"] != found[3]["score"]
    for side in ("right", "left"):  # of padding
        monkeypatch.setattr(classify.tokenizer, "padding_side", side)
        batched = classify(items, batch_size=5)
        assert [one["score"] for one in batched] == pytest.approx([one["score"] for one in [*found[:4], *found[4]]])
    by_call = classify(
        [text, {"text": text, "encoder_mask": "window(1)"}], cross_mask=masks.keep((0, 2)), batch_size=2
    )
    assert by_call[0]["score"] == pytest.approx(found[1]["score"])
    with pytest.raises(PipelineInputError, match=r"inputs\[1\] must have no cross_mask beside that of the call"):
        classify([text, items[1]], cross_mask="keep((0, 2))")


def test_all_scores_as_transformers_4_gave_them():
    classify = classifier()
    (scores,) = classify(TEXTS[0], return_all_scores=True)
    assert [one["label"] for one in scores] == list(classify.model.config.id2label.values())
    assert sorted(scores, key=lambda one: -one["score"]) == classify(TEXTS[0], top_k=None)
    assert classify(TEXTS, return_all_scores=True)[0] == scores
    assert classify(TEXTS[0], return_all_scores=False) == classify(TEXTS[0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"foo": 1}, "options must be those of the pipeline or its tokenizer, got 'foo'"),
        ({"num_beams": 2}, "got 'num_beams'"),
        ({"cross_mask": "full()"}, "cross_mask must be left out with BertForSeq.*, which takes no masks"),
        ({"top_k": 2, "return_all_scores": True}, "return_all_scores must be left out beside top_k"),
    ],
)
def test_options_that_nothing_takes_are_refused(options, message):
    with pytest.raises(PipelineInputError, match=message):
        classifier()(TEXTS[0], **options)
    with pytest.raises(PipelineInputError, match=message):
        pipeline(
            "crossmask-text-classification",
            model=classifier().model,
            tokenizer=tiny_tokenizer(),
            device="cpu",
            **options,
        )
    with pytest.raises(PipelineInputError, match=r"inputs\[0\]: cross_mask must be left out with BertForS"):
        classifier()([{"text": "a", "cross_mask": "full()"}])
    with pytest.raises(PipelineInputError, match="cross_mask must be a rule or its text for a whole call"):
        masked_classifier()("ann", cross_mask=torch.ones(3, dtype=torch.bool))


def test_a_text_over_the_limit_is_named_and_cut_on_demand():
    long = "ann is here " * 99
    for pipe in (classifier(), masked_classifier()):
        limit = pipe.model.config.get_text_config().max_position_embeddings
        with pytest.raises(
            PipelineInputError, match=rf"inputs\[1\] must have at most {limit} tokens, which is what the"
        ):
            pipe([TEXTS[0], long])
        assert pipe(long, truncation=True)[0]["score"] > 0
    config = encoder_config("roberta")  # which counts positions from 2
    config.vocab_size, config.num_labels = len(tiny_tokenizer()), 2
    model = RobertaForSequenceClassification(config).eval()
    pipe = pipeline("crossmask-text-classification", model=model, tokenizer=tiny_tokenizer(), device="cpu")
    assert pipe(long, truncation=True)
    with pytest.raises(PipelineInputError, match="the input must have at most 64 tokens"):
        pipe(long)


def test_the_plain_name_takes_masks_for_models_of_crossmask_and_is_transformers_own_for_others():
    for model, kind in ((masked_classifier().model, ClassificationPipeline), (classifier().model, None)):
        for task in ("text-classification", "sentiment-analysis"):
            pipe = pipeline(task, model=model, tokenizer=tiny_tokenizer(), device="cpu")
            assert type(pipe) is (kind or TextClassificationPipeline)
    hidden = [
        masked_classifier()([{"text": t, "cross_mask": "blind((1, 3))"}])
        for t in ("ann bob is here", "dora carl is here")
    ]
    assert hidden[0] == hidden[1]
