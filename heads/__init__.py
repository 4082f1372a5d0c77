"""Heads on any text encoder: classification of texts by a fixed-length vector, and of tokens."""

from .classification_configs import CrossMaskSequenceClassificationConfig, CrossMaskTokenClassificationConfig
from .sequence_classification import CrossMaskForSequenceClassification, CrossMaskSequenceClassifierOutput
from .token_classification import CrossMaskForTokenClassification

__all__ = [
    "CrossMaskForSequenceClassification",
    "CrossMaskForTokenClassification",
    "CrossMaskSequenceClassificationConfig",
    "CrossMaskSequenceClassifierOutput",
    "CrossMaskTokenClassificationConfig",
]
