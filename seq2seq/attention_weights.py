"""The weights of interactive attention, which most attention backends don't return."""

from collections.abc import Iterator
from contextlib import contextmanager

from transformers import PreTrainedModel

ATTACHED_PREFIX = "crossmask_"
"""What the names of an attached model's attention implementations begin with, before that which they are made of."""


def plain_name(implementation: str | None) -> str:
    """`"sdpa"` for `"crossmask_sdpa"`."""
    return (implementation or "eager").removeprefix(ATTACHED_PREFIX)


@contextmanager
def attending_eagerly(model: PreTrainedModel) -> Iterator[None]:
    """Attention in the eager backend, which returns its weights, and afterwards in the one before."""
    configs = {"": model.config, **{name: getattr(model.config, name) for name in model.config.sub_configs}}
    before = {name: plain_name(config._attn_implementation) for name, config in configs.items()}
    model.set_attn_implementation(dict.fromkeys(before, "eager"))
    try:
        yield
    finally:
        model.set_attn_implementation(before)
