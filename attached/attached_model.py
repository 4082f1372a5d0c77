"""The class of an attached model: a subclass of the model's own, of the same name, whose `forward` takes masks."""

import difflib
import inspect
from collections.abc import Callable, Container, Iterable
from inspect import Parameter
from typing import Any

import torch
from transformers.utils import ModelOutput

from ..masks.expressions import MaskError
from ..masks.tensor_mask import MaskLike
from ..seq2seq.passage_attribution import ProvenanceMixin
from ..seq2seq.subclasses import AddedToClass
from .attachment import CALL_ARGUMENTS
from .attention_functions import use_masks, use_plain
from .generation import AttachedGenerationMixin
from .index_errors import check_indices
from .packing import with_decoder_inputs
from .saving import AttachedSavingMixin
from .streaming import AttachedStreamingMixin


# Saving stands first: after a base that the model's own class has too, it would come behind `PreTrainedModel`.
class AttachedModel(
    AttachedSavingMixin, AttachedGenerationMixin, AttachedStreamingMixin, ProvenanceMixin, AddedToClass
):
    """What an attached model has beside its own class."""

    @classmethod
    def members_for(cls, plain: Any) -> dict[str, Any]:
        return {"forward": _masked(plain.forward)}

    def set_attn_implementation(self, attn_implementation: str | dict[str, Any], *args: Any, **kwargs: Any) -> None:
        """As Transformers does, with the masks kept.

        Raises:
            MaskError: an attention implementation without masks; nothing is then changed.
        """
        configs = self.attachment.configs
        before = [config._attn_implementation_internal for config in configs]
        use_plain(configs)
        try:
            super().set_attn_implementation(attn_implementation, *args, **kwargs)  # type: ignore[misc]  # the model's own
            use_masks(configs)
        except (MaskError, ValueError, ImportError):
            for config, implementation in zip(configs, before, strict=True):
                config._attn_implementation_internal = implementation
            raise

    def _set_gradient_checkpointing(self, *args: Any, **kwargs: Any) -> None:
        super()._set_gradient_checkpointing(*args, **kwargs)  # type: ignore[misc]  # as above
        keep_calls(self)


CHECKPOINT = "_gradient_checkpointing_func"
"""The attribute of a module with the function that Transformers checkpoints it by."""


def _masked(forward: Callable[..., Any]) -> Callable[..., Any]:
    """A model's `forward` that takes masks, with a signature that says so: Trainer keeps columns of a batch by it."""
    own = inspect.signature(forward)
    names = tuple(own.parameters)

    def masked_forward(self: AttachedModel, *args: Any, **kwargs: Any) -> ModelOutput | tuple[Any, ...]:
        if not torch.compiler.is_compiling():
            check_misspelt(kwargs, own.parameters)
        given = {name: kwargs.pop(name) for name in CALL_ARGUMENTS if name in kwargs}
        arguments = {**dict(zip(names[1:], args, strict=False)), **kwargs}
        if given.get("segment_ids") is not None:
            self.attachment.check_packing(self)
            kwargs = with_decoder_inputs(self, given, kwargs)
        with self.attachment.call(given, arguments.get("encoder_outputs")):
            try:
                return forward(self, *args, **kwargs)
            except IndexError:
                check_indices(self, arguments)
                raise

    parameters = list(own.parameters.values())
    rest = [parameters.pop()] if parameters[-1].kind is Parameter.VAR_KEYWORD else []
    added = [
        Parameter(
            name,
            Parameter.KEYWORD_ONLY if rest else Parameter.POSITIONAL_OR_KEYWORD,
            default=None,
            annotation=MaskLike,
        )
        for name in CALL_ARGUMENTS
        if name not in own.parameters
    ]
    masked_forward.__name__, masked_forward.__qualname__ = "forward", forward.__qualname__
    masked_forward.__doc__, masked_forward.__module__ = forward.__doc__, forward.__module__
    masked_forward.__signature__ = own.replace(parameters=[*parameters, *added, *rest])  # type: ignore[attr-defined]
    return masked_forward


def check_misspelt(keywords: Iterable[str], own: Container[str]) -> None:
    """Refuse keywords that are nearly one of ours, since many models take any keyword and then do not read it.

    Args:
        own: the model's own arguments.

    Raises:
        TypeError: with the argument that was meant.
    """
    for name in keywords:
        if name not in own and name not in CALL_ARGUMENTS:
            near = difflib.get_close_matches(name, CALL_ARGUMENTS, n=1, cutoff=0.88)
            if near:
                raise TypeError(f"no argument is called {name}; did you mean {near[0]}?")


def keep_calls(model: Any) -> None:
    """Let layers that gradient checkpointing computes again have the call of the forward pass."""
    for module in model.modules():
        if (function := getattr(module, CHECKPOINT, None)) is not None:
            setattr(module, CHECKPOINT, model.attachment.current_call.kept_by(function))
