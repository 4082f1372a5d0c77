"""Examples of one source and of several."""

import pytest

from crossmask.tasks import get_task
from crossmask.tasks.examples import read_examples
from crossmask.training.build_tokenizer import build_tokenizer
from crossmask.training.recipe import RecipeArguments


@pytest.fixture
def sources(tmp_path) -> list[dict]:
    (tmp_path / "a.tsv").write_text("one\teins\ntwo\tzwei\n")
    (tmp_path / "b.jsonl").write_text('{"target": "drei", "source": "three", "group": "n"}\n')
    columns = {name: name for name in ("source", "target", "group")}
    return [
        {"format": "tsv", "path": str(tmp_path / "a.tsv"), "repeat": 2},
        {"format": "jsonl", "path": str(tmp_path / "b.jsonl"), "columns": columns, "tag": "<BT>"},
    ]


def test_a_list_is_read_in_its_order(sources):
    examples = read_examples(sources, get_task("translation"), "train")
    assert [example.source for example in examples] == ["one", "two", "one", "two", "<BT>three"]
    assert [example.target for example in examples] == ["eins", "zwei", "eins", "zwei", "drei"]
    assert [example.group for example in examples] == [None] * 4 + ["n"]
    assert read_examples(sources[0], get_task("translation"), "train") == examples[:4]


def test_a_tag_stands_before_what_the_encoder_reads(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"question": "Who?", "context": "Ann.", "answer": "Ann"}\n')
    columns = {name: name for name in ("question", "context", "answer")}
    source = {"format": "jsonl", "path": str(tmp_path / "a.jsonl"), "columns": columns}
    plain, tagged = (
        read_examples({**source, **tag}, get_task("question-answering"), "train")[0] for tag in ({}, {"tag": "<A>"})
    )
    assert tagged.source == "<A>" + plain.source
    assert tagged.references == plain.references


def test_a_tag_is_one_token_and_changes_no_other(sources):
    recipe = RecipeArguments.of(train=sources, validation=sources, test=sources, tokenizer={"vocab_size": 280})
    task = get_task("translation")
    tokenizer = build_tokenizer(recipe.tokenizer, recipe.data, task, read_examples(sources, task, "train"))
    tagged = tokenizer("<BT>three").input_ids
    assert tagged[1:] == tokenizer("three").input_ids
    assert tokenizer.convert_ids_to_tokens(tagged[0]) == "<BT>"
    assert tokenizer.decode(tagged, skip_special_tokens=True) == "three"


@pytest.mark.parametrize(("temperature", "sizes"), [(1, (40, 4, 1)), (2, (40, 13, 6)), (5, (40, 25, 19))])
def test_smaller_sources_are_repeated_by_temperature(tmp_path, temperature, sizes):
    sources = []
    for name, size in (("a", 40), ("b", 4), ("c", 1)):
        (tmp_path / f"{name}.tsv").write_text("".join(f"{name}{at}\tx\n" for at in range(size)))
        sources.append({"format": "tsv", "path": str(tmp_path / f"{name}.tsv")})
    task = get_task("translation")
    examples = read_examples(sources, task, "train", temperature=temperature, seed=1)
    found = [[one.source for one in examples if one.source[0] == name] for name in "abc"]
    assert tuple(map(len, found)) == sizes
    for texts in found:
        counts = [texts.count(text) for text in set(texts)]
        assert max(counts) - min(counts) <= 1  # none is repeated before all have been
    assert len(set(found[1])) == 4
    assert read_examples(sources, task, "train", temperature=temperature, seed=1) == examples
    others = [read_examples(sources, task, "train", temperature=2, seed=seed) for seed in range(4)]
    assert any(other != others[0] for other in others)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"temperature": 0.5}, "temperature must be at least 1, got 0.5"),
        ({"temperature": 5, "one": True}, "temperature must be left out where train is one source, got 5"),
    ],
)
def test_temperatures_that_cannot_be(sources, changes, message):
    train = sources[0] if changes.pop("one", False) else sources
    with pytest.raises(ValueError, match=message):
        RecipeArguments.of(train=train, validation=sources, test=sources, **changes)


def test_faults_name_the_source_of_the_list(sources, tmp_path):
    task = get_task("translation")
    (tmp_path / "b.jsonl").write_text('{"target": "", "source": "three", "group": "n"}\n')
    with pytest.raises(ValueError, match=r"^train\[1\]: .*b.jsonl, record 1: column 'target' must not be empty"):
        read_examples(sources, task, "train")
    (tmp_path / "b.jsonl").unlink()
    with pytest.raises(OSError, match=r"^train\[1\]: .*b.jsonl must be a text file, .* does not exist"):
        read_examples(sources, task, "train")
    with pytest.raises(ValueError, match=r"^test: .*a.tsv, line 1: must have column 4 for 'target'"):
        read_examples({**sources[0], "columns": {"source": 0, "target": 4}}, task, "test")
