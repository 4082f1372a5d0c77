"""From our own network to ONNX files."""

from collections.abc import Container, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from torch.export import Dim

from ..configuration.crossmask import CrossMaskConfig
from ..masks.blind_check import mentioned
from ..masks.scope import SCOPES
from ..modeling.crossmask import CrossMaskForConditionalGeneration
from ..utils.errors import InputError
from .libraries import require
from .model_checks import check_network
from .onnx_graphs import DECODER, ENCODER, DecoderGraph, EncoderGraph, MemoryDecoderGraph, cache_names
from .onnx_program import make_graph, without_known_warnings

_PURPOSE = "export to ONNX"
DTYPES = ("float32", "int8")
# Names that other runtimes look for: transformers.js needs the first.
BATCH, SOURCE, MEMORY, TARGET, PAST_TARGET, PAST_SOURCE = (
    "batch_size",
    "encoder_sequence_length",
    "memory_length",
    "decoder_sequence_length",
    "past_decoder_sequence_length",
    "past_encoder_sequence_length",
)

# By mask and axis, the input and the axis that have the same size.
_SIZES = {
    "encoder_mask": {0: ("input_ids", 0), 2: ("input_ids", 1), 3: ("input_ids", 1)},
    "decoder_mask": {0: ("input_ids", 0), 2: ("input_ids", 1)},
    "cross_mask": {0: ("input_ids", 0), 2: ("input_ids", 1), 3: ("encoder_attention_mask", 1)},
}


def check_exportable(model: Any) -> None:
    """Refuse a model that is not our own network.

    Raises:
        InputError: with its class.
    """
    check_network(model, "export others with Optimum, whose graphs have no masks")


def check_hidden_words(config: CrossMaskConfig, dtypes: Container[str]) -> None:
    """Refuse blind spans in int8, where activations have one scale for all tokens, through which hidden ones show.

    Raises:
        InputError: with a span.
    """
    spans = mentioned([mask for scope in SCOPES for mask in config.layer_masks(scope)])
    if spans and "int8" in dtypes:
        raise InputError(
            f"dtype must be float32 for a model with {min(span.brief_text() for span in spans)}, got int8, in which "
            "hidden tokens change the scale of all activations"
        )


def mask_inputs(config: CrossMaskConfig) -> tuple[str, ...]:
    """The masks that a call may give as tensors: all, but for one over a memory, which has no source positions."""
    return ("encoder_mask", "decoder_mask", *(() if config.memory_length is not None else ("cross_mask",)))


def save_onnx(model: CrossMaskForConditionalGeneration, folder: Path, suffixes: Mapping[str, str]) -> None:
    """Write `encoder_model.onnx` and `decoder_model_merged.onnx`.

    The masks of the config are in the graphs. `encoder_mask`, `decoder_mask` and `cross_mask` are optional inputs.

    Args:
        folder: exists. suffixes: by dtype of the weights, one of `DTYPES`, what follows a graph's name.

    Raises:
        InputError: it is not our own network, or has blind spans in int8. MissingLibraryError: ONNX is not installed.
    """
    check_exportable(model)
    check_hidden_words(model.config, suffixes)
    onnx = require("onnx", "onnx", _PURPOSE)
    for library in ("onnxscript", "onnxruntime"):
        require(library, "onnx", _PURPOSE)
    copied = _copy(model)
    for name, make in ((ENCODER, _encoder), (DECODER, _decoder)):
        graph = make(copied)
        for mask in mask_inputs(model.config):
            _make_optional(onnx, graph, mask)
        # Shapes inside of the graph were those of full masks; runtimes find their own.
        del graph.graph.value_info[:]
        for dtype, suffix in suffixes.items():
            write = onnx.save if dtype == "float32" else quantise
            write(graph, folder / f"{name}{suffix}.onnx")


def _copy(model: CrossMaskForConditionalGeneration) -> Any:
    """A copy in evaluation, in float32 on the processor, under attention of plain operations."""
    copied: Any = deepcopy(model).to("cpu", torch.float32).eval()  # type: ignore[arg-type]  # both are taken
    copied.set_attn_implementation("eager")
    for side in (copied.model.encoder, copied.model.decoder):
        # As a saved model has them: `model.to(torch.bfloat16)` rounds the frequencies.
        side.rotary_emb = type(side.rotary_emb)(copied.config)
    return copied


