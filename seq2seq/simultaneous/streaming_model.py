"""What a stream reads of its model."""

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from transformers import GenerationConfig, PreTrainedConfig

from ...masks.expressions import Mask
from ...masks.tensor_mask import TensorMask
from ..interactive_attention import InteractiveAttention
from ..mask_compiler import LayerMasks


class StreamingModel(Protocol):
    """What streams, their masks and their policies read of a model: what `StreamingMixin` adds, and Transformers."""

    config: PreTrainedConfig
    generation_config: GenerationConfig
    device: torch.device
    mask_compilers: tuple[LayerMasks, LayerMasks, LayerMasks]
    encodes_in_parts: bool
    max_source_length: int | None
    cross_attentions: Sequence[InteractiveAttention]

    def __call__(self, **inputs: Any) -> Any: ...
    def encode(self, input_ids: torch.Tensor, **options: Any) -> Any: ...
    def check_source_length(self, length: int) -> None: ...
    def check_target_length(self, length: int) -> None: ...
    def check_blind(self, **call_masks: Mask | TensorMask | None) -> None: ...
    def _prepare_generation_config(self, generation_config: None, **options: Any) -> tuple[GenerationConfig, dict]: ...
    def _prepare_generated_length(self, generation_config: GenerationConfig, *args: Any) -> GenerationConfig: ...
