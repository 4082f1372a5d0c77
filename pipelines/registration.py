"""What `import crossmask` registers with `transformers.pipeline`, and what a saved model says of its pipelines."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import (
    AutoConfig,
    AutoModelForQuestionAnswering,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.pipelines import PIPELINE_REGISTRY, REMOVED_TASKS
from transformers.pipelines.text_classification import TextClassificationPipeline

from ..attached import attach
from ..attached.attached_model import AttachedModel
from ..configuration.base import MASK_FIELDS, MaskedConfig
from .generated_answers import GeneratedAnswersPipeline
from .inputs import BasePipeline, PipelineInputError
from .question_answering import QuestionAnsweringPipeline
from .semantic_role_labeling import SemanticRoleLabelingPipeline
from .summarization import SummarizationPipeline
from .text_classification import ClassificationPipeline
from .text_to_text import TextToTextPipeline
from .translation import TranslationPipeline

PREFIX = "crossmask-"
CODE_FILE = "pipelines_crossmask"
_PAIR = re.compile(r"translation_[A-Za-z-]+_to_[A-Za-z-]+")


@dataclass(frozen=True)
class Kind:
    """A kind of task: its name, the pipeline that does it, and the Auto class that loads its models."""

    name: str
    pipeline: type
    auto_class: Any

    @property
    def module(self) -> str:
        """The module of the pipeline, as a path in the package."""
        return f"{Path(__file__).parent.name}/{self.pipeline.__module__.rpartition('.')[2]}.py"


class AnsweringModel:
    """Loads a model that answers: by a span of the context where it was trained so, else by what it generates."""

    @classmethod
    def from_pretrained(cls, name: str, **options: Any) -> PreTrainedModel:
        """As an Auto class does."""
        names = ("revision", "token", "trust_remote_code", "local_files_only", "cache_dir")
        config = AutoConfig.from_pretrained(name, **{key: options[key] for key in names if key in options})
        return auto_class_for("question-answering", config).from_pretrained(name, **options)


class AnsweringPipeline(BasePipeline):
    """The pipeline that fits the model: `GeneratedAnswersPipeline` or `QuestionAnsweringPipeline`."""

    _load_processor = None  # of a bridge

    def __new__(cls, model: PreTrainedModel, **options: Any) -> Any:
        if model.can_generate():
            return GeneratedAnswersPipeline(model=model, **options)
        options.pop("processor", None)
        return QuestionAnsweringPipeline(model=model, **options)


class ClassifyingPipeline(BasePipeline):
    """`ClassificationPipeline` for models of crossmask, and Transformers' own for others."""

    def __new__(cls, model: PreTrainedModel, **options: Any) -> Any:
        is_ours = isinstance(getattr(model, "config", None), MaskedConfig)
        return (ClassificationPipeline if is_ours else TextClassificationPipeline)(model=model, **options)


KINDS = (
    Kind("text2text-generation", TextToTextPipeline, AutoModelForSeq2SeqLM),
    Kind("translation", TranslationPipeline, AutoModelForSeq2SeqLM),
    Kind("summarization", SummarizationPipeline, AutoModelForSeq2SeqLM),
    Kind("question-answering", GeneratedAnswersPipeline, AutoModelForSeq2SeqLM),
    Kind("question-answering", QuestionAnsweringPipeline, AutoModelForQuestionAnswering),
    Kind("text-classification", ClassificationPipeline, AutoModelForSequenceClassification),
    Kind("semantic-role-labeling", SemanticRoleLabelingPipeline, AutoModelForTokenClassification),
)
"""All pipelines. A new one is a file, and an entry here."""


def kinds_of(auto_class: str) -> list[Kind]:
    """The kinds whose models an Auto class loads, by its name."""
    return [kind for kind in KINDS if kind.auto_class.__name__ == auto_class]


def auto_class_for(task: str, config: PreTrainedConfig) -> Any:
    """The Auto class that loads a saved model for a task: of several the one that it was trained for."""
    classes = [kind.auto_class for kind in KINDS if kind.name == task]
    points = any("QuestionAnswering" in architecture for architecture in config.architectures or ())
    return classes[-1 if points else 0]


def custom_pipelines(auto_classes: Iterable[str]) -> dict[str, dict[str, Any]]:
    """What the config of a saved model says of its pipelines, so that `trust_remote_code` finds them."""
    return {
        kind.name: {"impl": f"{CODE_FILE}.{kind.pipeline.__name__}", "pt": [auto_class], "type": "text"}
        for auto_class in auto_classes
        for kind in kinds_of(auto_class)
    }


class TaskAliases(dict[str, str]):
    """The other names of tasks, and `translation_en_to_de` for `translation`, whatever the languages are."""

    def __contains__(self, task: object) -> bool:
        return super().__contains__(task) or _PAIR.fullmatch(str(task)) is not None

    def __missing__(self, task: str) -> str:
        if _PAIR.fullmatch(task) is None:
            raise KeyError(task)
        return "translation"


class RegisteredTask(dict[str, Any]):
    """What Transformers knows of a task. There is no default model."""

    def __missing__(self, key: str) -> Any:
        if key != "default":
            raise KeyError(key)
        raise PipelineInputError("model must be given, a folder, the name of a repository or a model, got none")


def register_pipelines() -> None:
    """Register every kind under its name, and behind `crossmask-`.

    Under its own name `text-classification` stays as it is for models that are not of crossmask.

    Calling this again changes nothing.
    """
    PIPELINE_REGISTRY.task_aliases = TaskAliases(PIPELINE_REGISTRY.task_aliases)
    TextToTextPipeline.attach_masks = staticmethod(attach_saved_masks)
    for kind in KINDS:
        task = RegisteredTask(impl=kind.pipeline, pt=(kind.auto_class,), type="text")
        if kind.name == "question-answering":
            task.update(impl=AnsweringPipeline, pt=(AnsweringModel,))
        PIPELINE_REGISTRY.supported_tasks[PREFIX + kind.name] = task
        REMOVED_TASKS.pop(kind.name, None)  # which Transformers refuses before it looks them up
        theirs = PIPELINE_REGISTRY.supported_tasks.get(kind.name, task)
        if kind.pipeline is ClassificationPipeline:  # a task of Transformers too
            task = RegisteredTask(**{**theirs, "impl": ClassifyingPipeline})
        PIPELINE_REGISTRY.supported_tasks[kind.name] = task


def attach_saved_masks(model: Any) -> Any:
    """A model of Transformers with the masks that its config has; others are returned as they are."""
    if isinstance(model, AttachedModel) or isinstance(model.config, MaskedConfig):
        return model
    has_masks = any(getattr(model.config, name, None) is not None for name in MASK_FIELDS)
    return attach(model) if has_masks else model
