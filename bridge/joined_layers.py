"""How blocks come between the layers of somebody else's decoder.

A decoder's layer that has a block gets a subclass of its own class, of the same name, whose `__call__` runs the block
first. Its modules and the keys of its weights stay as they were. The blocks are in `model.bridge`, and are looked up
there by their number at every call, so that what replaces or copies them, as PEFT does, is what runs. What a call
needs to know is kept per thread while it runs. Outside of a call the layers are the decoder's own.
"""

import copyreg
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.cache_utils import EncoderDecoderCache
from transformers.modeling_layers import GradientCheckpointingLayer

from ..attention.backends import CompiledMask


@dataclass
class BridgeCall:
    """What the blocks read in one call.

    Attributes:
        shape: (B, T) of the target.
        encoder_hidden_states: (B, S, source).
        cross_masks: what each block attends under.
        past_key_values: the cache of both attentions.
        weights: the attention weights of each block, where they are wanted.
    """

    shape: tuple[int, int]
    encoder_hidden_states: torch.Tensor
    cross_masks: list[CompiledMask]
    past_key_values: EncoderDecoderCache | None
    weights: list[torch.Tensor | None] = field(default_factory=list)


class CurrentCall:
    """The call that runs in this thread, and the model whose blocks it goes through."""

    def __init__(self, model: PreTrainedModel):
        self.model = model
        self.threads = threading.local()
        self.traced: BridgeCall | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {"model": self.model}  # a copy begins outside of any call

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["model"])  # type: ignore[misc]  # as a new one

    @property
    def now(self) -> BridgeCall | None:
        # A compiler follows an attribute, but no thread's own; what it compiles does not read either any more.
        if torch.compiler.is_compiling():
            return self.traced
        return getattr(self.threads, "call", None)

    @contextmanager
    def of(self, call: BridgeCall) -> Iterator[None]:
        """Inside, `call` is the one that blocks read."""
        before = self.now
        self._set(call)
        try:
            yield
        finally:
            self._set(before)

    @contextmanager
    def none(self) -> Iterator[None]:
        """Inside, the decoder is as it was before it was joined."""
        before = self.now
        self._set(None)
        try:
            yield
        finally:
            self._set(before)

    def _set(self, call: BridgeCall | None) -> None:
        if torch.compiler.is_compiling():
            self.traced = call
        else:
            self.threads.call = call


class _Joined:
    """What a decoder's layer with a block before it has beside its own class."""

    current_call: CurrentCall
    block_index: int

    def __call__(self, hidden_states: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        call = self.current_call.now
        if call is not None:
            if hidden_states.shape[:2] != call.shape or hidden_states.ndim != 3:
                raise ValueError(
                    "decoder must have layers that take (batch, length, hidden) states, got "
                    f"{type(self).__name__} with "
                    f"{tuple(hidden_states.shape)}; take a causal language model of another family"
                )
            block = self.current_call.model.bridge[self.block_index]
            hidden_states, weights = block(
                hidden_states,
                call.encoder_hidden_states,
                call.cross_masks[self.block_index],
                call.past_key_values,
            )
            call.weights.append(weights)
        return super().__call__(hidden_states, *args, **kwargs)  # type: ignore[misc]  # of the layer's own class

    def __reduce_ex__(self, protocol: int) -> Any:
        # The subclass is made as it is needed, so it cannot be found by its name.
        classes = type(self).__mro__
        return _rebuild, (classes[classes.index(_Joined) + 1],), self.__getstate__()


_SUBCLASSES: dict[type, type] = {}


def _subclass_of(layer_class: type) -> type:
    if layer_class not in _SUBCLASSES:
        names = {name: getattr(layer_class, name) for name in ("__module__", "__qualname__", "__doc__")}
        _SUBCLASSES[layer_class] = type(layer_class.__name__, (_Joined, layer_class), names)
    return _SUBCLASSES[layer_class]


def is_joined(layer: nn.Module) -> bool:
    """Whether a decoder's layer has a block before it."""
    return isinstance(layer, _Joined)


def _rebuild(layer_class: type) -> nn.Module:
    layer: nn.Module = copyreg.__newobj__(_subclass_of(layer_class))  # type: ignore[attr-defined]
    return layer


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


def join(decoder: PreTrainedModel, model: PreTrainedModel, block_layers: tuple[int, ...]) -> CurrentCall:
    """Put `model.bridge[i]` before the decoder's layer `block_layers[i]`."""
    layers, current_call = find_layers(decoder), CurrentCall(model)
    for index, number in enumerate(block_layers):
        layer = layers[number]
        layer.current_call, layer.block_index = current_call, index
        layer.__class__ = _subclass_of(type(layer))
    return current_call
