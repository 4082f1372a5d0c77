import pytest
from datasets import Dataset

from crossmask.data.tokenization import Encoder, tokenize
from crossmask.data.tokenizer_training import train_tokenizer
from crossmask.utils.errors import InputError

TEXTS = ["one two three four", "five", "six seven"]
LIMITS = {"max_source_length": 20, "max_target_length": 20}


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(TEXTS * 9, 400)


@pytest.fixture
def dataset():
    # Four, one and two words, each a token, and eos.
    return Dataset.from_dict(
        {"source": TEXTS, "target": TEXTS[::-1], "group": ["a", "b", "c"], "context": ["five"] * 3}
    )


def test_features_end_with_eos_in_order(tokenizer, dataset):
    features = tokenize(dataset, tokenizer, **LIMITS, batch_size=2)
    assert features.column_names == ["input_ids", "labels"]
    assert [tokenizer.decode(ids) for ids in features["input_ids"]] == [text + "</s>" for text in TEXTS]
    assert [tokenizer.decode(ids) for ids in features["labels"]] == [text + "</s>" for text in TEXTS[::-1]]


def test_other_columns_can_be_named(tokenizer, dataset):
    features = tokenize(dataset, tokenizer, **LIMITS, source_column="group", target_column="context")
    assert tokenizer.decode(features["input_ids"][2]) == "c</s>"
    assert tokenizer.decode(features["labels"][2]) == "five</s>"


def test_overlong_is_an_error_that_names_the_example(tokenizer, dataset):
    size = len(tokenizer(TEXTS[0]).input_ids)
    tokenize(dataset, tokenizer, max_source_length=size, max_target_length=size)
    with pytest.raises(
        ValueError, match=rf"^example 0: its source has {size} tokens and max_source_length is {size - 1}"
    ):
        tokenize(dataset, tokenizer, max_source_length=size - 1, max_target_length=20)
    with pytest.raises(
        ValueError, match=rf"^example 2: its target has {size} tokens and max_target_length is {size - 1}"
    ):
        tokenize(dataset, tokenizer, max_source_length=20, max_target_length=size - 1, batch_size=2)


def test_truncation_keeps_the_start_and_eos(tokenizer, dataset):
    features = tokenize(dataset, tokenizer, max_source_length=3, max_target_length=20, overlong="truncate")
    whole = tokenizer(TEXTS[0]).input_ids
    assert features["input_ids"][0] == [*whole[:2], tokenizer.eos_token_id]
    assert features["labels"][2] == whole


def test_truncation_on_the_left_keeps_the_end_of_a_source(tokenizer, dataset):
    left = train_tokenizer(TEXTS, vocab_size=300, truncation_side="left")
    features = tokenize(dataset, left, max_source_length=3, max_target_length=3, overlong="truncate")
    whole = left(TEXTS[0]).input_ids
    assert features["input_ids"][0] == whole[-3:]
    assert features["labels"][0] == [*left(dataset["target"][0]).input_ids[:2], left.eos_token_id]
    with pytest.raises(ValueError, match="truncation_side must be one of left, right, got 'middle'"):
        train_tokenizer(TEXTS, vocab_size=300, truncation_side="middle")


def test_drop(tokenizer, dataset):
    size = len(tokenizer(TEXTS[0]).input_ids)
    features = tokenize(dataset, tokenizer, max_source_length=size - 1, max_target_length=20, overlong="drop")
    assert [tokenizer.decode(ids) for ids in features["input_ids"]] == [text + "</s>" for text in TEXTS[1:]]
    with pytest.raises(ValueError, match="none of 3 examples is left"):
        tokenize(dataset, tokenizer, max_source_length=1, max_target_length=20, overlong="drop")


def test_bad_arguments(tokenizer, dataset):
    with pytest.raises(
        ValueError, match="overlong must be one of error, truncate, drop for a source with its target, got cut"
    ):
        tokenize(dataset, tokenizer, **LIMITS, overlong="cut")
    with pytest.raises(ValueError, match=r"no column 'story'.*source, target"):
        tokenize(dataset, tokenizer, **LIMITS, target_column="story")


def test_what_is_not_text_is_refused(tokenizer):
    with pytest.raises(InputError, match="text 1 of a batch to tokenize must be valid Unicode"):
        Encoder(tokenizer, 9, 9)(["one", "two"], ["a", "b \ud800"], ["a", "b"])


def test_a_full_disk_names_the_folder_of_the_cache(tokenizer, monkeypatch):
    def full(*args, **options):
        raise OSError(28, "No space left on device")

    dataset = Dataset.from_dict({"source": ["a"], "target": ["b"]})
    monkeypatch.setattr(Dataset, "map", full)
    with pytest.raises(OSError, match=r"no space left .*; free space there, or set HF_DATASETS_CACHE.*: '/"):
        tokenize(dataset, tokenizer, **LIMITS)