def _encoder(model: Any) -> Any:
    batch, source = Dim(BATCH), Dim(SOURCE)
    heads = model.config.num_attention_heads
    ids, ones = torch.ones(2, 7, dtype=torch.long), torch.ones(2, 7, dtype=torch.long)
    inputs = {
        "input_ids": (ids, {0: batch, 1: source}),
        "attention_mask": (ones, {0: batch, 1: source}),
        "encoder_mask": (torch.ones(2, heads, 7, 7, dtype=torch.bool), {0: batch, 2: source, 3: source}),
    }
    return make_graph(EncoderGraph(model), inputs, ["last_hidden_state"])


def _decoder(model: Any) -> Any:
    config: Any = model.config
    has_memory = config.memory_length is not None
    batch, target, past_target, past_source = map(Dim, (BATCH, TARGET, PAST_TARGET, PAST_SOURCE))
    # A memory's length varies in the graph too: sizes of 1 would be taken as fixed.
    states = Dim(MEMORY if has_memory else SOURCE)
    layers, heads = config.decoder_layers, config.num_attention_heads
    sizes = (5, past_target), (2, past_source)
    past = [
        (torch.zeros(2, config.num_key_value_heads, length, config.head_dim), {0: batch, 2: axis})
        for _ in range(layers)
        for length, axis in sizes
        for _ in ("key", "value")
    ]
    inputs: dict[str, Any] = {
        "input_ids": (torch.ones(2, 3, dtype=torch.long), {0: batch, 1: target}),
        "encoder_hidden_states": (torch.zeros(2, 7, config.hidden_size), {0: batch, 1: states}),
        "past": (tuple(tensor for tensor, _ in past), tuple(axes for _, axes in past)),
        # The number of keys is a sum, which no Dim can be.
        "decoder_mask": (torch.ones(2, heads, 3, 8, dtype=torch.bool), {0: batch, 2: target, 3: Dim.AUTO}),
    }
    if not has_memory:
        inputs["encoder_attention_mask"] = (torch.ones(2, 7, dtype=torch.long), {0: batch, 1: states})
        inputs["cross_mask"] = (torch.ones(2, heads, 3, 7, dtype=torch.bool), {0: batch, 2: target, 3: states})
    outputs = ["logits", *cache_names(layers, "present")]
    module = MemoryDecoderGraph(model) if has_memory else DecoderGraph(model)
    graph = make_graph(module, inputs, outputs, {"past": cache_names(layers, "past_key_values")})
    for value in graph.graph.output:
        if ".encoder." in value.name:
            # What was cached and what was new, which PyTorch writes as a sum.
            value.type.tensor_type.shape.dim[2].dim_param = states.__name__
    return graph


def _make_optional(onnx: Any, graph: Any, name: str) -> None:
    """Give a mask of a graph a default, which allows everything: an initialiser of the input's name."""
    values = {value.name: value for value in graph.graph.input}
    if name not in values:
        return
    for size in values[name].type.tensor_type.shape.dim:
        size.Clear()  # a mask may have 1 for all of B, H, T or S
    everything = onnx.helper.make_tensor(name, onnx.TensorProto.BOOL, [1, 1, 1, 1], [True])
    graph.graph.initializer.append(everything)
    # Some sizes are taken from the mask, which need not have them.
    for node in graph.graph.node:
        if node.op_type == "Shape" and node.input[0] == name:
            axis = next(attribute for attribute in node.attribute if attribute.name == "start")
            end = next(attribute for attribute in node.attribute if attribute.name == "end")
            node.input[0], axis.i = _SIZES[name][axis.i]
            end.i = axis.i + 1


def quantise(graph: Any, path: Path) -> None:
    """Write a graph with weights of 8 bits; what is computed is quantised as it comes."""
    quantization = require("onnxruntime.quantization", "onnx", _PURPOSE)
    with without_known_warnings():
        quantization.quantize_dynamic(graph, path, weight_type=quantization.QuantType.QInt8, per_channel=True)
