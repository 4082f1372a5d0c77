"""The network."""

from ..seq2seq.interactive_attention import InteractiveAttention
from .crossmask import CrossMaskForConditionalGeneration, CrossMaskModel
from .pretrained import CrossMaskPreTrainedModel

__all__ = [
    "CrossMaskForConditionalGeneration",
    "CrossMaskModel",
    "CrossMaskPreTrainedModel",
    "InteractiveAttention",
]
