"""The formats that records are read from, one function each.

A format is a function under `@register_format("name")` whose keyword-only parameters are the options that a recipe may
give, and which returns a `Dataset`; its docstring says what it reads. Adding one here is all it takes.
"""

import inspect
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset, Features, List, Value, load_dataset

from .cldr import cldr_split
from .reading import parse_json, read_json, read_lines

Loader = Callable[..., Dataset]
Columns = Mapping[str, str | int]
Text = str | list[str]

_FORMATS: dict[str, Loader] = {}


def register_format(name: str) -> Callable[[Loader], Loader]:
    """Makes the decorated function the loader of `format: name`."""

    def register(loader: Loader) -> Loader:
        _FORMATS[name] = loader
        return loader

    return register


def get_format(name: str) -> Loader:
    """The loader of a format; raises ValueError for an unknown one."""
    if name not in _FORMATS:
        raise ValueError(f"unknown data format {name!r}: expected one of {', '.join(sorted(_FORMATS))}")
    return _FORMATS[name]


def check_options(name: str, options: Mapping[str, Any]) -> None:
    """Raises ValueError where `options` are not what the format takes."""
    parameters = inspect.signature(get_format(name)).parameters
    unknown = [key for key in options if key not in parameters]
    if unknown:
        raise ValueError(f"data format {name} has no option {unknown[0]!r}: it takes {', '.join(parameters)}")
    missing = [key for key, given in parameters.items() if given.default is given.empty and key not in options]
    if missing:
        raise ValueError(f"data format {name} needs the option {missing[0]!r}: it takes {', '.join(parameters)}")


@register_format("lines")
def load_lines(*, source: str, target: str, group: str | None = None) -> Dataset:
    """Line-aligned text: line i of `source` belongs to line i of `target`. Empty lines are kept.

    `group` is what the column of that name holds in every row.
    """
    sides = {"source": list(read_lines(source)), "target": list(read_lines(target))}
    counts = [len(lines) for lines in sides.values()]
    if counts[0] != counts[1]:
        raise ValueError(
            f"{source} has {counts[0]} lines and {target} has {counts[1]}: expected as many, line i for line i"
        )
    if group is not None:
        sides["group"] = [group] * counts[0]
    return Dataset.from_dict(sides)


@register_format("tsv")
def load_tsv(*, path: str, columns: Columns | None = None) -> Dataset:
    """Tab-separated values, without quoting.

    `columns` maps a record's columns to the file's: to numbers, counted from 0, in a file without a header, or to the
    names in its first line. Without it the first two are `source` and `target`.
    """
    columns = dict(columns or {"source": 0, "target": 1})
    lines = enumerate(read_lines(path), start=1)
    if not all(isinstance(at, int) for at in columns.values()):
        header = next(lines)[1].split("\t")
        columns = {name: _header_index(path, header, at) for name, at in columns.items()}
    rows = []
    for number, line in lines:
        fields = line.split("\t")
        for name, at in columns.items():
            if int(at) >= len(fields):
                raise ValueError(
                    f"{path}, line {number}: no column {int(at)} for {name!r}, the line has {len(fields)} "
                    "tab-separated columns: complete the line, or map other columns"
                )
        rows.append({name: fields[int(at)] for name, at in columns.items()})
    return _dataset(rows, columns, path)


def _header_index(path: str, header: list[str], at: str | int) -> int:
    if isinstance(at, int):
        return at
    if at not in header:
        raise ValueError(f"{path}, line 1: no column {at!r} in the header: it has {', '.join(header)}")
    return header.index(at)


@register_format("jsonl")
def load_jsonl(*, path: str, columns: Columns | None = None) -> Dataset:
    """JSON lines: one object a line.

    `columns` maps a record's columns to keys of the objects, with dots into nested ones (`translation.en`). Without it
    they are `source` and `target`. Values are text, numbers (taken as text) or lists of text.
    """
    columns = dict(columns or {"source": "source", "target": "target"})
    rows = []
    for number, line in enumerate(read_lines(path), start=1):
        place = f"{path}, line {number}"
        record = parse_json(line, path, number)
        rows.append({name: _text(_lookup(record, str(key), place), place, str(key)) for name, key in columns.items()})
    return _dataset(rows, columns, path)


@register_format("hub")
def load_hub(
    *,
    name: str,
    split: str = "train",
    subset: str | None = None,
    revision: str | None = None,
    columns: Columns | None = None,
) -> Dataset:
    """A dataset of the Hugging Face Hub (or a local folder of the same make), through `datasets.load_dataset`.

    `columns` is as in `jsonl`; without it the dataset's own columns are kept.
    """
    try:
        loaded = load_dataset(name, subset, split=split, revision=revision)
    except OSError as error:
        reason = str(error).split("\n")[0]
        raise OSError(
            f"cannot load the dataset {name!r} from the Hub: {reason}: check the name and the network"
        ) from None
    if columns is None:
        return loaded
    rows = []
    for index, record in enumerate(loaded):
        place = f"dataset {name}, split {split}, row {index}"
        rows.append({key: _text(_lookup(record, str(at), place), place, str(at)) for key, at in columns.items()})
    return _dataset(rows, columns, f"dataset {name}, split {split}")


@register_format("squad")
def load_squad(*, path: str, group: str | None = None) -> Dataset:
    """SQuAD 1.1 JSON: columns `question`, `context` and `answers` (a list of text), and `group` where one is given."""
    document = read_json(path)
    rows = []
    for place, context, question in _squad_questions(document, path):
        answers = [
            _text(_lookup(answer, "text", place), place, "text") for answer in _list(question, "answers", place)
        ]
        if not answers:
            raise ValueError(f"{place}: no answers: expected at least one, as in SQuAD 1.1")
        rows.append({"question": _text(_lookup(question, "question", place), place, "question"), "context": context})
        rows[-1] |= {"answers": answers} | ({} if group is None else {"group": group})
    return _dataset(rows, ("question", "context", "answers", *(() if group is None else ("group",))), path)


