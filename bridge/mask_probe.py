"""Whether a model of Transformers obeys a finished mask: measured, because no flag says so."""

import torch
from transformers import PreTrainedModel

from ..seq2seq.foreign_masks import ForeignMask, additive

LENGTH = 3


def obeys_masks(model: PreTrainedModel, kinds: tuple[str, ...] = ()) -> bool:
    """Whether a token under a mask that shows it itself alone is computed from itself alone.

    Two passes over three tokens that differ in the first one. The model's weights, mode and random state stay as they
    are.

    Args:
        kinds: the types of layers, where the model takes a dictionary of masks.

    Raises:
        TypeError, ValueError, RuntimeError: whatever the model raises that takes no such mask.
    """
    device, dtype = model.device, model.dtype
    alone = additive(torch.eye(LENGTH, dtype=torch.bool, device=device)[None, None], 1, dtype)
    mask: ForeignMask = dict.fromkeys(kinds, alone) if kinds else alone
    last = model.config.get_text_config().vocab_size - 1
    results = []
    for first in (last, last - 1):
        ids = torch.tensor([[first, last - 2, last - 3]], device=device)
        devices = [device] if device.type == "cuda" else []
        with torch.no_grad(), torch.random.fork_rng(devices):
            torch.manual_seed(0)  # dropout is then the same in both
            results.append(model(input_ids=ids, attention_mask=mask)[0])
    return torch.equal(results[0][:, 1:], results[1][:, 1:]) and not torch.equal(*results)
