import pytest
import torch

from crossmask import CrossMaskConfig, CrossMaskForConditionalGeneration
from crossmask.data.tokenizer_training import train_tokenizer
from crossmask.heads.bio import spans_of_tags
from crossmask.seq2seq.bracket_copy import read_copy
from crossmask.tasks import get_task
from crossmask.tasks.base import LengthLimits
from crossmask.tasks.word_tagging import Tagged

SENTENCES = [
    ("ann left bob in the kitchen", "B-ARG0 B-V B-ARG1 B-ARGM-LOC I-ARGM-LOC I-ARGM-LOC", 1),
    ("bob , who sits there , left", "B-ARG0 O O O O O B-V", 6),
    ("unknowable words sleep", "B-ARG0 I-ARG0 B-V", 2),
]
LIMITS = LengthLimits(40, 60)


@pytest.fixture(scope="module")
def task():
    return get_task("semantic-role-generation", roles=["V", "ARG0", "ARG1", "ARGM-LOC"])


@pytest.fixture(scope="module")
def tokenizer(task):
    texts = [words for words, _, _ in SENTENCES[:2]] * 4
    return train_tokenizer(texts, special_tokens=task.special_tokens, vocab_size=290, model_max_length=40)


@pytest.fixture(scope="module")
def model(tokenizer):
    torch.manual_seed(0)
    return CrossMaskForConditionalGeneration(
        CrossMaskConfig(
            vocab_size=len(tokenizer), hidden_size=16, intermediate_size=32, encoder_layers=1, decoder_layers=1,
            num_attention_heads=2, initializer_range=0.5, dropout=0.0, max_position_embeddings=64,
        )
    ).eval()  # fmt: skip


def examples_of(task):
    return [
        task.example({"words": words.split(), "tags": tags.split(), "predicate": at}) for words, tags, at in SENTENCES
    ]


def rows_of(task, tokenizer, limits=LIMITS):
    columns = task.features(["a", "b", "c"], examples_of(task), tokenizer, limits)
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def test_the_target_is_the_source_with_brackets_and_its_spans_come_back(task, tokenizer):
    brackets, labels = task._brackets(tokenizer)
    for example, row in zip(examples_of(task), rows_of(task, tokenizer), strict=True):
        assert tokenizer.decode(row["labels"]).split()[-1].endswith("</s>")
        outside = {*brackets.openings, brackets.closing, brackets.end}
        assert [token for token in row["labels"] if token not in outside] == row["copy_ids"]
        mark = tokenizer.get_vocab()["[PREDICATE"]
        assert [token for token in row["input_ids"] if token != mark][:-1] == row["copy_ids"]
        assert row["input_ids"].count(mark) == 1
        state = read_copy(row["copy_ids"], row["copy_words"], row["labels"], brackets)
        spans = [(labels[label], first, last) for label, first, last in state.spans]
        assert task.combine([spans], example) == Tagged(example.tags)


@pytest.mark.parametrize("generation", [{}, {"num_beams": 3}, {"do_sample": True}], ids=["greedy", "beams", "sampled"])
def test_whatever_the_weights_are_what_is_written_is_a_copy_with_brackets(task, tokenizer, model, generation):
    torch.manual_seed(0)
    batch = task.evaluation_collator(model.config)(rows_of(task, tokenizer))
    with torch.no_grad():
        result = task.evaluate_batch(model, tokenizer, batch, {"max_new_tokens": 60, **generation})
        loss = model(**{k: v for k, v in batch.items() if not k.startswith("copy")}).loss
    torch.testing.assert_close((result.loss[0] / result.loss[1]).float(), loss)
    found = []
    for spans, example in zip(result.predictions, examples_of(task), strict=True):
        tags = task.combine([spans], example).tags
        assert len(tags) == len(example.words)
        assert spans_of_tags(tags) == spans
        found += spans
    assert found
    assert task.evaluate_batch(model, tokenizer, batch, None).predictions is None


def test_scores_and_samples_are_those_of_tags(task, tokenizer, model):
    examples = examples_of(task)
    scores = task.metrics([task.perfect_prediction(example) for example in examples], examples)
    assert (scores["f1"], scores["exact_match"]) == (100, 100)
    sample = task.sample(model, tokenizer, examples[2], Tagged(("O", "B-ARG0", "B-V")))
    assert (sample.output, sample.verdict) == ("unknowable [ARG0 words ] [V sleep ]", "differs")


def test_the_code_of_the_card_runs(task, tokenizer, model, capsys):
    exec(task.usage(examples_of(task)[0]), {"model": model, "tokenizer": tokenizer})
    assert len(eval(capsys.readouterr().out)) == 6


def test_what_does_not_fit(task, tokenizer):
    with pytest.raises(ValueError, match=r"^a: its source has 18 tokens and max_source_length is 5: raise it"):
        rows_of(task, tokenizer, LengthLimits(5, 60))
    assert rows_of(task, tokenizer, LengthLimits(5, 60, "drop")) == []
    cut = rows_of(task, tokenizer, LengthLimits(6, 60, "truncate"))
    assert [len(row["input_ids"]) for row in cut] == [6, 5, 5]  # one still has its predicate, marked
    with pytest.raises(ValueError, match="overlong must be error, drop or truncate for task semantic-role-generation"):
        rows_of(task, tokenizer, LengthLimits(5, 60, "split"))
    other = train_tokenizer(["a b"] * 9, vocab_size=270)
    with pytest.raises(ValueError, match=r"must have a token for each bracket, got none for '\[PREDICATE' and 5 more"):
        task.check_tokenizer(other, CrossMaskConfig(vocab_size=len(other)))
    with pytest.raises(ValueError, match="roles must be one label or more"):
        get_task("semantic-role-generation", roles=[])
