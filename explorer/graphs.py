"""The two graphs that the static page runs: as the web export's, with masks by layer, and with attention weights.

A page reads one sentence at a time, so there is no batch, no padding and no cache: the decoder reads all target tokens
at each step, which is fast enough for the few that a page shows. The masks, the config's included, are inputs: the
page has their grids anyway.
"""

from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.export import Dim

from ..modeling.crossmask import CrossMaskForConditionalGeneration
from ..serving.libraries import require
from ..serving.onnx_program import make_graph
from ..utils.errors import InputError

ENCODER, DECODER = "encoder.onnx", "decoder.onnx"
_PURPOSE = "write the static explorer"


class PageEncoder(nn.Module):
    """Ids (1, S) and masks (L, H, S, S) bool to states (1, S, hidden)."""

    def __init__(self, model: CrossMaskForConditionalGeneration):
        super().__init__()
        self.encoder: Any = model.model.encoder

    def forward(self, input_ids: torch.Tensor, encoder_mask: torch.Tensor) -> torch.Tensor:
        encoder = self.encoder
        hidden_states = encoder.embed_proj(encoder.embed_tokens(input_ids))
        positions = torch.arange(input_ids.shape[1])[None]
        position_embeddings = encoder.rotary_emb(hidden_states, positions)
        for index, layer in enumerate(encoder.layers):
            hidden_states = layer(hidden_states, position_embeddings, encoder_mask[index : index + 1])
        states: torch.Tensor = encoder.norm(hidden_states)
        return states


class PageDecoder(nn.Module):
    """Ids (1, T), states (1, S, hidden) and masks to logits (1, T, vocabulary) and weights (L, H, T, S).

    The masks are bool: (L, H, T, T) of the decoder, and (L, H, T, S) of interactive attention.
    """

    def __init__(self, model: CrossMaskForConditionalGeneration):
        super().__init__()
        self.decoder: Any = model.model.decoder
        self.head_proj, self.lm_head = model.head_proj, model.lm_head

    def forward(
        self,
        input_ids: torch.Tensor,
        encoder_hidden_states: torch.Tensor,
        decoder_mask: torch.Tensor,
        cross_mask: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        decoder = self.decoder
        hidden_states = decoder.embed_proj(decoder.embed_tokens(input_ids))
        positions = torch.arange(input_ids.shape[1])[None]
        position_embeddings = decoder.rotary_emb(hidden_states, positions)
        weights: list[torch.Tensor] = []
        keep = [
            layer.cross_attn.register_forward_hook(lambda module, inputs, output: weights.append(output[1]))
            for layer in decoder.layers
        ]
        for index, layer in enumerate(decoder.layers):
            masks = (decoder_mask[index : index + 1], cross_mask[index : index + 1])
            hidden_states = layer(hidden_states, encoder_hidden_states, position_embeddings, *masks)
        for hook in keep:
            hook.remove()
        return self.lm_head(self.head_proj(decoder.norm(hidden_states))), torch.cat(weights)


def save_graphs(model: Any, folder: Path) -> None:
    """Write `encoder.onnx` and `decoder.onnx` in float32.

    int8 would not do: what it computes has one scale for all tokens, and by that a hidden token changes the others.

    Args:
        model: in evaluation, on the processor; its attention implementation becomes `eager`. folder: exists.

    Raises:
        InputError: it is not our own network, or has a memory. MissingLibraryError: ONNX is not installed.
    """
    if not isinstance(model, CrossMaskForConditionalGeneration):
        raise InputError(
            f"the model of a static page must be a CrossMaskForConditionalGeneration, got {type(model).__name__}; "
            "show it by the server: crossmask explore MODEL"
        )
    if model.config.memory_length is not None:
        raise InputError("the model of a static page must have no memory; show it by the server")
    onnx = require("onnx", "onnx", _PURPOSE)
    require("onnxscript", "onnx", _PURPOSE)
    model.set_attn_implementation("eager")
    config: Any = model.config
    heads, source, target = config.num_attention_heads, Dim("source_length"), Dim("target_length")
    ids, states = torch.ones(1, 7, dtype=torch.long), torch.zeros(1, 7, config.hidden_size)

    def every(layers: int, rows: int, columns: int) -> torch.Tensor:
        return torch.ones(layers, heads, rows, columns, dtype=torch.bool)

    encoder = {
        "input_ids": (ids, {1: source}),
        "encoder_mask": (every(config.encoder_layers, 7, 7), {2: source, 3: source}),
    }
    decoder = {
        "input_ids": (ids[:, :5], {1: target}),
        "encoder_hidden_states": (states, {1: source}),
        "decoder_mask": (every(config.decoder_layers, 5, 5), {2: target, 3: target}),
        "cross_mask": (every(config.decoder_layers, 5, 7), {2: target, 3: source}),
    }
    onnx.save(make_graph(PageEncoder(model), encoder, ["last_hidden_state"]), folder / ENCODER)
    onnx.save(make_graph(PageDecoder(model), decoder, ["logits", "cross_attentions"]), folder / DECODER)
