"""What an IndexError of an attached model means: its own code looks at neither ids nor lengths."""

from typing import Any

import torch

from ..seq2seq.call_checks import check_length
from ..seq2seq.decoder_inputs import IGNORED
from ..seq2seq.pretrained_parts import first_position_of, max_length_of
from ..seq2seq.token_ids import check_ids


def check_indices(model: Any, arguments: dict[str, Any]) -> None:
    """Say what a call that failed with an IndexError gave.

    Args:
        model: an attached one. arguments: of its `forward`, by name.

    Raises:
        ValueError: ids outside of a side's vocabulary, or more tokens than it takes.
    """
    labels, past = arguments.get("labels"), arguments.get("past_key_values")
    targets = labels if arguments.get("decoder_input_ids") is None else arguments["decoder_input_ids"]
    name = "labels" if targets is labels else "decoder_input_ids"
    if targets is labels and labels is not None:
        targets = labels.masked_fill(labels == IGNORED, 0)
    sides = (
        ("source", model.get_encoder(), "input_ids", arguments.get("input_ids"), 0),
        ("target", model.get_decoder(), name, targets, 0 if past is None else past.get_seq_length()),
    )
    for side_name, side, ids_name, ids, before in sides:
        if isinstance(ids, torch.Tensor):
            check_ids(ids_name, side, ids)
            limit = max_length_of(side.config, first_position_of(side))
            check_length(side_name, before + ids.shape[-1], limit)
