"""Several rows of the target over one row of the source, as beam search has them.

Keys and values of the source are the same for all hypotheses of an example. Instead of a copy for each, the queries of
the hypotheses stand in one row, one hypothesis after the other, as if they were more positions. The mask of such a row
is made where masks are compiled (`fold_mask` in `../attention/dense.py`).

Letters: B rows of the source, G rows of the target for each, H heads, T target length, S source length, D head width.
"""

from copy import copy

import torch
from transformers.cache_utils import EncoderDecoderCache


def fold_rows(query: torch.Tensor, beams_per_source: int) -> torch.Tensor:
    """Queries (B * G, H, T, D) to (B, H, G * T, D)."""
    return query.unflatten(0, (-1, beams_per_source)).transpose(1, 2).flatten(2, 3)


def unfold_rows(weights: torch.Tensor, beams_per_source: int) -> torch.Tensor:
    """Attention weights (B, H, G * T, S) to (B * G, H, T, S)."""
    return weights.unflatten(2, (beams_per_source, -1)).transpose(1, 2).flatten(0, 1)


def repeat_source(cache: EncoderDecoderCache) -> EncoderDecoderCache:
    """A cache in which each of the G target rows of an example has the source's keys and values to itself.

    The caches of the source are new ones: a static cache that `generate()` uses again stays as it is.
    """
    rows = cache.self_attention_cache.layers[0].keys.shape[0]
    source = copy(cache.cross_attention_cache)
    source.layers = [copy(layer) for layer in source.layers]
    for layer in source.layers:
        beams_per_source = rows // layer.keys.shape[0]
        if beams_per_source > 1:
            layer.keys = layer.keys.repeat_interleave(beams_per_source, 0)
            layer.values = layer.values.repeat_interleave(beams_per_source, 0)
    return EncoderDecoderCache(cache.self_attention_cache, source)
