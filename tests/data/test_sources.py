import gzip
import inspect
import json
import os
import tarfile
from dataclasses import fields
from pathlib import Path

import pytest
from datasets import Dataset, List, Value

from crossmask.data.formats import babi, hub, read_parallel_lines, register_format
from crossmask.data.formats.registry import _READERS, check_options
from crossmask.data.sources import SourceSpec, load_split, name_sources, split_held_out, stream_split
from crossmask.data.text_files import read_lines

CORPORA = Path(os.environ.get("CROSSMASK_DATA", Path(__file__).parents[2] / "../shared/data"))


def write(path: Path, content: str | bytes) -> str:
    """Writes text or bytes, compressed where the name ends with .gz."""
    path.parent.mkdir(exist_ok=True)
    raw = content.encode() if isinstance(content, str) else content
    path.write_bytes(gzip.compress(raw) if path.suffix == ".gz" else raw)
    return str(path)


@pytest.fixture(params=["", ".gz"])
def suffix(request):
    return request.param


def test_lines(tmp_path, suffix):
    source = write(tmp_path / f"a.en{suffix}", "one\ntwo\n\n")
    target = write(tmp_path / f"a.de{suffix}", "eins\r\nzwei\x85\nleer")
    loaded = load_split({"format": "lines", "source": source, "target": target, "group": "de"})
    assert loaded[:] == {
        "source": ["one", "two", ""],
        "target": ["eins", "zwei\x85", "leer"],
        "group": ["de"] * 3,
    }


def test_lines_of_several_files(tmp_path):
    files = {f"{name}.{side}": write(tmp_path / f"{name}.{side}", f"{name}{side}\n") for name in "ab" for side in "st"}
    source = {"format": "lines", "source": [files["a.s"], files["b.s"]], "target": [files["a.t"], files["b.t"]]}
    assert load_split(source)[:] == {"source": ["as", "bs"], "target": ["at", "bt"]}
    assert list(stream_split(source)) == list(load_split(source))
    write(tmp_path / "b.t", "one\ntwo\n")
    with pytest.raises(ValueError, match=r"b\.s and .*b\.t must have the same number of lines, got 1 and 2"):
        load_split(source)


def test_byte_order_mark_is_not_text(tmp_path):
    assert list(read_lines(write(tmp_path / "a.txt", b"\xef\xbb\xbfone\n\xef\xbb\xbftwo"))) == ["one", "\ufefftwo"]


def test_tsv_by_number_and_by_header(tmp_path, suffix):
    plain = write(tmp_path / f"a.tsv{suffix}", 'a\tb\tc "d\n1\t2\t3\n')
    assert load_split({"format": "tsv", "path": plain})[:] == {"source": ["a", "1"], "target": ["b", "2"]}
    numbered = load_split({"format": "tsv", "path": plain, "columns": {"source": 2, "target": 0}})
    assert numbered[:] == {"source": ['c "d', "3"], "target": ["a", "1"]}
    named = load_split({"format": "tsv", "path": plain, "columns": {"source": "b", "target": "a"}})
    assert named[:] == {"source": ["2"], "target": ["1"]}


def test_jsonl_takes_nested_keys_numbers_and_lists(tmp_path, suffix):
    lines = [{"translation": {"en": "a", "de": "b"}, "id": 7, "refs": ["x", "y"]}]
    path = write(tmp_path / f"a.jsonl{suffix}", "\n".join(map(json.dumps, lines)))
    columns = {"source": "translation.en", "target": "translation.de", "group": "id", "references": "refs"}
    loaded = load_split({"format": "jsonl", "path": path, "columns": columns})
    assert loaded[0] == {"source": "a", "target": "b", "group": "7", "references": ["x", "y"]}


def test_squad(tmp_path, suffix):
    qas = [
        {"question": "Who?", "answers": [{"text": "Ada", "answer_start": 0}, {"text": "did", "answer_start": 7}]},
        {"question": "Where?", "answers": [], "is_impossible": True},
    ]
    document = {"data": [{"paragraphs": [{"context": "Ada L. did.", "qas": qas}]}]}
    path = write(tmp_path / f"a.json{suffix}", json.dumps(document, indent=1))
    loaded = load_split({"format": "squad", "path": path, "group": "en"})
    answers = {"text": ["Ada", "did"], "answer_start": [0, 7]}
    assert loaded[0] == {"question": "Who?", "context": "Ada L. did.", "answers": answers, "group": "en"}
    assert loaded[1]["answers"] == {"text": [], "answer_start": []}


