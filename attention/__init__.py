"""Attention backends, a file for each: the form to which it compiles masks, and the function that attends."""

from .backends import register_backend
from .base import AttentionBackend, AttentionResult, MaskRequest

__all__ = ["AttentionBackend", "AttentionResult", "MaskRequest", "register_backend"]
