"""From the states of a text's tokens to one vector of a fixed length.

Letters: B batch, S source length, E width of the embeddings, H heads.

Every pooler is called with the states, (B, S, hidden), with `readable`, (B, S) bool, which tokens it may read, with
`embeds`, a function that gives the tokens' embeddings, (B, S, E), and with the `attention_mask`. It returns one vector
a text, (B, hidden), and the weights of its attention, (B, H, 1, S), or None. A text with nothing to read gets a vector
on which no token has an influence.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from ..masks.tensor_mask import TensorMask
from ..modeling.decoder import CrossMaskDecoder
from ..modeling.layers import rms_norm
from .query_layer import QueryLayer

Embeds = Callable[[], torch.Tensor]
Pooled = tuple[torch.Tensor, torch.Tensor | None]


class AttentionPooler(nn.Module):
    """A learned query reads the states by interactive attention."""

    def __init__(self, config: Any):
        super().__init__()
        self.query = nn.Parameter(torch.empty(1, config.hidden_size))
        self.layer = QueryLayer(config, 0)
        self.norm = rms_norm(config)

    def forward(
        self, states: torch.Tensor, readable: torch.Tensor, embeds: Embeds, attention_mask: torch.Tensor | None
    ) -> Pooled:
        query = self.query.to(states.dtype).expand(states.shape[0], -1, -1)
        pooled, weights = self.layer(query, states, readable[:, None, None])
        return self.norm(pooled)[:, 0], weights


class MeanPooler(nn.Module):
    """The mean of the states."""

    def __init__(self, config: Any):
        super().__init__()

    def forward(
        self, states: torch.Tensor, readable: torch.Tensor, embeds: Embeds, attention_mask: torch.Tensor | None
    ) -> Pooled:
        # Zero first: what may not be read may be no number, which zero times it would be too.
        total = states.masked_fill(~readable[..., None], 0.0).sum(1, dtype=torch.float32)
        return (total / readable.sum(1, keepdim=True).clamp(min=1)).to(states.dtype), None


class DecoderPooler(nn.Module):
    """A decoder reads the text as its target, interactive attention to the encoder's states included.

    The vector is its state at the last token. The target's embeddings are the source's, which are the same tokens.
    """

    def __init__(self, config: Any):
        super().__init__()
        self.decoder = CrossMaskDecoder(config.encoder)
        self.decoder.embed_tokens = None  # type: ignore[assignment]

    def forward(
        self, states: torch.Tensor, readable: torch.Tensor, embeds: Embeds, attention_mask: torch.Tensor | None
    ) -> Pooled:
        decoded = self.decoder(
            inputs_embeds=embeds(),
            attention_mask=readable.long(),
            cross_mask=TensorMask(readable),
            encoder_hidden_states=states,
            encoder_attention_mask=attention_mask,
            use_cache=False,
        ).last_hidden_state
        place = torch.arange(readable.shape[1], device=readable.device)
        last = (place * readable).amax(1)
        return decoded[torch.arange(len(last), device=last.device), last], None


POOLERS: dict[str, type[nn.Module]] = {"attention": AttentionPooler, "mean": MeanPooler, "decoder": DecoderPooler}