STORIES = """\
1 Mary moved to the bathroom.
2 Where is Mary? \tbathroom\t1
3 John went out.
4 Where is John? \tout\t3
1 The office is east of the hall.
2 How do you go? \ts,e\t1
"""


def test_babi(tmp_path, suffix):
    write(tmp_path / f"qa10_b_train.txt{suffix}", STORIES.replace("Mary", "Eve"))
    write(tmp_path / f"qa2_a_train.txt{suffix}", STORIES)
    write(tmp_path / "README.txt", "no task")
    loaded = load_split({"format": "babi", "path": str(tmp_path)})
    assert loaded["group"][:] == ["qa2"] * 3 + ["qa10"] * 3
    assert loaded["story"][:] == ["qa2-1", "qa2-1", "qa2-2", "qa10-1", "qa10-1", "qa10-2"]
    assert loaded[1] == {
        "question": "Where is John?",
        "context": "Mary moved to the bathroom. John went out.",
        "answers": ["out"],
        "support": "John went out.",
        "group": "qa2",
        "story": "qa2-1",
    }
    assert loaded["context"][2] == "The office is east of the hall."
    assert loaded["support"][2] == "The office is east of the hall."


def test_babi_on_the_hub_has_the_records_of_the_files(tmp_path, monkeypatch):
    story = "1 Mary is here.\n2 Where is Mary?\there\t1\n"
    for name in ("qa1_a_train.txt", "qa13_b_train.txt", "qa3_c_train.txt", "qa1_a_test.txt"):
        write(tmp_path / "en" / name, story)
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as tar:
        tar.add(tmp_path / "en", arcname="tasks/en")
    asked = []
    monkeypatch.setattr(babi, "hf_hub_download", lambda *a, **o: asked.append((a, o)) or str(tmp_path / "a.tar.gz"))
    source = {"format": "babi_hub", "name": "user/babi", "archive": "data/a.tar.gz"}
    loaded = load_split({**source, "members": "*/en/qa[!3]*_train.txt"})
    assert asked == [(("user/babi", "data/a.tar.gz"), {"repo_type": "dataset", "revision": None})]
    files = [str(tmp_path / "en" / name) for name in ("qa1_a_train.txt", "qa13_b_train.txt")]
    assert loaded[:] == load_split({"format": "babi", "path": files})[:]
    with pytest.raises(ValueError, match=r"members must match files of .*, got 'x\*'; give a pattern"):
        load_split({**source, "members": "x*"})
    write(tmp_path / "a.tar.gz", b"no archive")
    with pytest.raises(ValueError, match="must be a readable tar archive"):
        load_split({**source, "members": "*"})


def test_babi_support_keeps_the_order_of_the_file(tmp_path):
    story = write(tmp_path / "qa2.txt", "1 a b.\n2 c d.\n3 e?\tf\t2 1\n4 g?\th\n")
    loaded = load_split({"format": "babi", "path": story})
    assert loaded["support"][:] == ["c d. a b.", ""]
    story = write(tmp_path / "qa3.txt", "1 a b.\n2 c?\td\t1\n3 e?\tf\t2\n")
    with pytest.raises(
        ValueError, match=r"qa3.txt, line 3: supporting lines must be sentences of the story so far, got '2'"
    ):
        load_split({"format": "babi", "path": story})


def test_hub_reads_a_local_dataset_folder(tmp_path):
    rows = "\n".join(json.dumps({"translation": {"en": f"e{i}", "de": f"d{i}"}}) for i in range(3))
    write(tmp_path / "train.jsonl", rows)
    columns = {"source": "translation.en", "target": "translation.de"}
    loaded = load_split({"format": "hub", "name": str(tmp_path), "split": "train", "columns": columns})
    assert loaded[:] == {"source": ["e0", "e1", "e2"], "target": ["d0", "d1", "d2"]}
    assert load_split({"format": "hub", "name": str(tmp_path)}).column_names == ["translation"]


def test_cldr_takes_its_options():
    loaded = load_split(
        {"format": "cldr", "split": "test", "size": 30, "held_out_size": 6, "languages": ["fr"], "limit": 5}
    )
    assert len(loaded) == 5
    assert set(loaded["group"]) == {"fr"}


