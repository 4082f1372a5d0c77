"""`transformers.pipeline` for models under masks: a file for each kind of task."""

from .generated_answers import GeneratedAnswersPipeline
from .inputs import PipelineInputError
from .question_answering import QuestionAnsweringPipeline
from .semantic_role_labeling import SemanticRoleLabelingPipeline
from .summarization import SummarizationPipeline
from .text_classification import ClassificationPipeline
from .text_to_text import TextToTextPipeline
from .translation import TranslationPipeline

__all__ = [
    "ClassificationPipeline",
    "GeneratedAnswersPipeline",
    "PipelineInputError",
    "QuestionAnsweringPipeline",
    "SemanticRoleLabelingPipeline",
    "SummarizationPipeline",
    "TextToTextPipeline",
    "TranslationPipeline",
]
