"""Tasks: how an example becomes source and target, and how predictions are scored."""

from .base import Example, PrimaryMetric, Scores, Task, get_task, register_task, task_names
from .question_answering import QuestionAnswering
from .text_to_text import TextToText
from .translation import Translation

__all__ = [
    "Example",
    "PrimaryMetric",
    "QuestionAnswering",
    "Scores",
    "Task",
    "TextToText",
    "Translation",
    "get_task",
    "register_task",
    "task_names",
]