def broken(tmp_path: Path) -> dict[str, tuple[dict, type[Exception], list[str]]]:
    """A spec, the exception and parts of its message for every kind of bad input."""
    empty, text = write(tmp_path / "empty.txt", ""), write(tmp_path / "three.txt", "a\nb\nc\n")
    two = write(tmp_path / "two.txt", "a\nb\n")
    latin = write(tmp_path / "latin.txt", "a\nGrüße\n".encode("latin-1"))
    cut = tmp_path / "cut.gz"
    cut.write_bytes(gzip.compress(os.urandom(4000).hex().encode())[:-900])
    flipped = tmp_path / "flipped.gz"
    flipped.write_bytes(gzip.compress(b"a\nb\n")[:-8] + b"\0" * 8)
    tsv = write(tmp_path / "a.tsv", "a\tb\nc\n")
    jsonl = write(tmp_path / "a.jsonl", '{"source": "a", "target": "b"}\n{"source": "a", "target": }\n')
    keys = write(tmp_path / "b.jsonl", '{"source": "a", "target": "b"}\n{"source": "a", "other": "b"}\n')
    kinds = write(tmp_path / "c.jsonl", '{"source": "a", "target": {"b": 1}}\n')
    squad = write(
        tmp_path / "squad.json", '{"data": [{"paragraphs": [{"context": "c", "qas": [{"question": "q"}]}]}]}'
    )
    babi = write(tmp_path / "qa1.txt", "1 a.\nb.\n")
    lines = {"format": "lines", "source": text}
    return {
        "empty": ({**lines, "target": empty}, ValueError, ["empty.txt must have at least one line"]),
        "unequal": (
            {**lines, "target": two},
            ValueError,
            ["three.txt and ", "two.txt must have the same number of lines, got 3 and 2"],
        ),
        "missing": (
            {**lines, "target": str(tmp_path / "no.txt")},
            FileNotFoundError,
            ["no.txt must be a text file", "does not exist"],
        ),
        "folder": ({**lines, "target": str(tmp_path)}, FileNotFoundError, ["got a folder"]),
        "encoding": ({**lines, "target": latin}, ValueError, ["latin.txt, line 2", "0xfc at column 3"]),
        "cut": ({**lines, "target": str(cut)}, OSError, ["cut.gz, line", "must be a whole gzip file"]),
        "flipped": ({**lines, "target": str(flipped)}, OSError, ["flipped.gz, line", "must be a whole gzip file"]),
        "tsv": ({"format": "tsv", "path": tsv}, ValueError, ["a.tsv, line 2", "'target'"]),
        "header": (
            {"format": "tsv", "path": tsv, "columns": {"source": "a", "target": "z"}},
            ValueError,
            ["a.tsv, line 1", "'z'", "got a, b"],
        ),
        "json": ({"format": "jsonl", "path": jsonl}, ValueError, ["a.jsonl, line 2, column 27"]),
        "key": ({"format": "jsonl", "path": keys}, ValueError, ["b.jsonl, line 2", "'target'", "source, other"]),
        "kind": (
            {"format": "jsonl", "path": kinds},
            ValueError,
            ["c.jsonl, line 1", "'target' must be text", "got dict"],
        ),
        "squad": (
            {"format": "squad", "path": squad},
            ValueError,
            ["squad.json, data[0].paragraphs[0].qas[0]", "answers"],
        ),
        "babi": ({"format": "babi", "path": babi}, ValueError, ["qa1.txt, line 2", "`N sentence`"]),
        "no_babi": (
            {"format": "babi", "path": str(tmp_path / "sub")},
            OSError,
            ["sub must be a text file", "does not exist"],
        ),
        "format": ({"format": "xml"}, ValueError, ["'xml'", "jsonl"]),
        "no_format": ({"path": tsv}, ValueError, ["must have a format, got path"]),
        "option": ({"format": "tsv", "path": tsv, "sep": ","}, ValueError, ["'sep'", "path, columns"]),
        "no_option": ({"format": "tsv"}, ValueError, ["must have the option 'path'"]),
        "part": ({"format": "tsv", "path": tsv, "part": "dev", "held_out": 0.1}, ValueError, ["'dev'"]),
        "half_a_part": ({"format": "tsv", "path": tsv, "part": "test"}, ValueError, ["give both or neither"]),
        "fraction": ({"format": "tsv", "path": tsv, "part": "test", "held_out": 0.6}, ValueError, ["0.6"]),
        "split_by": (
            {**lines, "target": text, "part": "test", "held_out": 0.4, "split_by": "story"},
            ValueError,
            ["'story'", "source, target"],
        ),
        "no_part": (
            {**lines, "target": text, "part": "test", "held_out": 0.1},
            ValueError,
            ["the test part must have at least one record"],
        ),
        "cldr": ({"format": "cldr", "split": "dev"}, ValueError, ["'dev'"]),
        "repeat": ({"format": "tsv", "path": tsv, "repeat": 0}, ValueError, ["repeat must be at least 1, got 0"]),
        "half_a_repeat": (
            {"format": "tsv", "path": tsv, "repeat": 1.5},
            ValueError,
            ["repeat must be a whole number, got 1.5"],
        ),
        "tag": ({"format": "tsv", "path": tsv, "tag": 2}, ValueError, ["tag must be text, got 2"]),
        "limit": ({"format": "tsv", "path": tsv, "limit": "5"}, ValueError, ["limit must be a whole number, got '5'"]),
        "half_a_limit": (
            {"format": "tsv", "path": tsv, "limit": 2.5},
            ValueError,
            ["limit must be a whole number, got 2.5"],
        ),
        "text_fraction": (
            {"format": "tsv", "path": tsv, "part": "test", "held_out": "0.1"},
            ValueError,
            ["held_out must be a number, got '0.1'"],
        ),
        "split_by_alone": (
            {"format": "babi", "path": babi, "split_by": "story"},
            ValueError,
            ["split_by must come with held_out, without which it does nothing, got 'story'"],
        ),
        "column_number": (
            {"format": "tsv", "path": tsv, "columns": {"source": 0, "target": -1}},
            ValueError,
            ["columns.target must be 0 or more, or a name in the header, got -1"],
        ),
        "column_list": (
            {"format": "tsv", "path": tsv, "columns": ["source", "target"]},
            ValueError,
            ["columns must be a mapping from text to text or a whole number, got ['source', 'target']"],
        ),
        "no_path": ({"format": "tsv", "path": None}, ValueError, ["path must be a path, got None"]),
        "empty_path": ({"format": "squad", "path": ""}, ValueError, ["path must be a path, got ''"]),
        "two_paths": (
            {**lines, "target": [text, two]},
            ValueError,
            ["the same number of files, one or more, got 1 and 2"],
        ),
        "babi_paths": (
            {"format": "babi", "path": [babi, 3]},
            ValueError,
            ["path must be a path or a list, each item a path, got"],
        ),
    }


