"""Translation: sacreBLEU and chrF with their signatures, and exact match.

A tag for the target language is part of the source text, so it belongs to the data.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from ..utils.errors import InputError
from .base import (
    Example,
    PrimaryMetric,
    Scores,
    Task,
    check_text,
    column,
    excerpt,
    group_of,
    register_task,
    text_column,
)
from .metrics import load_metric


@register_task
@dataclass(frozen=True)
class Translation(Task):
    """Text into text. Records: a source, a target (a text or a list of alternative texts), optionally a group.

    Args:
        source_column, target_column: where the texts are.
        group_column: the column with the group, usually the target language; every record must have it. None: a column
            `group` is used where there is one.
        tokenize: sacreBLEU's tokenizer. The group of a Chinese language (`zh`, `zh-Hant`, ...) is scored with `zh`
            where this is `13a`, which leaves Chinese in one piece.
        lowercase: whether BLEU and chrF ignore case. Exact match never does.

    Metrics: `sacrebleu` (Papineni et al. 2002; Post 2018), `sacrebleu_lowercase` (unless all ignore case), `chrf`
    (Popović 2015), each with its `_signature`, and `exact_match`, the percentage that equals one of the references.
    """

    name = "translation"
    primary_metric = PrimaryMetric("sacrebleu", greater_is_better=True)

    source_column: str = "source"
    target_column: str = "target"
    group_column: str | None = None
    tokenize: str = "13a"
    lowercase: bool = False

    def __post_init__(self) -> None:
        # Without sacrebleu a task still makes examples; only its metrics need the library, and say so.
        if find_spec("sacrebleu") is not None:
            from sacrebleu.metrics import BLEU

            if self.tokenize not in BLEU.TOKENIZERS:
                known = ", ".join(sorted(BLEU.TOKENIZERS))
                raise InputError(f"tokenize={self.tokenize!r} is no tokenizer of sacreBLEU; choose one of: {known}")

    def example(self, record: Mapping[str, Any]) -> Example:
        mend = "set the task option {}_column to one of them, or rename the column"
        source = text_column(record, self.source_column, mend.format("source"))
        targets = column(record, self.target_column, mend.format("target"))
        targets = (targets,) if isinstance(targets, str) or not isinstance(targets, Sequence) else tuple(targets)
        if not targets:
            raise InputError(
                f"column {self.target_column!r} has no text in the record {excerpt(record)}; drop such rows"
            )
        for target in targets:
            check_text(target, self.target_column, record)
        return Example(source, targets[0], targets, group_of(record, self.group_column))

    def metrics(self, predictions: Sequence[str], examples: Sequence[Example]) -> Scores:
        return self.by_group(predictions, examples, self._score)

    def _score(self, predictions: list[str], examples: list[Example], group: str | None) -> Scores:
        chinese = group is not None and re.split("[-_]", group.lower())[0] == "zh"
        return load_metric("seq2seq_translation").compute(
            predictions=predictions,
            references=[list(example.references) for example in examples],
            tokenize="zh" if chinese and self.tokenize == "13a" else self.tokenize,
            lowercase=self.lowercase,
        )
