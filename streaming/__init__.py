"""Simultaneous translation of text, word by word, with its latency and quality.

It is built on the streams of tokens in `seq2seq/simultaneous/`. `crossmask latency` measures a model at
several waits; with `simuleval_agent.py` SimulEval measures it.
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
