"""Where records come from: a format, its options, and which part to keep, as a recipe declares them.

```yaml
train:      {format: lines, source: train.en.gz, target: train.de.gz}
validation: {format: tsv, path: dev.tsv, columns: {source: 0, target: 1}}
test:       {format: babi, path: babi-en-10k, part: test, held_out: 0.1, split_by: story}
```

Each may be a list of such mappings: their records follow one another.

```yaml
train:
  - {format: tsv, path: tatoeba.tsv, repeat: 2}
  - {format: tsv, path: back-translated.tsv, tag: <BT>}
```

A dataset of the Hub may have a copy in the data directory, which `data_dir` of a run or the environment variable
`CROSSMASK_DATA` names. The copy is read if it exists, else the Hub. Paths in `local` are relative to that directory.

```yaml
train:
  {format: hub, name: user/pairs, local: {format: tsv, path: pairs/train.tsv.gz}}
```
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from itertools import islice
from pathlib import Path
from typing import Any, Literal, get_type_hints

from datasets import Dataset

from ..utils.errors import InputError
from ..utils.type_checks import check_type
from .cache import naming_cache
from .formats import check_options, files_of, load_records, read_records
from .local_copies import DATA_VARIABLE, options_of_copy

Part = Literal["train", "validation", "test"]


@dataclass(frozen=True)
class SourceSpec:
    """What a recipe says of one set of records. `options` go to the format's reader in `formats/`.

    With `held_out`, a fraction, the records of every group are divided into test (that fraction), validation (the same
    fraction again) and train (the rest), and `part` names the one to keep.
    """

    format: str
    options: Mapping[str, Any] = field(default_factory=dict)
    part: Part | None = None  # which part to keep; needs held_out
    held_out: float | None = None  # the fraction of test, and again of validation; needs part
    split_by: str | None = None  # records that are alike in this column stay together
    split_seed: int = 0  # another seed holds out other records
    limit: int | None = None  # keep only this many records, the first
    repeat: int = 1  # give the records this many times, for a small source beside a large one
    tag: str = ""  # goes before every source text; `make_examples` in tasks/ adds it
    local: Mapping[str, Any] | None = None  # the copy to look for in the data directory

    def __post_init__(self) -> None:
        for name, declared in get_type_hints(type(self)).items():
            check_type(name, getattr(self, name), declared)
        check_options(self.format, self.options)
        if (self.part is None) != (self.held_out is None):
            raise InputError(
                f"part and held_out must be given together, got part={self.part} and held_out={self.held_out}; "
                "give both or neither"
            )
        if self.held_out is not None and not 0 < self.held_out < 0.5:
            raise InputError(
                f"held_out must be between 0 and 0.5, got {self.held_out}; give the fraction of test, which is that "
                "of validation too"
            )
        if self.held_out is None and self.split_by is not None:
            raise InputError(
                f"split_by must come with held_out, without which it does nothing, got {self.split_by!r}; give "
                "held_out and part too, or leave it out"
            )
        for name in ("limit", "repeat"):
            number = getattr(self, name)
            if number is not None and number < 1:
                raise InputError(f"{name} must be at least 1, got {number}")

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any], data_dir: str | Path | None = None) -> "SourceSpec":
        """A spec from its flat form in a recipe, where this class's fields stand beside the format's options.

        `local` is another such mapping. Where the data directory has all of its files, it is read instead, with the
        fields of this class that it does not set itself.

        Args:
            data_dir: the data directory; without it the one that `CROSSMASK_DATA` names, if it is set.

        Raises:
            ValueError: a declaration that does not fit its format, a data directory that does not exist, or one that
                has some of the files of a copy and lacks others.
        """
        if "format" not in mapping:
            raise InputError(
                f"a data source must have a format, got {', '.join(map(str, mapping)) or 'nothing'}; add one, such as "
                "format: tsv"
            )
        own_fields = {item.name for item in fields(cls)} - {"options"}
        spec = cls(
            **{key: value for key, value in mapping.items() if key in own_fields},
            options={key: value for key, value in mapping.items() if key not in own_fields},
        )
        if spec.local is None:
            return spec
        shared = {key: value for key, value in mapping.items() if key in own_fields - {"format", "local"}}
        copy = cls.from_mapping({**shared, **spec.local})
        if copy.local is not None:
            raise InputError("local must be one mapping, got another local in it; give the files that are the copy")
        options = options_of_copy(copy.format, copy.options, data_dir)
        return spec if options is None else replace(copy, options=options)


@contextmanager
def _naming_the_copy(spec: SourceSpec) -> Iterator[None]:
    """Say in the error that a local copy would do, where a dataset cannot be fetched."""
    try:
        yield
    except OSError as error:
        if spec.local is None or error.errno is not None:
            raise
        copy = SourceSpec.from_mapping(spec.local)
        first = files_of(copy.format, copy.options)[0]
        raise OSError(f"{error}; or set {DATA_VARIABLE} (or data_dir) to a folder that holds {first}") from None


def name_sources(
    name: str, sources: Mapping[str, Any] | Sequence[Mapping[str, Any]], data_dir: str | Path | None = None
) -> dict[str, SourceSpec]:
    """What a recipe gives as `train`, `validation` or `test`, one mapping or a list, each by its name in errors.

    ```python
    >>> list(name_sources("train", [{"format": "tsv", "path": "a.tsv"}, {"format": "tsv", "path": "b.tsv"}]))
    ['train[0]', 'train[1]']
    ```

    Raises:
        ValueError: an empty list, or a source that is not declared as its format wants; the message has its name.
    """
    is_one = isinstance(sources, Mapping)
    mappings = {name: sources} if is_one else {f"{name}[{index}]": source for index, source in enumerate(sources)}
    if not mappings:
        raise InputError(f"{name} must have at least one source, got an empty list; add one")
    specs = {}
    for place, mapping in mappings.items():
        if not isinstance(mapping, Mapping):
            raise InputError(f"{place} must be a mapping, got {mapping!r}; write {{format: tsv, path: pairs.tsv}}")
        try:
            specs[place] = SourceSpec.from_mapping(mapping, data_dir)
        except InputError as error:
            raise InputError(f"{place}: {error}") from error
    return specs


def load_split(spec: SourceSpec | Mapping[str, Any]) -> Dataset:
    """The records that a spec, or its mapping in a recipe, declares.

    ```python
    >>> load_split({"format": "cldr", "split": "test", "size": 300, "held_out_size": 30}).column_names
    ['source', 'target', 'group']
    ```

    Returns:
        Columns of text: `source` and `target` (translation) or `question`, `context` and `answers`, a list (question
        answering), `group` where metrics are broken down, and whatever else the spec maps.
    """
    if not isinstance(spec, SourceSpec):
        spec = SourceSpec.from_mapping(spec)
    with _naming_the_copy(spec):
        dataset = load_records(spec.format, spec.options)
    if spec.part is not None and spec.held_out is not None:
        dataset = split_held_out(dataset, spec.held_out, seed=spec.split_seed, by=spec.split_by)[spec.part]
        if len(dataset) == 0:
            raise InputError(
                f"the {spec.part} part must have at least one record, got none with held_out={spec.held_out}; "
                f"{'raise' if spec.part != 'train' else 'lower'} held_out"
            )
    dataset = dataset if spec.limit is None else dataset.select(range(min(spec.limit, len(dataset))))
    return dataset if spec.repeat == 1 else dataset.repeat(spec.repeat)


def stream_split(spec: SourceSpec | Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The records of `load_split`, read one by one, for data larger than memory.

    Raises:
        ValueError: at the first record, for a `part`, which is known only when all records were read.
    """
    if not isinstance(spec, SourceSpec):
        spec = SourceSpec.from_mapping(spec)
    if spec.part is not None:
        raise InputError(
            f"part must be left out where records are read as a stream, got {spec.part!r}; hold records out in a "
            "file of their own"
        )
    with _naming_the_copy(spec):
        for _ in range(spec.repeat):
            yield from islice(read_records(spec.format, spec.options), spec.limit)


