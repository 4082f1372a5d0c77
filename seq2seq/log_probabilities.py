"""How probable targets are for their sources, under teacher forcing."""

from collections.abc import Mapping
from typing import Any

import torch
from transformers import PreTrainedModel

from .decoder_inputs import IGNORED
from .linear_loss import full_dtype

ELEMENTS = 2**22  # logits at a time


@torch.no_grad()
def mean_log_probabilities(model: PreTrainedModel, inputs: Mapping[str, Any], labels: torch.Tensor) -> torch.Tensor:
    """The mean log-probability of the tokens of each target, in natural logarithms.

    Args:
        model: an encoder-decoder in evaluation mode.
        inputs: of its forward pass. Those that are tensors have a row for each target, and some of the rows are
            computed at a time; without `decoder_input_ids` the model makes them of the labels.
        labels: (B, T) int64; -100 is not counted.

    Returns:
        (B,) float32, or float64 of a model in float64; 0 of a target without tokens.
    """
    vocabulary = model.config.get_text_config(decoder=True).vocab_size
    rows = max(1, ELEMENTS // max(1, labels.shape[1] * vocabulary))
    tensors = {name: value.split(rows) for name, value in inputs.items() if isinstance(value, torch.Tensor)}
    others = {name: value for name, value in inputs.items() if name not in tensors}
    means = []
    for index, part in enumerate(labels.split(rows)):
        given = {name: parts[index] for name, parts in tensors.items()}
        if "decoder_input_ids" not in given:
            given["labels"] = part
        logits = model(**given, **others, use_cache=False).logits
        found = logits.to(full_dtype(logits.dtype)).log_softmax(-1)
        counts = part != IGNORED
        chosen = found.gather(-1, part.masked_fill(~counts, 0)[..., None])[..., 0]
        means.append(chosen.where(counts, 0).sum(-1) / counts.sum(-1).clamp(min=1))
    return torch.cat(means)
