"""Tasks: how an example becomes source and target, and how predictions are scored."""

from .base import Example, PrimaryMetric, Scores, Task
from .extractive_question_answering import ExtractiveQuestionAnswering
from .language_modeling import LanguageModeling
from .question_answering import QuestionAnswering
from .registry import get_task, register_task, task_names
from .role_generation import RoleGeneration
from .semantic_role_labeling import SemanticRoleLabeling
from .sequence_classification import Classified, SequenceClassification, TextPair
from .summarization import Summarization
from .text_classification import TextClassification
from .text_to_text import TextToText
from .translation import Translation
from .word_tagging import Tagged, TaggedExample, WordTagging

__all__ = [
    "Classified",
    "Example",
    "ExtractiveQuestionAnswering",
    "LanguageModeling",
    "PrimaryMetric",
    "QuestionAnswering",
    "RoleGeneration",
    "Scores",
    "SemanticRoleLabeling",
    "SequenceClassification",
    "Summarization",
    "Tagged",
    "TaggedExample",
    "Task",
    "TextClassification",
    "TextPair",
    "TextToText",
    "Translation",
    "WordTagging",
    "get_task",
    "register_task",
    "task_names",
]
