"""Extractive question answering: any encoder, and a pointer into the context that masks can program."""

from .configuration import CrossMaskQuestionAnsweringConfig
from .modeling import CrossMaskForQuestionAnswering, CrossMaskQuestionAnsweringOutput

__all__ = ["CrossMaskForQuestionAnswering", "CrossMaskQuestionAnsweringConfig", "CrossMaskQuestionAnsweringOutput"]
