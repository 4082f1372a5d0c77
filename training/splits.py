"""Records to splits: examples as text, for scoring, and as token ids, for the model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from ..data.features import tokenize
from ..data.sources import load_split
from ..tasks.base import Example, Task


@dataclass(frozen=True)
class EvaluationSplit(torch.utils.data.Dataset):
    """Examples with their token ids, index by index; items carry their `index`."""

    examples: Sequence[Example]
    features: Dataset

    def __len__(self) -> int:
        return len(self.features)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {**self.features[index], "index": index}


def read_examples(spec: Mapping[str, Any], task: Task, name: str) -> list[Example]:
    """The examples that a recipe's `train`, `validation` or `test` declares.

    Raises:
        ValueError: records that cannot be read; the message starts with `name`.
    """
    try:
        records = load_split(spec)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{name}: {error}") from error
    examples = []
    for number, record in enumerate(records, start=1):
        try:
            examples.append(task.example(record))
        except (ValueError, TypeError) as error:
            place = spec.get("path") or spec.get("source") or spec["format"]
            raise ValueError(f"{name}: {place}, record {number}: {error}") from error
    return examples


def to_features(
    examples: Sequence[Example],
    tokenizer: PreTrainedTokenizerBase,
    max_source_length: int,
    max_target_length: int,
    overlong: str,
) -> Dataset:
    """Token ids of examples, `input_ids` and `labels`.

    Raises:
        ValueError: an example over a limit, unless `overlong` is `"truncate"` or `"drop"`.
    """
    texts = {"source": [e.source for e in examples], "target": [e.target for e in examples]}
    return tokenize(
        Dataset.from_dict(texts),
        tokenizer,
        max_source_length=max_source_length,
        max_target_length=max_target_length,
        overlong=overlong,
    )
