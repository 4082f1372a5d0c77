"""Pipelines that label semantic roles: the tags of `label_words`, as spans of the text that was given."""

from functools import cache

import pytest
import torch
from head_cases import head
from question_cases import tiny_tokenizer
from tiny_encoders import encoder_config
from transformers import AutoModelForTokenClassification, BertForTokenClassification, pipeline

from crossmask.heads.bio import bio_tags, spans_of_tags
from crossmask.heads.words import label_words
from crossmask.pipelines import PipelineInputError

TAGS = bio_tags(["A", "B"])
SENTENCES = (["ann", "left", "bob", "."], ["carl", "is", "in", "the", "garden", "with", "dora"], ["who", "sits"])


@cache
def tagger(kind: str = "crossmask"):
    """A pipeline whose model has random weights, and scores that are far apart."""
    torch.manual_seed(0)
    if kind == "crossmask":
        model = head("bert, tags", num_labels=len(TAGS))
        model.resize_token_embeddings(len(tiny_tokenizer()))
    else:
        config = encoder_config("bert")
        config.vocab_size, config.num_labels = len(tiny_tokenizer()), len(TAGS)
        model = BertForTokenClassification(config)
    torch.nn.init.normal_(model.classifier.weight)
    with torch.no_grad():
        model.classifier.bias[0] -= 10  # spans in every sentence
    model.config.id2label = dict(enumerate(TAGS))
    return pipeline("crossmask-semantic-role-labeling", model=model.eval(), tokenizer=tiny_tokenizer(), device="cpu")


def test_tags_are_those_of_label_words_for_the_same_predicate():
    label = tagger()
    items = [{"words": words, "predicate": number} for words in SENTENCES for number in range(len(words))]
    wanted = [label_words(label.model, label.tokenizer, item["words"], item["predicate"]) for item in items]
    assert len(set(map(tuple, wanted[:4]))) > 1  # the predicate counts
    for found in (label(items), label(items, batch_size=5), [label(item) for item in items], list(label(iter(items)))):
        assert [one["tags"] for one in found] == wanted
        assert [one["predicate"] for one in found] == [item["words"][item["predicate"]] for item in items]
    assert label([]) == []


def test_a_sentence_has_a_mask_of_its_own(monkeypatch):
    label = tagger()
    items = [{"words": words, "predicate": 0} for words in SENTENCES]
    items += [{**items[1], "encoder_mask": mask} for mask in ("window(0)", torch.eye(len(SENTENCES[1]) + 2).bool())]
    alone = [label(item) for item in items]
    scores = [[argument["score"] for argument in one["arguments"]] for one in alone]
    assert scores[1] != scores[3] == pytest.approx(scores[4])
    for side in ("right", "left"):  # of padding
        monkeypatch.setattr(label.tokenizer, "padding_side", side)
        batched = label(items, batch_size=len(items))
        assert [one["tags"] for one in batched] == [one["tags"] for one in alone]
    assert label(items[:3], encoder_mask="window(0)")[1]["tags"] == alone[3]["tags"]
    with pytest.raises(PipelineInputError, match=r"inputs\[3\] must have no encoder_mask beside that of the call"):
        label(items[:4], encoder_mask="window(0)")
    with pytest.raises(PipelineInputError, match=r"inputs\[0\]: encoder_mask must be left out with BertForTokenC"):
        tagger("transformers")(items[3:4])


@pytest.mark.parametrize("kind", ["crossmask", "transformers"])
def test_arguments_are_spans_of_the_text(kind):
    label = tagger(kind)
    text = "Carl  is in the garden, with Dora."
    found = label({"text": text, "predicate": "is"})
    assert found["predicate"] == "is"
    assert len(found["tags"]) == 9
    assert len(found["arguments"]) == len(spans_of_tags(found["tags"])) > 0
    for argument in found["arguments"]:
        assert text[argument["start"] : argument["end"]] == argument["word"]
        assert 0 < argument["score"] <= 1
        assert f"[{argument['label']} " in found["text"]
    other = label({"text": text, "predicate": 4})
    scores = [[argument["score"] for argument in one["arguments"]] for one in (found, other)]
    assert scores[0] != scores[1]  # the mark counts
    batched = label([{"text": text, "predicate": 1}, {"text": "Ann left", "predicate": "left"}], batch_size=2)
    assert batched[0]["tags"] == found["tags"]


BAD = {
    "text": ("ann left", r"the input must be {'text': ..., 'predicate': ...}, got str"),
    "no predicate": ([{"text": "ann left"}], r"inputs\[0\] must have 'predicate', got 'text'"),
    "both": ([{"text": "a", "words": ["a"], "predicate": 0}], r"inputs\[0\] must have no other keys than 'words'"),
    "bytes": ([{"text": b"a", "predicate": 0}], r"inputs\[0\]: 'text' must be text, got bytes"),
    "empty word": ([{"words": ["a", " "], "predicate": 0}], r"inputs\[0\]: 'words'\[1\] must have something in it"),
    "one text": ([{"words": "ann left", "predicate": 0}], r"inputs\[0\]: 'words' must be a list of words"),
    "twice": ([{"text": "a b a", "predicate": "a"}], r"inputs\[0\]: .* got 'a', which is there 2 times"),
    "number": ([{"text": "a b", "predicate": 2}], r"inputs\[0\]: .* the number of one, 0 to 1, got 2"),
    "long": ([{"text": "ann " * 99, "predicate": 0}], r"inputs\[0\] must have at most \d+ tokens"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_used_is_named(name):
    inputs, message = BAD[name]
    with pytest.raises(PipelineInputError, match=message):
        tagger()(inputs)


def test_a_model_of_other_classes_is_refused():
    config = encoder_config("bert")
    config.vocab_size, config.num_labels = len(tiny_tokenizer()), 3
    with pytest.raises(PipelineInputError, match="the model must have BIO tags as its classes"):
        pipeline(
            "crossmask-semantic-role-labeling",
            model=BertForTokenClassification(config),
            tokenizer=tiny_tokenizer(),
            device="cpu",
        )


@pytest.mark.parametrize("family", ["distilbert", "roberta"])
def test_a_model_that_cannot_be_told_of_the_predicate_is_refused(family):
    config = encoder_config(family)
    config.vocab_size, config.id2label = len(tiny_tokenizer()), dict(enumerate(TAGS))
    model = AutoModelForTokenClassification.from_config(config)
    with pytest.raises(PipelineInputError, match="the model must have marks or token types for the predicate, got"):
        pipeline("semantic-role-labeling", model=model, tokenizer=tiny_tokenizer(), device="cpu")
