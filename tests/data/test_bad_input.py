"""Files that are not what they should be: either records, or one line that names the file; never another exception."""

import gzip
import json
import os
import random
from pathlib import Path

import pytest

from crossmask.data import text_files
from crossmask.data.formats.hub import read_hub
from crossmask.data.sources import load_split, stream_split
from crossmask.data.text_files import parse_json, parse_yaml, read_text, read_yaml
from crossmask.utils.errors import InputError

SQUAD = {
    "data": [
        {
            "paragraphs": [
                {
                    "context": "Ann is here.",
                    "qas": [{"question": "Who?", "answers": [{"text": "Ann", "answer_start": 0}]}],
                }
            ]
        }
    ]
}
# By format: the file's name, its text, and the options beside its path.
FILES = {
    "lines": ("source.txt", "ein Haus\nzwei Häuser\ndrei\n"),
    "tsv": ("pairs.tsv", "ein Haus\ta house\nzwei Häuser\ttwo houses\n"),
    "jsonl": ("pairs.jsonl", '{"source": "ein", "target": "one"}\n{"source": "zwei", "target": "two"}\n'),
    "squad": ("squad.json", json.dumps(SQUAD, indent=1)),
    "babi": ("qa1_train.txt", "1 Ann is here.\n2 Ben is there.\n3 Where is Ann?\there\t1\n"),
}
STREAMED = ("lines", "tsv", "jsonl")
RECIPE = Path(text_files.__file__).parents[1] / "recipes" / "cldr-demo.yaml"


def spec(name: str, file: Path) -> dict:
    if name != "lines":
        return {"format": name, "path": str(file)}
    target = file.with_name("target.txt")
    target.write_text("a house\ntwo houses\nthree\n")
    return {"format": "lines", "source": str(file), "target": str(target)}


def fault_of(call, *names: str) -> str | None:
    """What is wrong, checked to be one line with one of the names; None where nothing is."""
    text = None
    try:
        call()
    except (InputError, OSError) as error:
        text = str(error)
    if text is not None:
        assert text.strip()
        assert "\n" not in text
        assert any(name in text for name in names), text
    return text


def faults(name: str, file: Path) -> list[str | None]:
    """The same of all ways to read a format."""
    declared = spec(name, file)
    found = [fault_of(lambda: load_split(declared), str(file), str(file.with_name("target.txt")))]
    if name in STREAMED:
        found.append(fault_of(lambda: list(stream_split(declared)), str(file), str(file.with_name("target.txt"))))
    return found