CASES = (
    "empty unequal missing folder encoding cut flipped tsv header json key kind squad babi no_babi format "
    "no_format option no_option part half_a_part fraction split_by no_part cldr repeat half_a_repeat tag "
    "limit half_a_limit text_fraction split_by_alone column_number column_list no_path empty_path two_paths babi_paths"
)


@pytest.mark.parametrize("case", CASES.split())
def test_bad_input_is_named_in_one_line(tmp_path, case):
    cases = broken(tmp_path)
    assert sorted(cases) == sorted(CASES.split())
    spec, exception, parts = cases[case]
    with pytest.raises(exception) as caught:
        load_split(spec)
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert part in message


def test_hub_failure_is_one_line(monkeypatch):
    def offline(*arguments, **options):
        raise ConnectionError("Couldn't reach 'some/dataset' on the Hub\nTraceback of many lines")

    monkeypatch.setattr(hub, "load_dataset", offline)
    with pytest.raises(
        OSError, match=r"cannot load the dataset 'some/dataset' from the Hub: Couldn't reach"
    ) as caught:
        load_split({"format": "hub", "name": "some/dataset"})
    assert "\n" not in str(caught.value)


def test_options_of_formats_never_hide_the_specs_own():
    own = {field.name for field in fields(SourceSpec)}
    for name, reader in _READERS.items():
        assert not own & set(inspect.signature(reader).parameters), name
        assert reader.__doc__


