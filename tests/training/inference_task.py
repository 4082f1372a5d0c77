"""A task outside of the package, as users write them: whether a premise entails a hypothesis."""

from dataclasses import dataclass, field

from crossmask.tasks import TextClassification, TextPair, register_task
from crossmask.tasks.records import text_column


@register_task
@dataclass(frozen=True)
class NaturalLanguageInference(TextClassification):
    """Pairs of texts that have one of three classes."""

    name = "natural-language-inference"

    labels: list[str] = field(default_factory=lambda: ["entailment", "neutral", "contradiction"])
    text_column: str = "premise"
    second_column: str = "hypothesis"

    def example(self, record):
        first = super().example(record)
        second = text_column(record, self.second_column, "set the task option second_column")
        return TextPair(first.source, first.target, first.references, first.group, second=second)
