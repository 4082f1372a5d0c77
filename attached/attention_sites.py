"""Which attention of a model is which: found by the code of its modules, not by a list of classes.

A module is attention if its `forward` asks Transformers' `ALL_ATTENTION_FUNCTIONS` what to compute with. It is
interactive attention if its path in the decoder says so. Layers are counted in the order of their modules, since
`layer_idx` is missing in some models and starts anew in others.
"""

import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from ..masks.scope import Scope
from .current_call import AttachedCall

SITE = "crossmask_site"
"""The attribute of an attention module that says which one it is."""
CROSS = re.compile(r"cross|encoder_?attn|encdec", re.IGNORECASE)
MERGED = "merged_attention_mask"


@dataclass
class Site:
    """One attention of a model.

    Attributes:
        scope, layer: whose mask it attends under, counted from 0.
        is_merged: whether its keys are those of the target followed by those of the source.
        eager: what it computes with under `eager`.
        current_call: where the masks are if no keyword brings them. needs_call: whether that was so.
    """

    scope: Scope
    layer: int
    is_merged: bool
    eager: Callable[..., Any] | None
    current_call: AttachedCall
    needs_call: bool = False


@dataclass(frozen=True)
class Attentions:
    """The attention modules of a model, by scope, each layer's in its turn.

    Attributes:
        encoder: none where the encoder has layers that masks cannot reach: sparse attention, or convolutions.
        cross: the same modules as `decoder` where the two are merged.
    """

    encoder: list[nn.Module]
    decoder: list[nn.Module]
    cross: list[nn.Module]

    @property
    def merged(self) -> bool:
        return self.decoder == self.cross

    def of(self, scope: Scope) -> list[nn.Module]:
        modules: list[nn.Module] = getattr(self, scope)
        return modules

    def all(self) -> list[nn.Module]:
        return [*self.encoder, *self.decoder, *(() if self.merged else self.cross)]


def find_attentions(model: PreTrainedModel) -> Attentions:
    """The attention modules of an encoder-decoder.

    Raises:
        ValueError: the decoder has attention that masks cannot reach; it names the model.
    """
    encoder, decoder = model.get_encoder(), model.get_decoder()
    own = [module for _, module in _on_interface(encoder)]
    of_decoder = _on_interface(decoder)
    cross = [module for path, module in of_decoder if CROSS.search(path)]
    itself = [module for path, module in of_decoder if not CROSS.search(path)]
    if itself and not cross and all(MERGED in inspect.signature(type(m).forward).parameters for m in itself):
        cross = itself
    if not itself or len(itself) != len(cross):
        raise ValueError(
            f"model must have a decoder whose attention goes through Transformers' attention interface, got "
            f"{type(model).__name__}, of whose attention {len(itself)} modules to the target and {len(cross)} to the "
            "source do; take a model of another family"
        )
    layers = layers_of(encoder)
    reached = len(own) == len(layers) and not any(_convolves(layer) for layer in layers)
    return Attentions(own if reached else [], itself, cross)


def layers_of(side: nn.Module) -> list[nn.Module]:
    """The layers of an encoder or decoder: its longest list of modules with attention."""
    lists = [list(module) for module in side.modules() if isinstance(module, nn.ModuleList)]
    return max([part for part in lists if all(map(_named_attention, part))], key=len, default=[])


def depth(side: nn.Module) -> int:
    """The number of layers of an encoder or decoder."""
    return len(layers_of(side))


def _convolves(layer: nn.Module) -> bool:
    """Whether a layer mixes neighbouring states beside its attention, as those of conformers do."""
    return any(isinstance(module, nn.Conv1d | nn.Conv2d) and max(module.kernel_size) > 1 for module in layer.modules())


def _named_attention(layer: nn.Module) -> bool:
    return any("attention" in type(module).__name__.lower() for module in layer.modules())


def _on_interface(side: PreTrainedModel) -> list[tuple[str, nn.Module]]:
    """Path and module of each attention of a side; a tower that reads images is no part of it."""
    towers = [
        f"{path}."
        for path, module in side.named_modules()
        if path and isinstance(module, PreTrainedModel) and module.main_input_name == "pixel_values"
    ]
    return [
        (path, module)
        for path, module in side.named_modules()
        if asks_for_attention(module) and not any(path.startswith(tower) for tower in towers)
    ]


def asks_for_attention(module: nn.Module) -> bool:
    """Whether a module's `forward` takes its attention function from Transformers' interface."""
    code = getattr(inspect.unwrap(type(module).forward), "__code__", None)
    return code is not None and "ALL_ATTENTION_FUNCTIONS" in code.co_names


def eager_of(module: nn.Module) -> Callable[..., Any] | None:
    """The function that a module attends by under `eager`, from the file of its model."""
    forward = inspect.unwrap(type(module).forward)
    names = [name for name in forward.__code__.co_names if "eager" in name]
    function: Callable[..., Any] | None = forward.__globals__.get(names[0]) if names else None
    return function


def heads_of(module: Any) -> int:
    """H, the number of query heads of an attention module."""
    for name in ("num_heads", "n_heads", "num_attention_heads"):
        if isinstance(heads := getattr(module, name, None), int):
            return heads
    projection, width = getattr(module, "q_proj", None), getattr(module, "head_dim", None)
    if projection is not None and width:
        return int(projection.out_features) // int(width)
    return int(module.config.num_attention_heads)


def configs_with_attention(model: PreTrainedModel, attentions: Attentions) -> list[PreTrainedConfig]:
    """The configs whose attention implementation these modules, and the masks made for them, go by; each once."""
    modules = set(map(id, attentions.all()))
    owners = [
        part
        for part in model.modules()
        if isinstance(part, PreTrainedModel) and any(id(module) in modules for module in part.modules())
    ]
    parts: list[Any] = [*owners, *attentions.all()]
    configs: list[PreTrainedConfig] = [part.config for part in parts]
    return list({id(config): config for config in configs}.values())