def test_a_stream_has_the_same_records(tmp_path, suffix):
    tsv = write(tmp_path / f"a.tsv{suffix}", "a\tA\nb\tB\nc\tC\n")
    lines = "".join(json.dumps({"s": n, "t": [n, n]}) + "\n" for n in "xyz")
    jsonl = write(tmp_path / f"b.jsonl{suffix}", lines)
    write(tmp_path / "hub" / f"train.jsonl{suffix}", lines)
    columns = {"columns": {"source": "s", "target": "t"}}
    starts = {"a": 0, "b": 2, "c": 4}
    qas = [
        {"question": f"{n}?", "answers": [{"text": text, "answer_start": at} for text in (n, 2 * n)]}
        for n, at in starts.items()
    ]
    document = {"data": [{"paragraphs": [{"context": "aabbcc", "qas": qas}]}]}
    squad = write(tmp_path / f"c.json{suffix}", json.dumps(document))
    babi = [write(tmp_path / "babi" / f"qa{n}.txt{suffix}", STORIES) for n in (1, 2)]
    for spec in (
        {"format": "squad", "path": squad, "group": "g"},
        {"format": "babi", "path": babi},
        {"format": "babi", "path": str(tmp_path / "babi"), "limit": 4, "repeat": 2},
        {"format": "cldr", "size": 7, "limit": 5},
        {"format": "tsv", "path": tsv, "limit": 2, "repeat": 2},
        {"format": "tsv", "path": tsv, "columns": {"source": "a", "target": "A"}},
        {"format": "jsonl", "path": jsonl, **columns},
        {"format": "lines", "source": tsv, "target": jsonl, "group": "g"},
        {"format": "hub", "name": str(tmp_path / "hub"), **columns},
        {"format": "hub", "name": str(tmp_path / "hub"), "limit": 1},
    ):
        assert list(stream_split(spec)) == list(load_split(spec))


def test_a_stream_reads_no_further_than_it_must(tmp_path):
    path = write(tmp_path / "a.tsv", "a\tA\nb\n")
    records = stream_split({"format": "tsv", "path": path})
    assert next(records) == {"source": "a", "target": "A"}
    with pytest.raises(ValueError, match=r"a.tsv, line 2: must have column 1 for 'target', got 1"):
        next(records)


def test_a_stream_is_not_divided(tmp_path):
    spec = {"format": "tsv", "path": write(tmp_path / "a.tsv", "a\tA\n"), "part": "train", "held_out": 0.1}
    with pytest.raises(
        ValueError, match="part must be left out where records are read as a stream, got 'train'; hold"
    ):
        next(stream_split(spec))


@pytest.fixture
def counted():
    """A format of numbers, and the list of those that were read."""
    read = []

    @register_format("counted")
    def read_counted(*, size: int, bad: int = -1, value: object = None):
        """Numbers as text."""
        for number in range(size):
            read.append(number)
            yield {"source": value} if number == bad else {"source": str(number), "target": [str(number)]}

    yield read
    _READERS.pop("counted")


def test_a_reader_alone_is_a_format(counted):
    loaded = load_split({"format": "counted", "size": 3})
    assert loaded[:] == {"source": ["0", "1", "2"], "target": [["0"], ["1"], ["2"]]}
    assert loaded.features == {"source": Value("string"), "target": List(Value("string"))}
    counted.clear()
    stream = stream_split({"format": "counted", "size": 10**9})
    assert [next(stream)["source"] for _ in range(2)] == ["0", "1"]
    assert counted == [0, 1]
    assert list(stream_split({"format": "counted", "size": 3})) == list(loaded)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 0}, "data format counted must have at least one record, got none"),
        (
            {"size": 2, "bad": 1},
            "record 2 of data format counted must have the columns of the first, source, target, got",
        ),
        ({"size": 1, "bad": 0}, "data format counted: column 'source' must be text .*, got NoneType"),
        ({"size": 1, "bad": 0, "value": 3}, "column 'source' must be text .*, got int"),
        (
            {"size": 1, "sizes": 1},
            "options of data format counted must be among size, bad, value, got 'sizes'; did you mean 'size'",
        ),
        ({"bad": 1}, "data format counted must have the option 'size', got bad; give it"),
        ({"size": "many"}, "size must be a whole number, got 'many'"),
    ],
)
def test_what_a_reader_cannot_give_is_named(counted, options, message):
    with pytest.raises(ValueError, match=message):
        load_split({"format": "counted", **options})


def test_a_name_is_registered_once_and_options_are_keywords(counted):
    with pytest.raises(ValueError, match=r"the name of a data format must be new, got 'tsv', which .*read_tsv reads"):
        register_format("tsv")(lambda: [])
    with pytest.raises(TypeError, match=r"parameters of .* must be keyword-only, got path"):
        register_format("positional")(lambda path: [])
    assert "positional" not in _READERS
    check_options("counted", {"size": 1})