DAMAGES = {
    "empty": (lambda data: b"", "must have at least one line, got an empty file"),
    "nul": (lambda data: data.replace(b"i", b"\0", 1), "must be text, got a NUL byte at column"),
    "utf16": (lambda data: data.decode().encode("utf-16"), "line 1: must be UTF-8"),
    "latin1": (lambda data: b"\xe4 " + data, "line 1: must be UTF-8, got byte 0xe4 at column 1"),
    "surrogate": (lambda data: data + b"\xed\xa0\x80", "must be UTF-8"),
    "cr": (lambda data: data.replace(b"\n", b"\r"), "line 1: lines must end with LF, got CR alone"),
    "gz_garbage": (lambda data: b"\x1f\x8b" + data, "line 1: must be a whole gzip file"),
    "gz_cut": (lambda data: gzip.compress(data)[:-9], "must be a whole gzip file"),
    "gz_tail": (lambda data: gzip.compress(data) + b"garbage", "must be a whole gzip file"),
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", FILES)
def test_a_damaged_file_is_named_with_its_line(tmp_path, name, damage):
    change, message = DAMAGES[damage]
    file = tmp_path / FILES[name][0]
    file.write_bytes(change(FILES[name][1].encode()))
    for text in faults(name, file):
        assert message in text


@pytest.mark.parametrize("name", FILES)
def test_what_is_harmless_is_read(tmp_path, name):
    file = tmp_path / FILES[name][0]
    data = FILES[name][1].encode()
    for variant in (data, b"\xef\xbb\xbf" + data, data.replace(b"\n", b"\r\n"), gzip.compress(data)):
        file.write_bytes(variant)
        assert faults(name, file) == [None] * (2 if name in STREAMED else 1)


@pytest.mark.parametrize("name", FILES)
def test_what_is_not_a_file_is_named(tmp_path, name):
    folder, pipe, absent = tmp_path / "folder", tmp_path / "pipe", tmp_path / "absent"
    folder.mkdir()
    os.mkfifo(pipe)
    for path, message in ((folder, "got a folder"), (pipe, "got a special file"), (absent, "does not exist")):
        if name == "babi" and path == folder:
            message = "must hold bAbI files"
        for text in faults(name, path):
            assert message in text
    for path in (tmp_path / "a\0b", tmp_path / ("x" * 300), Path("/dev/zero")):
        assert fault_of(lambda path=path: load_split(spec(name, tmp_path / "a") | place(name, path)), path.name[:1])


def place(name: str, path: Path) -> dict:
    return {"source" if name == "lines" else "path": str(path)}


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
@pytest.mark.parametrize("name", FILES)
def test_a_file_that_may_not_be_read(tmp_path, name):
    file = tmp_path / FILES[name][0]
    file.write_text(FILES[name][1])
    file.chmod(0)
    assert all("Permission denied" in text for text in faults(name, file))


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("name", FILES)
def test_a_line_that_is_too_long_does_not_fill_the_memory(tmp_path, monkeypatch, name, packed):
    monkeypatch.setattr(text_files, "LARGEST_DOCUMENT", 1000)
    monkeypatch.setattr(text_files.read_lines, "__defaults__", (1000,))
    file = tmp_path / FILES[name][0]
    data = b"x" * 5000
    file.write_bytes(gzip.compress(data) if packed else data)
    for text in faults(name, file):
        assert "line 1: must have at most 1,000 bytes, got more" in text


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("[" * 5000, "nested too deep"),
        ('{"a":' * 5000, "nested too deep"),
        ("9" * 5000, "must be valid JSON: Exceeds the limit"),
        ('{"source": NaN, "target": "b"}', "NaN is not a number in JSON"),
        ('{"source": -Infinity, "target": "b"}', "-Infinity is not a number in JSON"),
        ('{"source": 1e999, "target": "b"}', "the number 1e999 is out of range"),
        ('{"source": "\\ud800", "target": "b"}', "'source' must be valid Unicode"),
        ('{"source": ["\\udfff"], "target": "b"}', "'source' must be valid Unicode"),
        ('{"source": {"a": [[[]]]}, "target": "b"}', "must be text, a number or a list of text"),
        ('{"source": ' + "[" * 500 + "]" * 500 + ', "target": "b"}', "each item of 'source' must be text, got list"),
        ('{"source": true, "target": "b"}', "must be text, a number or a list of text"),
        ('{"source": null, "target": "b"}', "'source' must have a value, got null"),
        ('{"target": "b"}', "must have column 'source', got target"),
        ("3", "'source' must be in an object, got 3"),
        ("[" * 500 + "]" * 500, "'source' must be in an object, got [[["),
        ("", "must be valid JSON"),
        ("{'source': 1}", "must be valid JSON"),
    ],
)
def test_json_that_holds_no_record(tmp_path, value, message):
    file = tmp_path / "pairs.jsonl"
    file.write_text('{"source": "a", "target": "b"}\n' + value + "\n")
    for text in faults("jsonl", file):
        assert f"{file}, line 2" in text
        assert message in text
    with pytest.raises(InputError):
        load_split({"format": "squad", "path": str(file)})


def changed_squad(**fields):
    document = json.loads(json.dumps(SQUAD))
    question = document["data"][0]["paragraphs"][0]["qas"][0]
    question.update(fields)
    return document


@pytest.mark.parametrize(
    "document",
    [
        [],
        {"data": 3},
        {"data": [3]},
        {"data": [{"paragraphs": {}}]},
        {"data": []},
        changed_squad(answers=[]),
        changed_squad(is_impossible=True),
        changed_squad(answers=[3]),
        changed_squad(answers=[{"text": "Ann"}]),
        changed_squad(answers=[{"text": "Ann", "answer_start": 1}]),
        changed_squad(answers=[{"text": "Ann", "answer_start": "0"}]),
        changed_squad(answers=[{"text": None}]),
        changed_squad(answers=[{"text": "\ud800"}]),
        changed_squad(question={}),
        changed_squad(question="\udcff"),
    ],
)
def test_squad_that_is_not_squad(tmp_path, document):
    file = tmp_path / "squad.json"
    file.write_text(json.dumps(document))
    assert faults("squad", file) != [None]


