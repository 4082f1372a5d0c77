"""Translation: sacreBLEU and chrF with their signatures, and exact match.

A tag for the target language is part of the source text, so it belongs to the data.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from ..utils.errors import InputError
from .base import Example, PrimaryMetric, Scores, members_of_groups
from .bleu import mean_over_groups, tokenizer_for
from .metrics import load_metric
from .records import check_columns, check_text, column, excerpt, group_of, text_column
from .registry import register_task
from .text_to_text import TextToText


@register_task
@dataclass(frozen=True)
class Translation(TextToText):
    """Text into text. Records: a source, a target (a text or a list of alternative texts), optionally a group.

    Args:
        source_column, target_column: where the texts are.
        group_column: the column with the group, usually the target language; every record must have it. None: a column
            `group` is used where there is one.
        tokenize: sacreBLEU's tokenizer. `13a` splits at spaces and punctuation, so where a group's references are
            Chinese, Japanese, Korean or in another script without spaces, `tokenizer_for` them is used in its place.
            Any other tokenizer is used for all.
        lowercase: whether BLEU and chrF ignore case. Exact match never does.

    Metrics: `sacrebleu` (Papineni et al. 2002; Post 2018), `sacrebleu_lowercase` (unless all ignore case), `chrf`
    (Popović 2015), each with its `_signature`, and `exact_match`, the percentage that equals one of the references.
    Where groups need different tokenizers, no corpus BLEU fits all: BLEU of all is then the mean over the groups, and
    its signature ends with `aggregate:mean-of-N-groups`.
    """

    name = "translation"
    primary_metric = PrimaryMetric("sacrebleu", greater_is_better=True)
    metric_modules = ("seq2seq_translation",)

    source_column: str = "source"
    target_column: str = "target"
    group_column: str | None = None
    tokenize: str = "13a"
    lowercase: bool = False

    def __post_init__(self) -> None:
        check_columns(self.source_column, self.target_column)
        # Without sacrebleu a task still makes examples; only its metrics need the library, and say so.
        if find_spec("sacrebleu") is None:
            return
        from sacrebleu.metrics import BLEU

        if self.tokenize not in BLEU.TOKENIZERS:
            known = ", ".join(sorted(BLEU.TOKENIZERS))
            raise InputError(f"tokenize={self.tokenize!r} is not a tokenizer of sacreBLEU; choose one of: {known}")
        try:
            BLEU(tokenize=self.tokenize)  # some need a library or a file; training should not end in finding out
        except (ImportError, RuntimeError, OSError) as error:
            reason = " ".join(str(error).split())
            raise InputError(f"tokenize={self.tokenize!r} cannot be used here: {reason}") from error

    def example(self, record: Mapping[str, Any]) -> Example:
        fix = "set the task option {}_column to one of them, or rename the column"
        source = text_column(record, self.source_column, fix.format("source"))
        targets = column(record, self.target_column, fix.format("target"))
        targets = (targets,) if isinstance(targets, str) or not isinstance(targets, Sequence) else tuple(targets)
        if not targets:
            raise InputError(
                f"column {self.target_column!r} has no text in the record {excerpt(record)}; drop such rows"
            )
        for target in targets:
            check_text(target, self.target_column, record)
        return Example(source, targets[0], targets, group_of(record, self.group_column))

    def metrics(self, predictions: Sequence[str], examples: Sequence[Example]) -> Scores:
        tokenizers = self.tokenizers(examples)
        if len(set(tokenizers.values())) < 2:
            used = next(iter(tokenizers.values()), self.tokenize)
            return self.by_group(predictions, examples, lambda p, e, group: self._score(p, e, used))
        parts: list[Scores] = []

        def score(texts: list[str], of: list[Example], group: str | None) -> Scores:
            if group is None:
                return self._score(texts, of, None)  # without BLEU
            parts.append(self._score(texts, of, tokenizers[group]))
            return parts[-1]

        scores = self.by_group(predictions, examples, score)
        if rest := [index for index, example in enumerate(examples) if example.group is None]:
            texts = [self.postprocess(predictions[index]) for index in rest]
            parts.append(self._score(texts, [examples[index] for index in rest], tokenizers[None]))
        return mean_over_groups(parts) | scores

    def tokenizers(self, examples: Sequence[Example]) -> dict[str | None, str]:
        """The tokenizer for each group; None stands for the examples that belong to no group."""
        groups = members_of_groups(examples)
        if self.tokenize != "13a":
            return dict.fromkeys(groups, self.tokenize)
        references = [example.references for example in examples]
        of_all = tokenizer_for(text for texts in references for text in texts) or self.tokenize
        return {
            group: tokenizer_for(text for index in members for text in references[index]) or of_all
            for group, members in groups.items()
        }

    def _score(self, predictions: list[str], examples: list[Example], tokenize: str | None) -> Scores:
        return load_metric("seq2seq_translation").compute(
            predictions=predictions,
            references=[list(example.references) for example in examples],
            tokenize=tokenize,
            lowercase=self.lowercase,
        )
