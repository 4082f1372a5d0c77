"""Language modelling: what is scored and how, which models are refused."""

import math

import pytest
import torch
from causal_lms import MODELS, UNPACKABLE, causal_lm

from crossmask.data.sources import SourceSpec
from crossmask.data.tokenizer_training import train_tokenizer
from crossmask.tasks import get_task
from crossmask.tasks.base import Example, LengthLimits
from crossmask.tasks.examples import EvaluationSplit, make_examples, to_features
from crossmask.tasks.language_modeling import Likelihood, start_token_id
from crossmask.utils.errors import InputError

TASK = get_task("language-modeling")
TEXTS = ["ein Haus", "zwei kleine Häuser am Meer", "ein Haus am Meer"]
LONGEST = LengthLimits(256, 64)


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(TEXTS * 5, 280, **TASK.tokenizer_settings)


def examples(*texts: str, group: str | None = None) -> list[Example]:
    return [Example("", text, (text,), group) for text in texts or TEXTS]


def test_a_record_is_a_text_with_its_group():
    assert TASK.example({"text": "ein Haus", "group": "x"}) == Example("", "ein Haus", ("ein Haus",), "x")
    other = get_task("language-modeling", text_column="de")
    assert other.example({"de": "ein Haus", "text": 3}).target == "ein Haus"
    with pytest.raises(InputError, match=r"must have a column 'text'.*set the task option text_column"):
        TASK.example({"de": "ein Haus"})


def test_a_tag_is_refused():
    spec = SourceSpec.from_mapping({"format": "tsv", "path": "a.tsv", "tag": "<BT>"})
    with pytest.raises(InputError, match="tag must be left out for task language-modeling, got '<BT>'"):
        next(make_examples("train", spec, TASK, lambda _: [{"text": "ein Haus"}]))


def test_scores_are_of_tokens_words_and_bytes():
    made = [*examples("ein Haus", group="short"), *examples("ein Häuschen am Meer", group="long")]
    scores = TASK.metrics([Likelihood(4.0, 2), Likelihood(6.0, 3)], made)
    assert scores["perplexity"] == pytest.approx(math.exp(10 / 5))
    assert scores["word_perplexity"] == pytest.approx(math.exp(10 / 6))
    assert scores["bits_per_byte"] == pytest.approx(10 / math.log(2) / (8 + 21))
    assert scores["perplexity_short"] == scores["perplexity_long"] == pytest.approx(math.exp(2))
    assert scores["word_perplexity_long"] == pytest.approx(math.exp(6 / 4))
    assert set(TASK.metric_names(made)) == set(scores)


def test_a_prediction_is_a_likelihood():
    with pytest.raises(TypeError, match="prediction 1 must be a Likelihood, got str"):
        TASK.metrics([Likelihood(1.0, 1), "ein Haus"], examples("a", "b"))


def test_features_are_start_tokens_and_end(tokenizer):
    features = to_features(examples(), TASK, tokenizer, LONGEST)
    for text, ids in zip(TEXTS, features["labels"], strict=True):
        assert (ids[0], ids[-1]) == (tokenizer.bos_token_id, tokenizer.eos_token_id)
        assert tokenizer.decode(ids, skip_special_tokens=True) == text


@pytest.mark.parametrize(("overlong", "count"), [("split", 4), ("truncate", 3), ("drop", 2)])
def test_a_long_text_is_split_cut_or_dropped(tokenizer, overlong, count):
    whole = to_features(examples(), TASK, tokenizer, LONGEST)["labels"]
    longest = len(whole[1]) - 1
    features = to_features(examples(), TASK, tokenizer, LengthLimits(256, longest, overlong))
    assert len(features) == count
    assert max(map(len, features["labels"])) <= longest
    if overlong == "split":
        assert features["example"][:] == [0, 1, 1, 2]
        assert [id_ for piece in features["labels"][1:3] for id_ in piece[1:]] == whole[1][1:]


def test_a_long_text_is_refused_by_default(tokenizer):
    with pytest.raises(InputError, match=r"example 1: its text must have at most max_target_length=8 tokens .*got"):
        to_features(examples(), TASK, tokenizer, LengthLimits(256, 8))


def predictions(model, tokenizer, limits: LengthLimits) -> list[Likelihood]:
    split = EvaluationSplit(examples(), to_features(examples(), TASK, tokenizer, TASK.evaluation_limits(limits)))
    with torch.no_grad():
        batch = TASK.collator(model.config)(split.features.to_list())
        outputs = TASK.evaluate_batch(model, tokenizer, batch, None).predictions
    items = split.by_example(dict(enumerate(outputs)))
    return [TASK.combine(found, split.examples[at]) for at, found in enumerate(items)]


def test_a_likelihood_is_the_models_own_loss(tokenizer):
    model = causal_lm("llama")
    for text, found in zip(TEXTS, predictions(model, tokenizer, LONGEST), strict=True):
        ids = torch.tensor([[*tokenizer(text).input_ids, tokenizer.eos_token_id]])
        with torch.no_grad():
            mean = model(input_ids=ids, labels=ids).loss.item()
        assert found.tokens == ids.shape[1] - 1
        assert found.negative_log_likelihood == pytest.approx(mean * found.tokens, rel=1e-5)


@pytest.mark.parametrize("overlong", ["error", "drop", "truncate", "split"])
def test_all_of_a_long_text_is_scored(tokenizer, overlong):
    model = causal_lm("llama")
    whole = predictions(model, tokenizer, LONGEST)
    pieces = predictions(model, tokenizer, LengthLimits(256, 9, overlong))
    assert [found.tokens for found in pieces] == [found.tokens for found in whole]


def test_a_tokenizer_without_bos_starts_with_eos(tokenizer):
    other = train_tokenizer(TEXTS * 5, 280, **TASK.tokenizer_settings)
    assert start_token_id(other) == other.bos_token_id
    other.bos_token = None
    assert start_token_id(other) == other.eos_token_id


@pytest.mark.parametrize("family", MODELS)
def test_families_of_transformers_are_causal_and_packed(family):
    TASK.check_model(causal_lm(family), packed=True)


@pytest.mark.parametrize("family", MODELS)
def test_weights_as_small_as_at_the_start_of_training_suffice(family):
    TASK.check_model(causal_lm(family, initializer_range=0.02), packed=True)


@pytest.mark.parametrize("family", UNPACKABLE)
def test_a_model_that_would_mix_packed_texts_is_refused(family):
    model = causal_lm(family, attention=None)
    TASK.check_model(model, packed=False)
    with pytest.raises(InputError, match=f"batching must be examples or buckets for a {family} model"):
        TASK.check_model(model, packed=True)


def test_a_model_that_looks_ahead_is_refused():
    fields = {"initializer_range": 0.02, "intermediate_size": 48}
    with pytest.raises(InputError, match="a bert model of these fields is not causal"):
        TASK.check_model(causal_lm("bert", **fields), packed=False)
    TASK.check_model(causal_lm("bert", is_decoder=True, **fields), packed=False)
