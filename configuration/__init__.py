"""What a model is."""

from .crossmask import CrossMaskConfig

__all__ = ["CrossMaskConfig"]
