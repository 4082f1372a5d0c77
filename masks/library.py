"""All rules, under one roof; who reads text imports it from here, so that every rule is known."""

from .alignments import alignment, monotonic
from .chance import random
from .chunks import blocks, chunked, dilated
from .lookup import lookup, register
from .parts import passages, segments
from .portions import blind, drop, keep
from .registry import RULES, rule
from .rules import causal, full, prefix, wait_k, window
from .selections import heads, layers

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
    "passages",
    "prefix",
    "random",
    "register",
    "rule",
    "segments",
    "wait_k",
    "window",
]
