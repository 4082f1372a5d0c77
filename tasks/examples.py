"""Records to splits: examples as text, for scoring, and as token ids, for the model."""

import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from ..data.sources import SourceSpec, load_split, name_sources
from ..data.tokenization import map_to_features
from ..utils.errors import InputError
from .base import Example, LengthLimits, Task


@dataclass(frozen=True)
class EvaluationSplit(torch.utils.data.Dataset):
    """Examples, and items with their token ids; items carry their `index`.

    `features` has `input_ids`, and `labels` unless the examples are sources alone. The column `example`, where there
    is one, has the index of each item's example; else every item is the example of its index.
    """

    examples: Sequence[Example]
    features: Dataset

    @classmethod
    def of_sources(
        cls, sources: Sequence[str], tokenizer: PreTrainedTokenizerBase, max_source_length: int
    ) -> "EvaluationSplit":
        """Source texts without targets, for `CrossMaskTrainer.predict`.

        Raises:
            ValueError: a text of more tokens than `max_source_length`.
        """
        ids = tokenizer(list(sources), verbose=False)["input_ids"]
        for index, source_ids in enumerate(ids):
            if len(source_ids) > max_source_length:
                raise InputError(
                    f"source {index} must have at most {max_source_length} tokens, got {len(source_ids)}; split it"
                )
        examples = [Example(source=source, target="", references=()) for source in sources]
        return cls(examples, Dataset.from_dict({"input_ids": ids}))

    @property
    def has_targets(self) -> bool:
        return "labels" in self.features.column_names

    def by_example(self, outputs: Mapping[int, Any]) -> list[list[Any]]:
        """What there is for the items, by index, as a list for each example."""
        owners = self.features["example"][:] if "example" in self.features.column_names else range(len(self))
        of_examples: list[list[Any]] = [[] for _ in self.examples]
        for index, owner in enumerate(owners):
            of_examples[owner].append(outputs[index])
        return of_examples

    @property
    def lengths(self) -> tuple[list[int], list[int] | None]:
        """The source and the target tokens of each item; None where labels are not sequences, or there are none."""
        sources = [len(ids) for ids in self.features["input_ids"]]
        labels = self.features["labels"] if self.has_targets else []
        targets = [len(ids) for ids in labels if isinstance(ids, Sequence)]
        return sources, targets if len(targets) == len(sources) else None

    def __len__(self) -> int:
        return len(self.features)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {**self.features[index], "index": index}


def read_examples(
    sources: Mapping[str, Any] | Sequence[Mapping[str, Any]],
    task: Task,
    name: str,
    data_dir: str | None = None,
    temperature: float | None = None,
    seed: int = 0,
) -> list[Example]:
    """The examples that a recipe's `train`, `validation` or `test` declares: of one source, or of a list in its order.

    A source's `tag` stands before the source text of its examples, as Caswell et al. (2019) mark back-translations.

    Args:
        data_dir: has local copies of datasets (`data/sources.py`).
        temperature: by which smaller sources are repeated (`at_temperature`); None for all as they are.
        seed: draws what is repeated once more.

    Raises:
        ValueError: records that cannot be read; the message starts with `name`, or `name[i]` in a list.
        OSError: the same, of files.
    """
    named = name_sources(name, sources, data_dir).items()
    of_sources = [list(make_examples(place, spec, task, load_split)) for place, spec in named]
    if temperature is not None:
        of_sources = at_temperature(of_sources, temperature, seed)
    return [example for examples in of_sources for example in examples]


def at_temperature(of_sources: Sequence[list[Example]], temperature: float, seed: int) -> list[list[Example]]:
    """The examples of sources of unequal sizes, the smaller ones repeated.

    At temperature T a source of n examples has a part in proportion to n^(1/T) (Arivazhagan et al. 2019,
    https://arxiv.org/abs/1907.05019): at 1 it stays as it is, and the higher T is, the more it comes up to the
    largest, all of whose examples are there once. What is no whole repetition is drawn without replacement.

    ```python
    >>> [len(part) for part in at_temperature([["a"] * 1000, ["b"] * 100], 5, seed=0)]
    [1000, 631]
    ```
    """
    largest = max(map(len, of_sources))
    draw = random.Random(seed)
    repeated = []
    for examples in of_sources:
        size = len(examples)
        wanted = round(largest * (size / largest) ** (1 / temperature))
        whole, rest = divmod(wanted, size)
        chosen = sorted(draw.sample(range(size), rest))
        repeated.append([*examples * whole, *(examples[index] for index in chosen)])
    return repeated


def make_examples(
    place: str, spec: SourceSpec, task: Task, load: Callable[[SourceSpec], Iterable[Mapping[str, Any]]]
) -> Iterator[Example]:
    """One source's examples, as `load` gives its records; `place` names it in errors."""
    for number, record in enumerate(_records(place, spec, load), start=1):
        try:
            example = task.example(record)
            example = task.tagged(example, spec.tag) if spec.tag else example
        except (ValueError, TypeError) as error:
            file = spec.options.get("path") or spec.options.get("source") or spec.options.get("name") or spec.format
            raise InputError(f"{place}: {file}, record {number}: {error}") from error
        yield example


def _records(
    place: str, spec: SourceSpec, load: Callable[[SourceSpec], Iterable[Mapping[str, Any]]]
) -> Iterator[Mapping[str, Any]]:
    try:
        yield from load(spec)
    except (ValueError, TypeError) as error:
        raise InputError(f"{place}: {error}") from error
    except OSError as error:
        raise OSError(f"{place}: {error}") from error


def to_features(
    examples: Sequence[Example],
    task: Task,
    tokenizer: PreTrainedTokenizerBase,
    limits: LengthLimits,
    name: Callable[[int], str] = "example {}".format,
) -> Dataset:
    """The task's features of examples; `name` is what an error calls the example at an index.

    Raises:
        ValueError: an example over a limit, unless `overlong` is `"truncate"` or `"drop"`; no example that is left.
    """
    numbers = Dataset.from_dict({"number": range(len(examples))})

    def make_features(_: dict[str, list[int]], indices: list[int]) -> dict[str, list[Any]]:
        names = [name(index) for index in indices]
        columns = task.features(names, [examples[index] for index in indices], tokenizer, limits)
        if "example" in columns:
            columns["example"] = [indices[index] for index in columns["example"]]
        return columns

    limits_in_words = " and ".join(f"{name}={getattr(limits, name)}" for name in task.length_fields)
    return map_to_features(numbers, make_features, limits_in_words)