def test_spec_is_flat_in_a_recipe():
    spec = SourceSpec.from_mapping({"format": "lines", "source": "a", "target": "b", "limit": 3})
    assert spec == SourceSpec("lines", {"source": "a", "target": "b"}, limit=3)
    assert read_parallel_lines is _READERS["lines"]


def test_repeated_records_follow_one_another_after_the_limit(tmp_path):
    path = write(tmp_path / "a.tsv", "a\tA\nb\tB\nc\tC\n")
    loaded = load_split({"format": "tsv", "path": path, "limit": 2, "repeat": 2})
    assert loaded["source"][:] == ["a", "b", "a", "b"]


def test_sources_are_named_as_a_recipe_has_them():
    cldr = {"format": "cldr"}
    assert name_sources("test", cldr) == {"test": SourceSpec("cldr")}
    assert list(name_sources("train", [cldr, {**cldr, "repeat": 2}])) == ["train[0]", "train[1]"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([], "train must have at least one source, got an empty list"),
        ([{"format": "cldr"}, "b.tsv"], r"train\[1\] must be a mapping, got 'b.tsv'; write {format: tsv"),
        (
            [{"format": "cldr"}, {"format": "cdlr"}],
            r"train\[1\]: data format must be .*, got 'cdlr'; did you mean 'cldr'",
        ),
    ],
)
def test_the_source_at_fault_is_named(given, message):
    with pytest.raises(ValueError, match=message):
        name_sources("train", given)


def many(groups=("a", "b"), stories=50, questions=4) -> Dataset:
    rows = [
        {"question": f"{group} {story} {question}", "story": f"{group}-{story}", "group": group}
        for group in groups
        for story in range(stories)
        for question in range(questions)
    ]
    return Dataset.from_list(rows)


def test_held_out_is_a_fraction_of_every_group_and_splits_no_story():
    parts = split_held_out(many(), 0.1, by="story")
    assert {name: len(part) for name, part in parts.items()} == {"train": 320, "validation": 40, "test": 40}
    for part in parts.values():
        assert part["group"][:].count("a") == len(part) / 2
    stories = [set(part["story"]) for part in parts.values()]
    assert len(set.union(*stories)) == sum(map(len, stories)) == 100


def test_held_out_depends_on_records_and_seed_alone():
    forward = set(split_held_out(many(), 0.1)["test"]["question"])
    backward = many().select(range(399, -1, -1))
    assert set(split_held_out(backward, 0.1)["test"]["question"]) == forward
    assert set(split_held_out(many(), 0.1, seed=1)["test"]["question"]) != forward


def test_equal_records_stay_on_one_side():
    dataset = Dataset.from_dict({"source": [str(at % 20) for at in range(100)]})
    parts = split_held_out(dataset, 0.2)
    sides = [set(part["source"]) for part in parts.values()]
    assert sum(map(len, sides)) == 20
    assert min(map(len, sides)) == 4


@pytest.mark.skipif(not CORPORA.is_dir(), reason=f"no corpora at {CORPORA}: set CROSSMASK_DATA")
def test_real_corpora():
    multi30k = CORPORA / "multi30k"
    pairs = load_split({"format": "lines", "source": multi30k / "val.en.gz", "target": multi30k / "val.de.gz"})
    assert len(pairs) == 1014
    assert pairs[0]["target"].startswith("Eine Gruppe von Männern")
    assert len(load_split({"format": "squad", "path": CORPORA / "xquad/xquad.en.json.gz"})) == 1190
    story = CORPORA / "babi-en-10k/qa19_path-finding_train.txt.gz"
    assert load_split({"format": "babi", "path": story})[0]["answers"] == ["s,e"]
    assert (
        len(load_split({"format": "babi", "path": story, "part": "test", "held_out": 0.1, "split_by": "story"}))
        == 1000
    )


def test_the_columns_of_jsonl_are_those_that_all_lines_have(tmp_path, caplog):
    answers = {"text": ["b"], "answer_start": [2]}
    rows = [{"text": "a", "label": n, "answers": answers, "source": "web", "note": "c"} for n in range(2)]
    rows[1]["note"] = None
    path = write(tmp_path / "a.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    loaded = load_split({"format": "jsonl", "path": path})
    assert loaded[1] == {"text": "a", "label": "1", "answers": answers, "source": "web"}
    assert "a.jsonl, line 2 has no text in 'note': no record has this column" in caplog.text
