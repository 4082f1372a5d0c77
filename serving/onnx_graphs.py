"""The two graphs of a model: its encoder, and its decoder with the cache as inputs and outputs.

Names and shapes are those of Optimum's exports, so that other runtimes know them. The masks of the config are
computed inside of the graphs, for any number of tokens. The decoder needs no branch for its first step: it computes
the keys and values of those source states that its cache lacks, which are all of them at first and none later.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import nn

from ..masks.expressions import logical_and
from ..masks.layout import Layout, lay_out
from ..masks.target_layout import TargetLayout
from ..modeling.crossmask import CrossMaskForConditionalGeneration
from ..modeling.memory import memory_layout

ENCODER, DECODER = "encoder_model", "decoder_model_merged"
Masks = Sequence[torch.Tensor | None]


def cache_names(layers: int, prefix: str) -> list[str]:
    """The names of all tensors of the cache: of each layer the decoder's key and value, and then the encoder's."""
    return [
        f"{prefix}.{layer}.{side}.{part}"
        for layer in range(layers)
        for side in ("decoder", "encoder")
        for part in ("key", "value")
    ]


class EncoderGraph(nn.Module):
    """Ids and padding mask, (B, S) int64, to states (B, S, hidden), or (B, N, hidden) with a memory of N vectors."""

    def __init__(self, model: CrossMaskForConditionalGeneration):
        super().__init__()
        self.encoder: Any = model.model.encoder

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, encoder_mask: torch.Tensor
    ) -> torch.Tensor:
        """Encode under the masks of the config and `encoder_mask`, (B, H, S, S) bool."""
        encoder = self.encoder
        batch, length = input_ids.shape
        source = lay_out(length, input_ids.device, attention_mask=attention_mask, rows=batch)
        rows = torch.arange(length, device=input_ids.device)
        masks = encoder.layer_masks.compile(None, source, source, batch=batch, rows=rows, seen=None)
        hidden_states = encoder.embed_proj(encoder.embed_tokens(input_ids))
        position_embeddings = encoder.rotary_emb(hidden_states, source.positions)
        for layer, mask in zip(encoder.layers, _joined(masks, encoder_mask), strict=True):
            hidden_states = layer(hidden_states, position_embeddings, mask)
        hidden_states = encoder.norm(hidden_states)
        if encoder.memory is not None:
            hidden_states = encoder.memory(hidden_states, source, encoder.layer_masks.blind(None))
        return hidden_states


class _Decoder(nn.Module):
    def __init__(self, model: CrossMaskForConditionalGeneration):
        super().__init__()
        self.decoder: Any = model.model.decoder
        self.head_proj, self.lm_head = model.head_proj, model.lm_head

    def decode(
        self,
        input_ids: torch.Tensor,
        states: torch.Tensor,
        source: Layout,
        past: Sequence[torch.Tensor],
        decoder_mask: torch.Tensor,
        cross_mask: torch.Tensor | None,
    ) -> tuple[torch.Tensor, ...]:
        """Decode T tokens behind P cached ones, over states that are laid out as `source`."""
        cache = _GraphCache(past)
        batch, length = input_ids.shape
        target = _lay_out_target(length, cache.target_length, batch, input_ids.device)
        self_masks = self.decoder.self_masks.compile_target(None, target, batch=batch)
        cross_masks = self.decoder.cross_masks.compile(
            None, target.query, source, batch=batch, rows=target.rows, seen=None
        )
        hidden_states = self.decoder.embed_proj(self.decoder.embed_tokens(input_ids))
        position_embeddings = self.decoder.rotary_emb(hidden_states, target.query.positions)
        new_states = states[:, cache.source_length :]
        masks = zip(_joined(self_masks, decoder_mask), _joined(cross_masks, cross_mask), strict=True)
        for layer, layer_masks in zip(self.decoder.layers, masks, strict=True):
            hidden_states = layer(hidden_states, new_states, position_embeddings, *layer_masks, cache)
        logits = self.lm_head(self.head_proj(self.decoder.norm(hidden_states)))
        return logits, *cache.tensors()


class DecoderGraph(_Decoder):
    """New target tokens, the source and the cache to logits and the cache with the new tokens."""

    def forward(
        self,
        input_ids: torch.Tensor,
        encoder_hidden_states: torch.Tensor,
        past: Sequence[torch.Tensor],
        decoder_mask: torch.Tensor,
        encoder_attention_mask: torch.Tensor,
        cross_mask: torch.Tensor,
    ) -> tuple[torch.Tensor, ...]:
        """Decode T tokens behind P cached ones.

        Args:
            input_ids: (B, T) int64. encoder_hidden_states: (B, S, hidden). encoder_attention_mask: (B, S) int64.
            past: as `cache_names` names them: (B, H, P, D) of the decoder; (B, H, 0, D) of the encoder at first, and
                then (B, H, S, D).
            decoder_mask: (B, H, T, P + T) bool. cross_mask: (B, H, T, S) bool. The rows of these T tokens.

        Returns:
            Logits (B, T, vocabulary), and the cache in the order of `past`.
        """
        length, device = encoder_hidden_states.shape[1], input_ids.device
        source = lay_out(length, device, attention_mask=encoder_attention_mask, rows=input_ids.shape[0])
        return self.decode(input_ids, encoder_hidden_states, source, past, decoder_mask, cross_mask)


class MemoryDecoderGraph(_Decoder):
    """As `DecoderGraph` over the vectors of a memory, (B, N, hidden), of which none is padding."""

    def forward(
        self,
        input_ids: torch.Tensor,
        encoder_hidden_states: torch.Tensor,
        past: Sequence[torch.Tensor],
        decoder_mask: torch.Tensor,
    ) -> tuple[torch.Tensor, ...]:
        """As `DecoderGraph.forward`, with N for S."""
        source = memory_layout(1, encoder_hidden_states.shape[1], input_ids.device, packed=False)
        return self.decode(input_ids, encoder_hidden_states, source, past, decoder_mask, None)


def _lay_out_target(length: int, cached: int, batch: int, device: torch.device) -> TargetLayout:
    """New tokens behind cached ones, none of them padding. `lay_out_target` would ask how many there are."""
    key = Layout(torch.arange(cached + length, device=device)[None], rows=batch, may_grow=True)
    rows = cached + torch.arange(length, device=device)
    return TargetLayout(key.pick(rows), key, rows, seen=None, is_last=False)


def _joined(masks: Masks, given: torch.Tensor | None) -> Masks:
    if given is None:
        return masks
    return [given if mask is None else logical_and(mask, given) for mask in masks]  # type: ignore[misc]


class _GraphCache:
    """What layers use of an `EncoderDecoderCache`, over tensors whose lengths are not known."""

    def __init__(self, past: Sequence[torch.Tensor]):
        self.self_attention_cache = _Side(past[0::4], past[1::4])
        self.cross_attention_cache = _Side(past[2::4], past[3::4])
        self.is_updated: dict[int, bool] = {}  # so the source's keys and values are computed, of states that are new
        self.target_length, self.source_length = past[0].shape[2], past[2].shape[2]

    def tensors(self) -> Iterator[torch.Tensor]:
        sides = (self.self_attention_cache, self.cross_attention_cache)
        for layer in range(len(self.self_attention_cache.keys)):
            for side in sides:
                yield side.keys[layer]
                yield side.values[layer]


class _Side:
    def __init__(self, keys: Sequence[torch.Tensor], values: Sequence[torch.Tensor]):
        self.keys, self.values = list(keys), list(values)

    def update(self, key: torch.Tensor, value: torch.Tensor, layer: int) -> tuple[torch.Tensor, torch.Tensor]:
        self.keys[layer] = torch.cat([self.keys[layer], key], dim=2)
        self.values[layer] = torch.cat([self.values[layer], value], dim=2)
        return self.keys[layer], self.values[layer]
