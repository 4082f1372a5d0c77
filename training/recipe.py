"""A recipe: all groups of its fields. On the command line they are one list of flags."""

from collections.abc import Iterator
from dataclasses import Field, dataclass, fields
from typing import Any, get_type_hints

from .arguments import (
    BatchingArguments,
    DataArguments,
    ModelArguments,
    OptimizationArguments,
    ReportArguments,
    SearchArguments,
    TokenizerArguments,
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
        return cls(*(kind(**{f.name: values[f.name] for f in fields(kind) if f.name in values}) for kind in GROUPS))

    def items(self) -> Iterator[tuple[Field, Any]]:
        """Every field of every group, with its value."""
        for group in vars(self).values():
            for item in fields(group):
                yield item, getattr(group, item.name)


GROUPS = tuple(get_type_hints(RecipeArguments).values())
