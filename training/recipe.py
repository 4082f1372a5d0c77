"""A recipe: all groups of its fields. On the command line they are one list of flags."""

from collections.abc import Iterator
from dataclasses import Field, dataclass, fields
from typing import Any, TypeVar

from .arguments import (
    BatchingArguments,
    DataArguments,
    ModelArguments,
    OptimizationArguments,
    ReportArguments,
    SearchArguments,
    TokenizerArguments,
)

Group = TypeVar(
    "Group",
    DataArguments,
    TokenizerArguments,
    ModelArguments,
    BatchingArguments,
    OptimizationArguments,
    ReportArguments,
    SearchArguments,
)


@dataclass
class RecipeArguments:
    """A recipe without Transformers' training arguments.

    On the command line mappings and lists are JSON, or given by key: `--model.dropout 0.3`, `--train.0.limit 9`.
    """

    data: DataArguments
    tokenizer: TokenizerArguments
    model: ModelArguments
    batching: BatchingArguments
    optimization: OptimizationArguments
    report: ReportArguments
    search: SearchArguments

    @classmethod
    def of(cls, **values: Any) -> "RecipeArguments":
        """From fields of any group.

        Raises:
            TypeError: no group has a field of that name.
        """
        known = {item.name for kind in GROUPS for item in fields(kind)}
        if unknown := sorted(values.keys() - known):
            raise TypeError(f"no field is named {unknown[0]!r}")
        return cls(
            data=_group(DataArguments, values),
            tokenizer=_group(TokenizerArguments, values),
            model=_group(ModelArguments, values),
            batching=_group(BatchingArguments, values),
            optimization=_group(OptimizationArguments, values),
            report=_group(ReportArguments, values),
            search=_group(SearchArguments, values),
        )

    def items(self) -> Iterator[tuple[Field, Any]]:
        """Every field of every group, with its value."""
        for group in vars(self).values():
            for item in fields(group):
                yield item, getattr(group, item.name)


def _group(kind: type[Group], values: dict[str, Any]) -> Group:
    return kind(**{item.name: values[item.name] for item in fields(kind) if item.name in values})


GROUPS = (
    DataArguments,
    TokenizerArguments,
    ModelArguments,
    BatchingArguments,
    OptimizationArguments,
    ReportArguments,
    SearchArguments,
)
