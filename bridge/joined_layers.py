"""How blocks come between the layers of somebody else's decoder.

A decoder's layers get a subclass of their own class, of the same name, whose `__call__` runs the block before the
layer, if there is one, and drops some of what the layer adds, where a config has `decoder_dropout`. Their modules and
the keys of their weights stay as they were. The blocks are in `model.bridge`, and are looked up there by their number
at every call, so that what replaces or copies them, as PEFT does, is what runs. What a call needs to know is kept per
thread while it runs. Outside of a call the layers are the decoder's own.
"""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.cache_utils import EncoderDecoderCache
from transformers.modeling_layers import GradientCheckpointingLayer

from ..attention.backends import CompiledMask
from ..seq2seq.current_call import CurrentCall
from ..seq2seq.subclasses import AddedToClass, subclass_of


@dataclass
class BridgeCall:
    """What the blocks read in one call.

    Attributes:
        blocks: of the model, between the decoder's layers.
        shape: (B, T) of the target.
        encoder_hidden_states: (B, S, source).
        cross_masks: what each block attends under.
        past_key_values: the cache of both attentions.
        dropout: what the decoder's embeddings and what its layers add go through; None where nothing is dropped.
        weights: the attention weights of each block, where they are wanted.
    """

    blocks: nn.ModuleList
    shape: tuple[int, int]
    encoder_hidden_states: torch.Tensor
    cross_masks: list[CompiledMask]
    past_key_values: EncoderDecoderCache | None
    dropout: nn.Module | None = None
    weights: list[torch.Tensor | None] = field(default_factory=list)


class _Joined(AddedToClass):
    """What a decoder's layer has beside its own class: its number, and that of the block before it, if any."""

    current_call: CurrentCall[BridgeCall]
    layer_number: int
    block_index: int | None

    def __call__(self, hidden_states: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        call = self.current_call.now
        if call is None:
            return super().__call__(hidden_states, *args, **kwargs)  # type: ignore[misc]  # of the layer's own class
        if hidden_states.shape[:2] != call.shape or hidden_states.ndim != 3:
            raise ValueError(
                "decoder must have layers that take (batch, length, hidden) states, got "
                f"{type(self).__name__} with "
                f"{tuple(hidden_states.shape)}; take a causal language model of another family"
            )
        if call.dropout is not None and self.layer_number == 0:
            hidden_states = call.dropout(hidden_states)
        if self.block_index is not None:
            block = call.blocks[self.block_index]
            hidden_states, weights = block(
                hidden_states,
                call.encoder_hidden_states,
                call.cross_masks[self.block_index],
                call.past_key_values,
            )
            call.weights.append(weights)
        output = super().__call__(hidden_states, *args, **kwargs)  # type: ignore[misc]  # of the layer's own class
        if call.dropout is None:
            return output
        states, *others = output if isinstance(output, tuple) else (output,)
        states = hidden_states + call.dropout(states - hidden_states)
        return (states, *others) if isinstance(output, tuple) else states


def is_joined(layer: nn.Module) -> bool:
    """Whether a decoder's layer is that of a bridge."""
    return isinstance(layer, _Joined)


def find_layers(decoder: PreTrainedModel) -> nn.ModuleList:
    """The layers of a causal language model, first to last.

    Raises:
        ValueError: there is no list with the number of layers that its config names, or several; it names the class.
    """
    count = getattr(decoder.config.get_text_config(decoder=True), "num_hidden_layers", None)
    part = decoder.get_decoder()  # a model of images has layers of others beside it
    if not isinstance(part, PreTrainedModel):  # ModernBERT's decoder calls its output layer so
        part = decoder.base_model
    lists = [
        module
        for module in part.modules()
        if isinstance(module, nn.ModuleList)
        and len(module) == count
        and all(isinstance(layer, GradientCheckpointingLayer) for layer in module)
    ]
    if len(lists) != 1:
        found = "several" if lists else "none"
        raise ValueError(
            f"decoder must have one list of its {count or 'num_hidden_layers'} layers, each a "
            f"GradientCheckpointingLayer, got {found} in "
            f"{type(decoder).__name__}; take a causal language model of another family"
        )
    return lists[0]


def join(decoder: PreTrainedModel, block_layers: tuple[int, ...]) -> CurrentCall[BridgeCall]:
    """Put block i of a call before the decoder's layer `block_layers[i]`."""
    current_call = CurrentCall[BridgeCall]()
    for number, layer in enumerate(find_layers(decoder)):
        joined: Any = layer
        joined.current_call, joined.layer_number = current_call, number
        joined.block_index = block_layers.index(number) if number in block_layers else None
        joined.__class__ = subclass_of(_Joined, type(layer))
    return current_call
