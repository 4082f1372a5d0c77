"""The network."""

from .crossmask import CrossMaskForConditionalGeneration, CrossMaskModel
from .interactive_attention import InteractiveAttention
from .pretrained import CrossMaskPreTrainedModel

__all__ = [
    "CrossMaskForConditionalGeneration",
    "CrossMaskModel",
    "CrossMaskPreTrainedModel",
    "InteractiveAttention",
]
