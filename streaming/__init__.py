"""Simultaneous translation of text: words in, words out, and how late and how good they are.

The streams of tokens under it are in `seq2seq/simultaneous/`. `python -m crossmask.streaming` measures a model at
several waits; `simuleval_agent.py` lets SimulEval do it.
"""

from .latency import Latency, average_lagging, differentiable_average_lagging, length_adaptive_average_lagging
from .text import SimultaneousTranslation, TextStream, translate

__all__ = [
    "Latency",
    "SimultaneousTranslation",
    "TextStream",
    "average_lagging",
    "differentiable_average_lagging",
    "length_adaptive_average_lagging",
    "translate",
]