@pytest.mark.parametrize(
    "text",
    ["no number\n", "1\n", "1 a\n2 b?\tc\t7\n", "1 a\n2 \tc\n", "1 a\n2 b?\t\n", "1 a\n", "\n"],
)
def test_babi_that_is_not_babi(tmp_path, text):
    file = tmp_path / "qa1.txt"
    file.write_text(text)
    assert faults("babi", file) != [None]


@pytest.mark.parametrize(
    "options",
    [
        {"split": "dev"},
        {"size": 1},
        {"held_out_size": -3, "split": "test"},
        {"size": "many"},
        {"languages": []},
        {"languages": ["xx"]},
        {"languages": "de"},
        {"seed": 1.5},
        {"seeds": 1},
    ],
)
def test_options_of_the_embedded_corpus(options):
    assert fault_of(lambda: load_split({"format": "cldr", **options}), "pairs", *options) is not None


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")


HUB_FILES = {
    "whole": ("data.jsonl", b'{"source": "a", "target": "b"}\n', None),
    "not_json": ("data.jsonl", b'{"source": "a", "tar', "cannot read"),
    "nul": ("data.jsonl", b"\0\0\0", "cannot read"),
    "latin1": ("data.csv", b"source,target\n\xe4,b\n", "cannot read"),
    "number": (
        "data.jsonl",
        b'{"source": 3, "target": {"a": 1}}\n',
        "'target' must be text, a number or a list of text, got dict",
    ),
    "parquet": ("data.parquet", b"PAR1 or not", "cannot read"),
    "gzip": ("data.jsonl.gz", b"\x1f\x8b garbage", "cannot read"),
    "nothing": ("data.xyz", b"", "cannot read"),
    "card": ("README.md", b"---\nconfigs: [\n---\n", "cannot read"),
}


@pytest.mark.parametrize("streamed", [True, False])
@pytest.mark.parametrize("case", HUB_FILES)
def test_a_local_folder_of_the_hub_format(tmp_path, cache, case, streamed):
    file, data, message = HUB_FILES[case]
    folder = tmp_path / "corpus"
    folder.mkdir()
    (folder / file).write_bytes(data)
    options = {"name": str(folder), "columns": {"source": "source", "target": "target"}}
    read = (lambda: list(read_hub(**options))) if streamed else (lambda: load_split({"format": "hub", **options}))
    text = fault_of(read, str(folder))
    assert (text is None) if message is None else (message in text)


@pytest.mark.parametrize(
    "name", ["/no/such/corpus", "./corpus", "../corpus", "~/corpus", "a/b/c", "runs/corpus", "a/"]
)
def test_a_folder_that_is_not_there_is_not_looked_for_on_the_hub(monkeypatch, name):
    monkeypatch.setattr(
        "crossmask.data.formats.hub.load_dataset", lambda *args, **options: pytest.fail("asked the Hub")
    )
    assert "does not exist" in fault_of(lambda: load_split({"format": "hub", "name": name}), name)


def test_a_full_disk_of_the_cache_is_named(monkeypatch, tmp_path, cache):
    def full(*args, **options):
        try:
            raise OSError(28, "No space left on device")
        except OSError as error:
            raise ValueError("An error occurred while generating the dataset") from error

    monkeypatch.setattr("crossmask.data.formats.hub.load_dataset", full)
    with pytest.raises(OSError, match=r"no space left for the dataset 'user/name'; free space: '.*cache'"):
        load_split({"format": "hub", "name": "user/name"})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 5000, "nested too deep"),
        ("a: " + "9" * 5000, "Exceeds the limit"),
        ("a: 2024-99-99", "month must be in"),
        ("a: !!int ''", "must be valid YAML"),
        ("a: !!float ''", "must be valid YAML"),
        ("a: !!timestamp x", "must be valid YAML"),
        ("a: !!bool x", "must be valid YAML"),
        ("a: !!python/object:os.system x", "line 1, column 4: must be valid YAML"),
        ('a: "\\ud800"', "must be valid Unicode"),
        ('"\\udfff": a', "must be valid Unicode"),
        ("a: &x [*x]", "must not contain itself"),
        ("a: &x {b: *x}", "must not contain itself"),
        ("{[1]: 2}", "must be valid YAML"),
        ("a: 1\n  b: 2", "line 2, column 4: must be valid YAML"),
        ("a: \x01", "must be valid YAML"),
        (
            "a: &a [x,x,x,x,x,x,x,x,x,x]\n"
            + "".join(f"{b}: &{b} [{','.join([f'*{a}'] * 10)}]\n" for a, b in zip("abcdefg", "bcdefgh", strict=True)),
            "more by its aliases",
        ),
    ],
)
def test_yaml_that_holds_no_value(text, message):
    assert message in fault_of(lambda: parse_yaml(text, "recipe.yaml"), "recipe.yaml")


