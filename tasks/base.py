"""What a task is: records to examples, examples to features, model outputs to predictions, predictions to scores.

Trainer, report and model card ask the task. What all tasks of a kind answer in the same way is in a subclass of `Task`
that is still abstract, such as `TextToText` (text_to_text.py). A new task is one file: a subclass of its kind under
`@register_task`, then a line in `tasks/__init__.py` that imports it. A task outside the package is a file that a
recipe names in `imports`, with `from crossmask.tasks import ...`.

    from .base import Example, PrimaryMetric
    from .records import text_column
    from .registry import register_task
    from .text_to_text import TextToText

    @register_task
    class Reversal(TextToText):
        name = "reversal"
        primary_metric = PrimaryMetric("exact_match", greater_is_better=True)

        def example(self, record):
            text = text_column(record, "text", fix="rename the column that holds the text")
            return Example(source=text, target=text[::-1], references=(text[::-1],), group=None)

        def metrics(self, predictions, examples):
            return self.by_group(predictions, examples, self.score)

        def score(self, predictions, examples, group):
            hits = sum(p in e.references for p, e in zip(predictions, examples, strict=True))
            return {"exact_match": 100 * hits / len(predictions)}
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import torch
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from ..data.tokenization import Overlong
from ..utils.errors import InputError
from .metrics import check_libraries

Scores = dict[str, float | str]
Collator = Callable[[Sequence[Any]], dict[str, torch.Tensor]]


@dataclass(frozen=True)
class Example:
    """One example as text: what the encoder reads, what the decoder learns, what predictions are held against.

    `references` has at least one text; `target` is what training uses. `group` names the part of the test set that is
    also scored by itself (a language, a subtask); None belongs to no part.
    """

    source: str
    target: str
    references: tuple[str, ...]
    group: str | None = None


@dataclass(frozen=True)
class LengthLimits:
    """The most tokens of an example's two sides, and what becomes of a longer one (`data/tokenization.py`)."""

    max_source_length: int
    max_target_length: int
    overlong: Overlong = "error"


@dataclass(frozen=True)
class BatchResult:
    """What the evaluation of one batch gave.

    Attributes:
        loss: (2,) float64, the summed loss and the number of targets that it was summed over; None without labels.
        predictions: one for each item of the batch, of any type that the task's `metrics` takes; None where only the
            loss was asked for.
    """

    loss: torch.Tensor | None
    predictions: Sequence[Any] | None


@dataclass(frozen=True)
class Sample:
    """A test example with what the model made of it, for people to read; `verdict` is a word on how they compare."""

    source: str
    reference: str
    output: str
    verdict: str


class PrimaryMetric(NamedTuple):
    """The key in `Task.metrics` by which checkpoints are compared."""

    name: str
    greater_is_better: bool


