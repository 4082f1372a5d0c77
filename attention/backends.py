"""The attention backends by name, and which of them runs a mask.

`config._attn_implementation` has the name, as everywhere in Transformers. A mask that the backend does not support
goes to its fallback, which gives the same numbers. `docs/backends.md` has a table of which masks run where.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS, AttentionInterface

from ..masks.expressions import MaskError
from .base import AttentionBackend, AttentionResult, MaskRequest
from .blockwise import BlockwiseBackend
from .dense import DenseBackend, EagerBackend, SdpaBackend
from .flash import FlashBackend
from .flex import FlexBackend

CompiledMask = object
"""What a backend compiles a mask to: a boolean tensor, or a type of its own; None if everything is allowed."""

BACKENDS: dict[str, AttentionBackend] = {}
"""The registered backends by name."""


def register_backend(backend: AttentionBackend) -> AttentionBackend:
    """Make a backend known by its name to configs, `attn_implementation` and `set_attn_implementation`.

    Models of Transformers can use it too, unless Transformers has an implementation of that name. Their masks are
    tensors, which go to the first backend that takes tensors: this one, or one of its fallbacks.

    Raises:
        TypeError: `backend` is not an instance of `AttentionBackend` with a name.
        ValueError: another backend has that name.
    """
    name: str | None = getattr(backend, "name", None)
    if not isinstance(backend, AttentionBackend) or not isinstance(name, str) or not name:
        raise TypeError(
            f"a backend must be an instance of AttentionBackend with a name, got {type(backend).__name__} with "
            f"name={name!r}; write register_backend(MyBackend())"
        )
    if not _defined_again(backend, BACKENDS.get(name)):
        raise ValueError(
            f"an attention backend must have a new name, got {name!r}, which exists already; choose another name"
        )
    BACKENDS[name] = backend
    if name != "eager" and name not in ALL_ATTENTION_FUNCTIONS:
        AttentionInterface.register(name, partial(attend, name))
        AttentionMaskInterface.register(name, sdpa_mask)
    return backend


def _defined_again(new: AttentionBackend, old: AttentionBackend | None) -> bool:
    """Whether `new` is the same definition, run again, as in a cell of a notebook."""
    kinds = [(type(backend).__module__, type(backend).__qualname__) for backend in (new, old)]
    return old is None or kinds[0] == kinds[1]


def find_backend(name: str | None) -> AttentionBackend:
    """The backend of this name. A function that only Transformers knows gets boolean tensors.

    Args:
        name: the attention implementation; None is `"eager"`.
    """
    name = name or "eager"
    if name in BACKENDS:
        return BACKENDS[name]
    for backend in BACKENDS.values():
        if (variant := backend.variant(name)) is not None:
            return variant
    return DenseBackend(name)


def compile_masks(name: str | None, requests: Sequence[MaskRequest]) -> list[CompiledMask]:
    """Compile the masks of one scope, all of them by the same backend; None for those that forbid nothing.

    Args:
        name: the attention implementation; masks that it does not support go to its fallback.

    Raises:
        MaskError: a mask does not fit the batch, or neither the backend nor a fallback can run it.
        TypeError: a backend compiles to a type that is not in its `mask_types`.
    """
    backend = _supporting(find_backend(name), requests)
    return [None if request.allows_all else _compile(backend, request) for request in requests]


def _supporting(backend: AttentionBackend, requests: Sequence[MaskRequest]) -> AttentionBackend:
    """The backend, or the first of its fallbacks, that supports all the masks."""
    refusals: dict[str, str] = {}
    while True:
        refused = next((request for request in requests if backend.supports(request) is not None), None)
        if refused is None:
            return backend
        refusals[backend.name] = f"{backend.name} cannot run {refused.rule}: {backend.supports(refused)}"
        fallback = backend.fallback_for(refused)
        if fallback is None or fallback in refusals:
            raise MaskError(
                f"a mask must be one that the attention backend or its fallbacks can run, got {refused.rule} "
                f"({'; '.join(refusals.values())}); choose another attn_implementation"
            )
        backend = find_backend(fallback)


def _compile(backend: AttentionBackend, request: MaskRequest) -> CompiledMask:
    compiled_mask = backend.compile(request)
    if compiled_mask is not None and not isinstance(compiled_mask, backend.mask_types):
        types = ", ".join(kind.__name__ for kind in backend.mask_types)
        raise TypeError(
            f"the attention backend {backend.name!r} must compile to its mask_types ({types}), got "
            f"{type(compiled_mask).__name__} for {request.rule}"
        )
    return compiled_mask


def attend(
    name: str | None,
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    compiled_mask: CompiledMask,
    *,
    additive: bool = False,
    **kwargs: Any,
) -> AttentionResult:
    """Attention by the backend of this name, or by the first of its fallbacks that takes the mask.

    Args:
        name: the attention implementation.
        module, query, key, value, compiled_mask, additive, kwargs: as in `AttentionBackend.attend`.

    Raises:
        TypeError: neither the backend nor a fallback takes the mask.
    """
    backend = find_backend(name)
    for _ in range(len(BACKENDS) + 1):
        if backend.takes(query, compiled_mask, additive):
            return backend.attend(module, query, key, value, compiled_mask, additive=additive, **kwargs)
        if backend.fallback is None:
            break
        backend = find_backend(backend.fallback)
    scores = "additive scores" if additive else "dot products"
    raise TypeError(
        f"a mask must be compiled to a type that the attention backend {name!r} or its fallbacks take for {scores}, "
        f"got {type(compiled_mask).__name__}; add that type to the mask_types of the backend that compiles to it"
    )


register_backend(EagerBackend())
register_backend(SdpaBackend())
register_backend(BlockwiseBackend())
register_backend(FlexBackend())
register_backend(FlashBackend("flash_attention_2"))  # versions 3 and 4 and kernels of the Hub are its variants
