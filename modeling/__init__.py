"""The network."""

from .attention import InteractiveAttention
from .crossmask import CrossMaskForConditionalGeneration, CrossMaskModel
from .pretrained import CrossMaskPreTrainedModel

__all__ = [
    "CrossMaskForConditionalGeneration",
    "CrossMaskModel",
    "CrossMaskPreTrainedModel",
    "InteractiveAttention",
]
