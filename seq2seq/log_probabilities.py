"""How probable targets are for their sources, under teacher forcing."""

from collections.abc import Mapping

import torch
from torch import nn
from transformers import PreTrainedModel

from .decoder_inputs import IGNORED
from .linear_loss import full_dtype

ELEMENTS = 2**22  # logits at a time on CPU
ACCELERATOR_ELEMENTS = 2**28


@torch.no_grad()
def mean_log_probabilities(
    model: PreTrainedModel, inputs: Mapping[str, torch.Tensor], labels: torch.Tensor
) -> torch.Tensor:
    """The mean log-probability of a token of each target, in natural logarithms.

    Args:
        model: an encoder-decoder in evaluation mode.
        inputs: of its encoder, (B, ...); some rows are computed at a time.
        labels: (B, T) int64; -100 is not counted.

    Returns:
        (B,) float32, or float64 of a model in float64; 0 of a target without tokens.
    """
    elements = ELEMENTS if labels.device.type == "cpu" else ACCELERATOR_ELEMENTS
    rows = max(1, elements // max(1, labels.shape[1] * model.config.get_text_config(decoder=True).vocab_size))
    parts = {name: value.split(rows) for name, value in inputs.items()}
    means = []
    for index, part in enumerate(labels.split(rows)):
        given = {name: values[index] for name, values in parts.items()}
        logits = model(**given, labels=part, use_cache=False).logits
        scores = logits.flatten(0, 1).to(full_dtype(logits.dtype))
        losses = nn.functional.cross_entropy(scores, part.flatten(), ignore_index=IGNORED, reduction="none")
        means.append(-losses.view_as(part).sum(-1) / (part != IGNORED).sum(-1).clamp(min=1))
    return torch.cat(means)
