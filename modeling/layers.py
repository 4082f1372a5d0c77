"""Embeddings, feed-forward, the two kinds of layer, and the product with the output layer."""

from typing import TypeGuard

import torch
from torch import nn
from transformers.activations import ACT2FN
from transformers.cache_utils import Cache, EncoderDecoderCache
from transformers.modeling_layers import GradientCheckpointingLayer

from ..configuration.crossmask import CrossMaskConfig
from ..masks.fast_paths import fast_path_allowed, is_observed
from ..seq2seq.cpu_ops import Dropout, RMSNorm
from ..seq2seq.interactive_attention import InteractiveAttention
from .self_attention import SelfAttention


class EmbeddingProjection(nn.Module):
    """From embeddings (B, L, E) to the model's width: dropout, behind a projection and activation if factorised.

    Embeddings are multiplied by the square root of their width, so that they weigh as much as a layer's output. This
    is done here, not in an embedding class of our own, because tools that quantise or replace `nn.Embedding` leave
    such a class out or lose its factor.
    """

    def __init__(self, config: CrossMaskConfig):
        super().__init__()
        self.proj = (
            nn.Identity()
            if config.embedding_size is None
            else nn.Linear(config.embedding_size, config.hidden_size, bias=False)
        )
        self.act = ACT2FN[config.embedding_act] if config.embedding_act else nn.Identity()
        self.dropout = Dropout(config.dropout)
        self.scale = (config.embedding_size or config.hidden_size) ** 0.5

    def forward(self, inputs_embeds: torch.Tensor) -> torch.Tensor:
        return self.dropout(self.act(self.proj(inputs_embeds * self.scale)))


class GatedMLP(nn.Module):
    """Gated feed-forward layer (Shazeer 2020, https://arxiv.org/abs/2002.05202)."""

    def __init__(self, config: CrossMaskConfig):
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)
        self.act_fn = ACT2FN[config.hidden_act]

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return self.down_proj(self.act_fn(self.gate_proj(hidden_states)) * self.up_proj(hidden_states))


def rms_norm(config: CrossMaskConfig) -> RMSNorm:
    return RMSNorm(config.hidden_size, eps=config.rms_norm_eps)


class EncoderLayer(GradientCheckpointingLayer):
    """Self-attention and feed-forward, each behind a norm and beside a residual connection."""

    def __init__(self, config: CrossMaskConfig, layer_idx: int):
        super().__init__()
        self.self_attn_norm = rms_norm(config)
        self.self_attn = SelfAttention(config, layer_idx)
        self.mlp_norm = rms_norm(config)
        self.mlp = GatedMLP(config)
        self.dropout = Dropout(config.dropout)

    def forward(
        self,
        hidden_states: torch.Tensor,
        position_embeddings: tuple[torch.Tensor, torch.Tensor],
        attention_mask: torch.Tensor | None = None,
        past_key_values: Cache | None = None,
    ) -> torch.Tensor:
        """(B, S, hidden) to (B, S, hidden)."""
        attended, _ = self.self_attn(
            self.self_attn_norm(hidden_states), position_embeddings, attention_mask, past_key_values
        )
        hidden_states = hidden_states + self.dropout(attended)
        return hidden_states + self.dropout(self.mlp(self.mlp_norm(hidden_states)))


class DecoderLayer(GradientCheckpointingLayer):
    """Self-attention, interactive attention and feed-forward."""

    def __init__(self, config: CrossMaskConfig, layer_idx: int):
        super().__init__()
        self.self_attn_norm = rms_norm(config)
        self.self_attn = SelfAttention(config, layer_idx)
        self.cross_attn_norm = rms_norm(config)
        self.cross_attn = InteractiveAttention(config, layer_idx)
        self.mlp_norm = rms_norm(config)
        self.mlp = GatedMLP(config)
        self.dropout = Dropout(config.dropout)

    def forward(
        self,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor,
        position_embeddings: tuple[torch.Tensor, torch.Tensor],
        attention_mask: torch.Tensor | None = None,
        cross_mask: torch.Tensor | None = None,
        past_key_values: EncoderDecoderCache | None = None,
    ) -> torch.Tensor:
        """(B, T, hidden) and (B, S, hidden) to (B, T, hidden)."""
        own_cache = past_key_values.self_attention_cache if past_key_values is not None else None
        attended, _ = self.self_attn(
            self.self_attn_norm(hidden_states), position_embeddings, attention_mask, own_cache
        )
        hidden_states = hidden_states + self.dropout(attended)
        attended, _ = self.cross_attn(
            self.cross_attn_norm(hidden_states), encoder_hidden_states, cross_mask, past_key_values
        )
        hidden_states = hidden_states + self.dropout(attended)
        return hidden_states + self.dropout(self.mlp(self.mlp_norm(hidden_states)))


def output_logits(layer: nn.Module, hidden_states: torch.Tensor) -> torch.Tensor:
    """Logits (..., vocabulary) of hidden states (..., hidden): what `layer(hidden_states)` gives.

    On CPU, few rows times a weight that no cache holds are multiplied transposed: the numbers are the same up to
    rounding. Beams over one sentence, and small batches, are such few rows, for which MKL reads a large weight several
    times the usual way round.
    """
    rows = hidden_states.shape[:-1]
    if (
        is_observed()
        or torch.is_grad_enabled()
        or not is_plain_linear(layer)
        or not fast_path_allowed(hidden_states, layer.weight, dtypes=(torch.float32,))
        or torch.is_autocast_enabled("cpu")
        or not 2 <= rows.numel() <= 8
        or layer.weight.numel() < 3 * 2**20  # where both ways took as long: benchmarks/LOG.md
    ):
        return layer(hidden_states)
    logits = torch.mm(layer.weight, hidden_states.flatten(0, -2).t()).t().contiguous()
    return logits.view(*rows, -1)


def is_plain_linear(layer: nn.Module) -> TypeGuard[nn.Linear]:
    """Whether calling a layer multiplies by its weight and does nothing else: then the product may be made elsewhere.

    PEFT and quantisation put another layer in its place, accelerate another `forward`, torchao another kind of weight;
    pruning and tensor parallelism add hooks. FSDP leaves all as it was.
    """
    everywhere = nn.modules.module
    return (
        type(layer) is nn.Linear
        and layer.bias is None
        and "forward" not in vars(layer)
        and type(layer.weight) in (torch.Tensor, nn.Parameter)
        and not (layer._forward_hooks or layer._forward_pre_hooks)
        and not (layer._backward_hooks or layer._backward_pre_hooks)
        and not (everywhere._global_forward_hooks or everywhere._global_forward_pre_hooks)
        and not (everywhere._global_backward_hooks or everywhere._global_backward_pre_hooks)
    )
