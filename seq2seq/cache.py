"""The cache of both attentions: what a caller gave, and how many target tokens it holds."""

import torch
from torch import nn
from transformers import PreTrainedConfig
from transformers.cache_utils import (
    Cache,
    CacheLayerMixin,
    DummyLayer,
    DynamicCache,
    EncoderDecoderCache,
    LinearAttentionCacheLayerMixin,
)


def check_cache(cache: Cache | None) -> None:
    """Refuse what is not a cache.

    Raises:
        ValueError: with the class of what was given.
    """
    if cache is not None and not isinstance(cache, Cache):
        raise ValueError(
            f"past_key_values must be an EncoderDecoderCache or a DynamicCache, got {type(cache).__name__}; give what "
            "the last call returned as past_key_values"
        )


def read_cache(
    cache: Cache | None, wanted: bool, decoder_config: PreTrainedConfig | None = None
) -> EncoderDecoderCache | None:
    """The cache of both attentions: as it was given, around one of the target's alone, or a new one if wanted.

    That of the source has no sliding windows, whatever the decoder has.

    Args:
        decoder_config: says of which layers a new cache is; None where all of them keep every token.

    Raises:
        ValueError: it is not a cache.
    """
    check_cache(cache)
    if isinstance(cache, EncoderDecoderCache):
        return cache
    if cache is None:
        return EncoderDecoderCache(DynamicCache(config=decoder_config), DynamicCache()) if wanted else None
    return EncoderDecoderCache(cache, DynamicCache())


def layers_with_keys(cache: Cache) -> list[CacheLayerMixin]:
    """The cache of each layer that has attention; a recurrent layer keeps no keys."""
    return [layer for layer in cache.layers if isinstance(layer, CacheLayerMixin)]


def keys_and_values(
    layer: CacheLayerMixin | LinearAttentionCacheLayerMixin | DummyLayer,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The keys and values (B, H, L, D) in the cache of a layer.

    Raises:
        ValueError: it has none: the layer is recurrent, or nothing was cached yet.
    """
    if not isinstance(layer, CacheLayerMixin) or layer.keys is None or layer.values is None:
        raise ValueError(f"the cache of a layer must hold keys and values, got {type(layer).__name__} without them")
    return layer.keys, layer.values


def is_recurrent(cache: Cache) -> bool:
    """Whether a layer keeps states that replace each other."""
    return any(isinstance(layer, LinearAttentionCacheLayerMixin) for layer in cache.layers)


def cached_sizes(cache: Cache | None, length: int) -> tuple[int | torch.Tensor, int]:
    """How many target tokens are cached, and how many keys attention has with T = `length` more.

    A static cache counts on the device, with a tensor, and always has all its places as keys. Layers with a sliding
    window have fewer keys than the others.
    """
    if cache is None:
        return 0, length
    past = cache.get_seq_length()
    own = cache.self_attention_cache if isinstance(cache, EncoderDecoderCache) else cache
    attending = [n for n, layer in enumerate(own.layers) if isinstance(layer, CacheLayerMixin)] or [0]
    widths = [cache.get_mask_sizes(length, layer)[0] for layer in attending]
    return past, max([*widths, past + length] if isinstance(past, int) else widths)


def as_wide_as_cache(attention_mask: torch.Tensor, cache: Cache) -> torch.Tensor:
    """Padding (B, T) to (B, capacity) of a static cache, so that shapes stay put; what is to come counts as tokens."""
    return nn.functional.pad(attention_mask, (0, cache.get_max_length() - attention_mask.shape[1]), value=1)


def columns_of_layer(mask: torch.Tensor, cache: Cache | None, layer: int, length: int) -> torch.Tensor:
    """The columns of a mask (..., all keys) for the keys of a layer: those of a sliding window begin later.

    Args:
        cache: the target's own. length: T, of the new tokens.
    """
    if cache is None or (layer < len(cache.layers) and not isinstance(cache.layers[layer], CacheLayerMixin)):
        return mask
    keys, offset = cache.get_mask_sizes(length, layer)
    if mask.shape[-1] == keys:
        return mask
    columns = offset + torch.arange(keys, device=mask.device)
    return mask.index_select(-1, columns.clamp(min=0, max=mask.shape[-1] - 1))
