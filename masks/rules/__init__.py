"""The library of rules. Code that reads a text imports `parse` from here, so that every rule is known."""

from ..parse import parse
from ..registry import RULES, rule
from .alignment import alignment, monotonic
from .custom import lookup, register
from .per_head_and_layer import heads, layers
from .positional import blocks, causal, chunked, dilated, full, prefix, wait_k, window
from .random import random
from .segments import passages, segments
from .spans import blind, drop, keep

__all__ = [
    "RULES",
    "alignment",
    "blind",
    "blocks",
    "causal",
    "chunked",
    "dilated",
    "drop",
    "full",
    "heads",
    "keep",
    "layers",
    "lookup",
    "monotonic",
    "parse",
    "passages",
    "prefix",
    "random",
    "register",
    "rule",
    "segments",
    "wait_k",
    "window",
]
