"""The masks of this package on pretrained encoder-decoders of Transformers."""

from .attach import attach, detach

__all__ = ["attach", "detach"]
