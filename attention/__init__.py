"""Attention backends, each in a file: the form that it wants a mask in, and the function that computes with it."""

from .backends import register_backend
from .base import AttentionBackend, AttentionResult, MaskRequest

__all__ = ["AttentionBackend", "AttentionResult", "MaskRequest", "register_backend"]
