"""Several rows of the target over one row of the source, as beam search has them.

Keys and values of the source are the same for all hypotheses of an example. Instead of a copy for each, the queries of
the hypotheses stand in one row, one hypothesis after the other, as if they were more positions. The mask of such a row
is made where masks are compiled (`fold_mask` in `../attention/dense.py`).

Letters: B rows of the source, G rows of the target for each, H heads, T target length, S source length, D head width.
"""

from copy import copy

import torch
from transformers.cache_utils import Cache, EncoderDecoderCache

from ..masks.layout import Layout, lay_out
from .cache import keys_and_values, layers_with_keys


def rows_per_source(targets: int, sources: int, cache: EncoderDecoderCache | None = None) -> int:
    """G: how many rows of the target share each row of the source's keys, which may be in the cache already.

    Raises:
        ValueError: they do not come out even.
    """
    if cache is not None and cache.is_updated.get(0):
        sources = keys_and_values(cache.cross_attention_cache.layers[0])[0].shape[0]
    if targets % sources:
        raise ValueError(
            f"the number of target rows must be that of the source, {sources}, or a multiple of it, got {targets}; "
            "give each target its source"
        )
    return targets // sources


def lay_out_shared_source(
    length: int,
    device: torch.device,
    batch: int,
    rows: torch.Tensor | int,
    **ids_of_call: torch.Tensor | None,
) -> Layout:
    """The source's layout for each of the B * G rows of the target.

    Args:
        length: S. batch: B * G.
        rows, ids_of_call: as in `lay_out`; tensors have B rows, or one for each row of the target.
    """
    for name, ids in ids_of_call.items():
        if ids is not None and ids.shape[0] < batch:
            ids_of_call[name] = ids.repeat_interleave(batch // ids.shape[0], 0)
    return lay_out(length, device, rows=rows, **ids_of_call)


def fold_rows(query: torch.Tensor, beams_per_source: int) -> torch.Tensor:
    """Queries (B * G, H, T, D) to (B, H, G * T, D)."""
    return query.unflatten(0, (-1, beams_per_source)).transpose(1, 2).flatten(2, 3)


def unfold_rows(weights: torch.Tensor, beams_per_source: int) -> torch.Tensor:
    """Attention weights (B, H, G * T, S) to (B * G, H, T, S)."""
    return weights.unflatten(2, (beams_per_source, -1)).transpose(1, 2).flatten(0, 1)


def repeat_target(cache: Cache, rows: int) -> None:
    """Give each of a batch's `rows` hypotheses the target's keys and values of its example, which has one row now."""
    cache = cache.self_attention_cache if isinstance(cache, EncoderDecoderCache) else cache
    for layer in layers_with_keys(cache):
        if layer.is_initialized and 0 < (examples := len(keys_and_values(layer)[0])) < rows:
            layer.batch_repeat_interleave(rows // examples)


def keep_returned(cache: EncoderDecoderCache, beam_indices: torch.Tensor, examples: int) -> None:
    """Put the rows of a beam search's returned sequences first among each example's rows; the best ones fill the rest.

    A sequence that ended before the last step has lost its rows; there is nothing to go on with. The cache's
    `returned`, (N,) int64, says where the returned sequences' rows are.

    Args:
        cache: with `last_rows`, each layer's keys and values as the last step left them, which are dropped.
        beam_indices: (N, T) int64, the row that each token of a returned sequence came from; below 0 after its end.
        examples: B, how many examples there are.
    """
    last_rows = cache.last_rows
    del cache.last_rows
    if not last_rows:
        return
    ends = (beam_indices >= 0).sum(-1, keepdim=True) - 1
    order = beam_indices.gather(1, ends.clamp(min=0)).clamp(min=0).view(examples, -1)
    rows = len(last_rows[0][0])
    cache.returned = torch.arange(rows).view(examples, -1)[:, : order.shape[1]].flatten()
    rest = rows // examples - order.shape[1]
    order = torch.cat([order, order[:, :1].expand(-1, rest)], dim=1).flatten()
    for layer, (keys, values) in zip(layers_with_keys(cache.self_attention_cache), last_rows, strict=True):
        layer.keys, layer.values = (part.index_select(0, order.to(part.device)) for part in (keys, values))


def repeat_source(cache: EncoderDecoderCache) -> EncoderDecoderCache:
    """A cache in which each of the G target rows of an example has the source's keys and values to itself.

    The caches of the source are new ones: a static cache that `generate()` uses again stays as it is.
    """
    rows = keys_and_values(layers_with_keys(cache.self_attention_cache)[0])[0].shape[0]
    source = copy(cache.cross_attention_cache)
    source.layers = [copy(layer) for layer in source.layers]
    for layer in layers_with_keys(source):
        keys, values = keys_and_values(layer)
        beams_per_source = rows // keys.shape[0]
        if beams_per_source > 1:
            layer.keys = keys.repeat_interleave(beams_per_source, 0)
            layer.values = values.repeat_interleave(beams_per_source, 0)
    repeated = EncoderDecoderCache(cache.self_attention_cache, source)
    if hasattr(cache, "returned"):
        repeated.returned = cache.returned
    return repeated


def select_returned(cache: Cache, rows: int) -> None:
    """Leave in a beam search's cache the rows of the sequences that it returned, if that is how many go on.

    Raises:
        ValueError: the cache has another number of rows than go on.
    """
    parts = [cache]
    if isinstance(cache, EncoderDecoderCache):
        parts = [cache.self_attention_cache, cache.cross_attention_cache]
    layers = [layer for part in parts for layer in layers_with_keys(part)]
    there, returned = len(keys_and_values(layers[0])[0]), getattr(cache, "returned", None)
    if there == rows:
        return
    if returned is None or len(returned) != rows:
        raise ValueError(
            f"past_key_values hold {there} sequences, but decoder_input_ids {rows}; give all sequences that the call "
            "returned, each with its source"
        )
    for layer in layers:
        layer.keys, layer.values = (t.index_select(0, returned.to(t.device)) for t in keys_and_values(layer))
    del cache.returned