def test_yaml_that_is_well(tmp_path):
    assert parse_yaml("a: &x [1, 2]\nb: *x\nc: *x", "recipe.yaml") == {"a": [1, 2], "b": [1, 2], "c": [1, 2]}
    file = tmp_path / "recipe.yaml"
    file.write_bytes(b"a: 1\nb: \xe4\n")
    assert "line 2: must be UTF-8" in fault_of(lambda: read_yaml(file), str(file))
    file.write_bytes(b"a: 1\r\nb: x\r\n")
    assert (read_yaml(file), read_text(file)) == ({"a": 1, "b": "x"}, "a: 1\nb: x\n")
    assert parse_json('{"a": 1.5}', "a.json", 1) == {"a": 1.5}


SPLICES = (
    b"\0", b"\r", b"\n", b"\t", b"\xff", b"\xed\xa0\x80", b"\xef\xbb\xbf", b"\xff\xfe", b"[" * 3000, b"{" * 3000,
    b'{"a":' * 2000, b"9" * 5000, b"NaN", b"-Infinity", b"1e999", b'"\\ud800"', b"\\", b'"', b"null", b"&x [*x]",
    b"!!int ''", b"2024-99-99", b"- ", b": ", b"\x1f\x8b", b"\xe2\x80\xa8", b"1 ", b"{}", b"[]", b"*x", b"%", b"?",
)  # fmt: skip


def mutated(data: bytes, rng: random.Random) -> bytes:
    for _ in range(rng.randint(1, 3)):
        start = rng.randrange(len(data) + 1)
        end = min(len(data), start + rng.randrange(1, 12))
        match rng.randrange(5):
            case 0:
                data = data[:start] + rng.choice(SPLICES) + data[start:]
            case 1:
                data = data[:start] + data[end:]
            case 2:
                data = data[:start] + bytes(rng.randrange(256) for _ in range(end - start)) + data[end:]
            case 3:
                data = data[:end] + data[start:]
            case 4:
                data = data[:start] + rng.choice(SPLICES) + data[end:]
    return data


@pytest.mark.parametrize("name", FILES)
def test_mutated_files(tmp_path, name):
    rng, outcomes = random.Random(name), []
    file = tmp_path / FILES[name][0]
    for _ in range(120):
        data = mutated(FILES[name][1].encode(), rng)
        if rng.random() < 0.2:
            data = mutated(gzip.compress(data), rng)
        file.write_bytes(data)
        outcomes += [text is None for text in faults(name, file)]
    assert 0 < sum(outcomes) < len(outcomes)


def test_mutated_recipes(tmp_path):
    rng, outcomes = random.Random(0), []
    file = tmp_path / "recipe.yaml"
    for _ in range(150):
        file.write_bytes(mutated(RECIPE.read_bytes(), rng))
        outcomes.append(fault_of(lambda: read_yaml(file), str(file)) is None)
    assert 0 < sum(outcomes) < len(outcomes)


@pytest.mark.parametrize("text", ["seed: 1\nseed: 2\n", "a: {b: 1, c: 2, b: 3}", "- a: 1\n  a: 1\n"])
def test_a_key_that_stands_twice_is_refused(text):
    with pytest.raises(
        InputError, match=r"r.yaml, line \d, column \d+: must be valid YAML: the key '\w+' is given twice"
    ):
        parse_yaml(text, "r.yaml")


def test_merged_keys_may_be_given_anew():
    text = "base: &base {a: 1, b: 2}\nmore: &more {<<: *base, a: 3}\nlast: {<<: *more, b: 4}\n"
    assert parse_yaml(text, "r.yaml")["last"] == {"a": 3, "b": 4}