def _squad_questions(document: Any, path: str) -> Iterator[tuple[str, str, Any]]:
    for article_at, article in enumerate(_list(document, "data", str(path))):
        for paragraph_at, paragraph in enumerate(_list(article, "paragraphs", f"{path}, data[{article_at}]")):
            place = f"{path}, data[{article_at}].paragraphs[{paragraph_at}]"
            context = _text(_lookup(paragraph, "context", place), place, "context")
            for question_at, question in enumerate(_list(paragraph, "qas", place)):
                yield f"{place}.qas[{question_at}]", str(context), question


@register_format("babi")
def load_babi(*, path: str | Sequence[str]) -> Dataset:
    """bAbI text (Weston et al. 2015): a file, several, or all `qa*.txt` and `qa*.txt.gz` of a folder.

    Columns `question`, `context` (the story's sentences so far, joined by spaces), `answers` (a list of one text),
    `support` (the sentences that the answer follows from, in the file's order), `group` (the task, `qa1` to `qa20`)
    and `story` (the same for all questions about one story).
    """
    rows: list[dict[str, Text]] = []
    for file in _babi_files(path):
        task = match[0] if (match := re.match(r"qa\d+", file.name)) else file.name.split(".")[0]
        rows.extend(_read_babi(file, task))
    return _dataset(rows, ("question", "context", "answers", "support", "group", "story"), path)


def _babi_files(path: str | Sequence[str]) -> list[Path]:
    if not isinstance(path, str | Path):
        return [Path(file) for file in path]
    if not Path(path).is_dir():
        return [Path(path)]
    files = [file for file in Path(path).iterdir() if re.fullmatch(r"qa\d+.*\.txt(\.gz)?", file.name)]
    if not files:
        raise FileNotFoundError(f"{path} has no bAbI files: expected names like qa1_single-supporting-fact_train.txt")
    return sorted(files, key=lambda file: (int(re.findall(r"\d+", file.name)[0]), file.name))


def _read_babi(file: Path, task: str) -> Iterator[dict[str, Text]]:
    sentences: dict[str, str] = {}
    story = 0
    for number, line in enumerate(read_lines(file), start=1):
        match = re.match(r"(\d+) (.*)", line)
        if match is None:
            raise ValueError(f"{file}, line {number}: no sentence number in {line[:40]!r}: expected `N sentence`")
        if match[1] == "1":
            sentences, story = {}, story + 1
        fields = match[2].split("\t")
        if len(fields) == 1:
            sentences[match[1]] = fields[0].strip()
            continue
        question, answer = fields[0].strip(), fields[1].strip()
        if not question or not answer:
            raise ValueError(
                f"{file}, line {number}: a question without text or answer: expected `N question TAB answer`"
            )
        support = fields[2].split() if len(fields) > 2 else []
        if missing := [line for line in support if line not in sentences]:
            raise ValueError(
                f"{file}, line {number}: supporting line {missing[0]!r} is no sentence of the story so far: "
                "expected numbers of its lines, separated by spaces"
            )
        yield {
            "question": question,
            "context": " ".join(sentences.values()),
            "answers": [answer],
            "support": " ".join(sentences[line] for line in support),
            "group": task,
            "story": f"{task}-{story}",
        }


@register_format("cldr")
def load_cldr(
    *,
    split: str = "train",
    size: int = 40_000,
    held_out_size: int = 1500,
    seed: int = 0,
    languages: Sequence[str] = ("de", "fr", "zh"),
) -> Dataset:
    """The embedded corpus: columns `source`, `target` and `group` (the language); see `cldr_corpus`.

    `size` is that of train, `held_out_size` that of validation and of test.
    """
    return cldr_split(split, size if split == "train" else held_out_size, seed, languages)


def _lookup(record: Any, key: str, place: str) -> Any:
    """`record[key]`, with dots into nested objects."""
    value = record
    for name in [key] if isinstance(record, Mapping) and key in record else key.split("."):
        if not isinstance(value, Mapping) or value.get(name) is None:
            has = f"it has {', '.join(map(str, value))}" if isinstance(value, Mapping) else f"it is {value!r:.60}"
            raise ValueError(f"{place}: no column {key!r}: {has}")
        value = value[name]
    return value


def _list(record: Any, key: str, place: str) -> list[Any]:
    value = _lookup(record, key, place)
    if not isinstance(value, list):
        raise ValueError(f"{place}: {key!r} is {type(value).__name__}: expected a list")
    return value


def _text(value: Any, place: str, key: str) -> Text:
    if isinstance(value, bool) or not isinstance(value, str | int | float | list):
        raise ValueError(f"{place}: {key!r} is {type(value).__name__}: expected text, a number or a list of text")
    if isinstance(value, list):
        if not all(isinstance(item, str) for item in value):
            raise ValueError(f"{place}: {key!r} is a list of something else than text: expected a list of text")
        return value
    return str(value)


def _dataset(rows: Sequence[Mapping[str, Text]], columns: Iterable[str], path: Any) -> Dataset:
    if not rows:
        raise ValueError(f"{path} has no records: expected at least one")
    features = {}
    for name in columns:
        kinds = {isinstance(row[name], list) for row in rows}
        if len(kinds) > 1:
            raise ValueError(
                f"{path}: column {name!r} is text in some records and a list in others: make it one of them"
            )
        features[name] = List(Value("string")) if kinds == {True} else Value("string")
    return Dataset.from_dict({name: [row[name] for row in rows] for name in features}, features=Features(features))