class Task(ABC):
    """How records become examples, and how predictions are scored. Options are the constructor's keywords.

    The methods under *kind* are what tasks of one kind share.

    Attributes:
        name: what a recipe calls it. primary_metric: chooses between checkpoints.
        metric_modules: the modules of `tasks/metrics` that `metrics` loads (`check_libraries`).
        special_tokens: texts that the tokenizer should keep whole.
        auto_class: the Auto class that loads its models.
        pipeline_tag: how the Hub calls it, where that is not its name.
        length_fields: the fields of `LengthLimits` that count; the first limits what a user gives to a model.
        tokenizer_settings: how `train_tokenizer` makes its tokenizers.
        unused_fields: fields of a recipe that would do nothing, with what to do instead.
        bridge_class: the class that joins an encoder and a decoder to a model of the kind; None where there is none.
        adds_head: whether a model to fine-tune may be one without its head, which is new then.
        attaches_masks: whether models of Transformers get masks by `crossmask.attach`, where a recipe has them.
    """

    name: ClassVar[str]
    primary_metric: ClassVar[PrimaryMetric]
    metric_modules: ClassVar[tuple[str, ...]] = ()
    special_tokens: tuple[str, ...] = ()
    auto_class: ClassVar[Any]
    pipeline_tag: ClassVar[str | None] = None
    length_fields: ClassVar[tuple[str, ...]] = ("max_source_length", "max_target_length")
    tokenizer_settings: ClassVar[Mapping[str, bool]] = {}
    unused_fields: ClassVar[Mapping[str, str]] = {}
    bridge_class: ClassVar[type[PreTrainedModel] | None] = None
    adds_head: ClassVar[bool] = False
    attaches_masks: ClassVar[bool] = False

    @abstractmethod
    def example(self, record: Mapping[str, Any]) -> Example:
        """One row of a dataset as an example. Raises ValueError for a column that is missing, empty or not text."""

    @abstractmethod
    def metrics(self, predictions: Sequence[Any], examples: Sequence[Example]) -> Scores:
        """The scores of `predictions[i]` for `examples[i]`: for all, and for each group under `<metric>_<group>`.

        Percentages are 0 to 100. Raises ValueError for nothing to score and for unequal numbers, TypeError for
        predictions that are not what the kind predicts.
        """

    def check_libraries(self) -> None:
        """Refuse a machine that lacks a library of `metric_modules`. Raises MissingLibraryError."""
        for module in self.metric_modules:
            check_libraries(module)

    def metric_names(self, examples: Sequence[Example]) -> tuple[str, ...]:
        """The names of the numbers that `metrics` gives for such examples, those of their groups included."""
        of_groups = list({example.group: example for example in examples}.values())
        scores = self.metrics([self.perfect_prediction(example) for example in of_groups], of_groups)
        return tuple(name for name, value in scores.items() if not isinstance(value, str))

    # Kind

    def perfect_prediction(self, example: Example) -> Any:
        """The prediction that scores highest."""
        return example.references[0]

    @abstractmethod
    def config_class(self, fields: Mapping[str, Any]) -> type[PreTrainedConfig]:
        """The class of a new model's config, which a recipe's `model` has the fields of.

        Raises:
            InputError: the fields name no such class.
        """

    @abstractmethod
    def check_config(self, config: PreTrainedConfig) -> None:
        """Refuse the config of a saved model that is not for tasks of this kind. Raises InputError."""

    @classmethod
    def options_of_saved(cls, config: PreTrainedConfig) -> dict[str, Any]:
        """The options that the config of a trained model has, for those that an evaluation does not name."""
        return {}

    def check_trained(self, config: PreTrainedConfig) -> None:  # noqa: B027 - most have nothing to check
        """Refuse a trained model whose outputs are not those of the task, by its config. Raises InputError."""

    def check_options(self, config: PreTrainedConfig) -> None:  # noqa: B027 - most have nothing to check
        """Refuse options that nothing reads with a model of this config. Raises InputError."""

    def max_positions(self, config: PreTrainedConfig) -> dict[str, int | None]:
        """For each of `length_fields`, how long a sequence the model takes; None where that has no limit."""
        return dict.fromkeys(self.length_fields, getattr(config, "max_position_embeddings", None))

    def config_of_tokenizer(
        self, tokenizer: PreTrainedTokenizerBase | None, config_class: type[PreTrainedConfig]
    ) -> dict[str, int | None]:
        """The fields of a new model's config that follow from its tokenizer.

        Without one they are those with which the rest of the config can be looked at.
        """
        if tokenizer is None:
            return {}
        names = ("pad_token_id", "bos_token_id", "eos_token_id")
        return {"vocab_size": len(tokenizer), **{name: getattr(tokenizer, name) for name in names}}

    def new_config(
        self, config_class: type[PreTrainedConfig], sizes: Mapping[str, Any], fields: Mapping[str, Any]
    ) -> PreTrainedConfig:
        """The config of a new model.

        Args:
            sizes: what follows from the recipe and the tokenizer, `max_position_embeddings` and the fields of
                `config_of_tokenizer`, where `fields` do not say otherwise. fields: what the recipe's `model` has.

        Raises:
            InputError, or what configs raise: fields that do not fit one another.
        """
        names = {*config_class.__dataclass_fields__, *config_class.attribute_map}
        known = {name: value for name, value in sizes.items() if name != "max_position_embeddings" or name in names}
        return config_class(**{**known, **fields})

    def changes_of_saved(self, config: PreTrainedConfig) -> dict[str, Any]:
        """What the task changes in the config of a saved model to fine-tune. Raises InputError if it does not fit."""
        return {}

    def config_on_encoder(self, encoder: PreTrainedConfig, fields: Mapping[str, Any]) -> PreTrainedConfig:
        """The config of a new model on a pretrained encoder with this config. Raises as `from_encoder`."""
        raise InputError(f"models for task {self.name} are not built on an encoder; leave encoder_name_or_path out")

    def from_encoder(self, name: str, fields: Mapping[str, Any], options: Mapping[str, Any]) -> PreTrainedModel:
        """A new model on a pretrained encoder.

        Args:
            name: a folder or a Hub id. fields: of the new model's config. options: of `from_pretrained`.

        Raises:
            InputError: models of this kind are not built so.
        """
        raise InputError(f"models for task {self.name} are not built on an encoder; leave encoder_name_or_path out")

    @abstractmethod
    def check_tokenizer(self, tokenizer: PreTrainedTokenizerBase, config: PreTrainedConfig) -> None:
        """Refuse a tokenizer that does not fit the model or the kind. Raises InputError."""

    def check_model(self, model: PreTrainedModel, packed: bool) -> None:  # noqa: B027 - most have nothing to check
        """Refuse a model that does not compute what the kind needs, in packed rows if it is to. Raises InputError."""

    def default_generation(self, limits: LengthLimits) -> dict[str, int]:
        """How long a model generates, where a recipe does not say so."""
        return {"max_new_tokens": limits.max_target_length}

    def tagged(self, example: Example, tag: str) -> Example:
        """An example of a source of data that has a tag. Raises InputError where there is nowhere to put it."""
        return replace(example, source=tag + example.source)

    def evaluation_limits(self, limits: LengthLimits) -> LengthLimits:
        """The limits of examples to evaluate on, none of which may be dropped."""
        return replace(limits, overlong="truncate") if limits.overlong == "drop" else limits

    @abstractmethod
    def texts(self, example: Example) -> tuple[str, ...]:
        """What a tokenizer learns from an example."""

    @abstractmethod
    def features(
        self,
        names: Sequence[str],
        examples: Sequence[Example],
        tokenizer: PreTrainedTokenizerBase,
        limits: LengthLimits,
    ) -> dict[str, list[Any]]:
        """Columns of features, `input_ids` and `labels` among them, of the examples that are kept.

        Where some examples have several items, such as windows of a long text, the column `example` has the index of
        each item's example in `examples`.

        Args:
            names: what errors call the examples.

        Raises:
            InputError: an example over a limit, where `overlong` is `"error"`.
        """

    @abstractmethod
    def collator(self, config: PreTrainedConfig) -> Collator:
        """What pads features to a batch."""

    def evaluation_collator(self, config: PreTrainedConfig) -> Collator:
        """What pads features to a batch for `evaluate_batch`."""
        return self.collator(config)

    def loss_function(
        self, model: PreTrainedModel, label_smoothing: float, r_drop: float = 0.0
    ) -> Callable[..., torch.Tensor] | None:
        """What computes the training loss of the model's outputs for a batch without its labels, and these.

        Called with `(outputs, labels, num_items_in_batch=...)`. None: the model computes it, or Trainer.

        Args:
            r_drop: not 0 only where `check_loss_field` allows it. Batch and labels then stand there twice, one behind
                the other. Where it allows a teacher, the function is called with `distillation=...` too.
        """
        return None

    def check_loss_field(self, field: str, given: float | str) -> None:
        """Refuse a field of the usual loss of written targets, where the task has another. Raises InputError."""
        shown = given if isinstance(given, str) else f"{given:g}"
        raise InputError(
            f"{field} must be left out for task {self.name}, got {shown}; it is for models that write a target for a "
            "source, by the usual loss"
        )

    def targets(self, batch: Mapping[str, torch.Tensor]) -> torch.Tensor | None:
        """What a batch's loss is summed over, -100 where it is not to count; None where the model takes a mean."""
        return batch.get("labels")

    def packed_collator(self, config: PreTrainedConfig, source_length: int, target_length: int) -> Collator:
        """What lays rows of whole examples out as a batch, each row of that many source and target tokens.

        Raises:
            InputError: examples of this kind are not packed.
        """
        raise InputError(f"batching must be examples or buckets for task {self.name}, whose examples are not packed")

    @abstractmethod
    def evaluate_batch(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        batch: Mapping[str, torch.Tensor],
        generation: Mapping[str, Any] | None,
    ) -> BatchResult:
        """Loss and predictions of a batch that `collator` made, possibly without labels.

        Args:
            model: in evaluation mode.
            generation: options of `generate`, where the kind generates; None asks for the loss alone.
        """

    def combine(self, outputs: Sequence[Any], example: Example) -> Any:
        """The prediction for an example, of what `evaluate_batch` predicted for its items."""
        (prediction,) = outputs
        return prediction

    @abstractmethod
    def output(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, example: Example) -> list[Any]:
        """What a model gives for an example, in numbers: by them a saved model is compared with the trained one."""

    def usage(self, example: Example) -> str | None:
        """The Python by which a loaded `model` and `tokenizer` take an example, for the card; None: they generate."""
        return None

    def pipeline_options(self) -> dict[str, Any]:
        """What a saved model tells `transformers.pipeline` of the task, in its config's `task_specific_params`."""
        return {}

    @abstractmethod
    def sample(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, example: Example, prediction: Any
    ) -> Sample:
        """A test example with its prediction as texts."""

    @abstractmethod
    def plots(
        self,
        folder: Path,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        examples: Sequence[Example],
        predictions: Sequence[Any],
    ) -> dict[str, str]:
        """Draw what there is to see of a trained model and its predictions for a test set; captions by file name."""

    def by_group(
        self,
        predictions: Sequence[Any],
        examples: Sequence[Example],
        score: Callable[[list[Any], list[Example], str | None], Scores],
    ) -> Scores:
        """`score(predictions, examples, group)` of all (group None) and of every group, in the groups' sorted order.

        Each group's keys get the suffix `_<group>`.

        Raises:
            InputError: nothing to score, unequal numbers, a group whose score would have another's name.
        """
        check_predictions(predictions, examples)
        scores = dict(score(list(predictions), list(examples), None))
        members = members_of_groups(examples)
        members.pop(None, None)
        for group, indices in sorted(members.items()):
            part = score([predictions[i] for i in indices], [examples[i] for i in indices], group)
            for key, value in part.items():
                if f"{key}_{group}" in scores:
                    raise InputError(f"two scores are both named {key}_{group}: rename the group {group!r}")
                scores[f"{key}_{group}"] = value
        return scores


def members_of_groups(examples: Sequence[Example]) -> dict[str | None, list[int]]:
    """The indices of every group's examples; None stands for those that belong to no group."""
    members: dict[str | None, list[int]] = {}
    for index, example in enumerate(examples):
        members.setdefault(example.group, []).append(index)
    return members


def sample_indices(examples: Sequence[Example], number: int) -> list[int]:
    """Indices of `number` examples, taken from all groups in turn."""
    groups = members_of_groups(examples).values()
    turns = [members[turn] for turn in range(number) for members in groups if turn < len(members)]
    return turns[:number]


def check_predictions(predictions: Sequence[Any], examples: Sequence[Example]) -> None:
    """Raise TypeError or ValueError unless there is one prediction for each of `examples`, at least one."""
    if isinstance(predictions, str):
        raise TypeError("predictions must be a list, one for each example, got one string; write [text]")
    if len(predictions) != len(examples):
        raise InputError(f"predictions must be one for each of {len(examples)} examples, got {len(predictions)}")
    if len(predictions) == 0:
        raise InputError("examples to score must be one or more, got none; give predictions and examples")