def split_held_out(
    dataset: Dataset, fraction: float, *, seed: int = 0, by: str | None = None, group: str = "group"
) -> dict[Part, Dataset]:
    """Divides records into `train`, `validation` and `test`; the held-out two have `fraction` of every group each.

    A hash of the record and the seed decides where a record goes. So a split is the same in every process and in any
    order of the records, and equal records are always in the same part.

    Args:
        by: the column that keeps records together; without it, only equal records are.
        group: the column whose every value is divided by itself, if there is one.
    """
    if by is not None and by not in dataset.column_names:
        raise InputError(f"split_by must be one of the columns {', '.join(dataset.column_names)}, got {by!r}")
    keys_of_rows = dataset[by][:] if by else [repr(sorted(record.items())) for record in dataset]
    groups = dataset[group][:] if group in dataset.column_names else [None] * len(dataset)
    rows_of: dict[str, dict[str, list[int]]] = {}
    for index, (key, name) in enumerate(zip(keys_of_rows, groups, strict=True)):
        rows_of.setdefault(str(name), {}).setdefault(str(key), []).append(index)  # either may be a list
    parts: dict[Part, list[int]] = {"train": [], "validation": [], "test": []}
    for keys in rows_of.values():
        ranked = sorted(keys, key=lambda key: hashlib.blake2b(f"{seed} {key}".encode(), digest_size=16).digest())
        size = round(fraction * len(ranked))
        for rank, key in enumerate(ranked):
            parts["test" if rank < size else "validation" if rank < 2 * size else "train"].extend(keys[key])
    with naming_cache(dataset):
        return {name: dataset.select(sorted(rows)) for name, rows in parts.items()}
