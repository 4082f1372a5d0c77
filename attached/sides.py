"""How an encoder and a decoder of Transformers are given masks: hooks that lay out the call and compile.

A hook runs when a side does, where the decoder's inputs are shifted already and its cache is at hand. It adds one
keyword, which the side hands on to its attention, and nothing at all where nothing is masked.
"""

import inspect
from operator import is_
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.cache_utils import Cache, EncoderDecoderCache

from ..masks.expressions import Mask, MaskError
from ..masks.layout import Layout, lay_out
from ..masks.rules import causal, full
from ..masks.scope import Scope
from ..masks.target_layout import lay_out_target
from ..masks.tensor_mask import TensorMask, as_mask, describe
from ..seq2seq.attention_weights import ATTACHED_PREFIX
from ..seq2seq.beam_sharing import lay_out_shared_source
from ..seq2seq.cache import cached_sizes, columns_of_layer
from ..seq2seq.mask_compiler import LayerMasks
from ..seq2seq.pretrained_parts import first_position_of
from .current_call import AttachedCall
from .packing import SEGMENTS
from .side_masks import KEYWORD, SideMasks

MADE_UNDER = "encoder_mask"
"""The attribute of an encoder's output that says which mask of the call it was made under."""
OWN_RULE = {"encoder": full(), "decoder": causal(), "cross": full()}
"""What attention to each scope forbids by itself."""
NO_ENCODER_MASK = (
    "encoder_mask must be full() on this model, whose encoder has layers that masks cannot reach, as sparse attention "
    "and convolutions are; give a cross_mask"
)

SOURCE = "crossmask_source"
"""The attribute of a cache with the source's layout, and what it was made from."""

Arguments = tuple[tuple[Any, ...], dict[str, Any]]


class Side:
    """A hook before an encoder's or a decoder's forward pass.

    Attributes:
        names: of the arguments, in their order. takes_keywords: whether others are handed on.
        first_position: the number of the first token's position.
    """

    def __init__(self, side: PreTrainedModel, masks: dict[str, LayerMasks], current_call: AttachedCall):
        self.masks, self.current_call = masks, current_call
        parameters = inspect.signature(side.forward).parameters
        self.names = tuple(parameters)
        self.takes_keywords = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
        self.first_position = first_position_of(side)

    def needed(self, name: str, mask: Mask | TensorMask | None, training: bool) -> bool:
        """Whether the masks of a scope, the call's included, forbid anything that the model does not."""
        return self.masks[name].adds_to(OWN_RULE[name], mask, training)

    def check_implementation(self, side: Any) -> None:
        """Refuse to run unmasked where somebody changed the config's attention implementation.

        Raises:
            MaskError: it is one without masks.
        """
        if not (implementation := side.config._attn_implementation or "eager").startswith(ATTACHED_PREFIX):
            raise MaskError(
                f"attn_implementation must be changed by model.set_attn_implementation(...) on an attached model, got "
                f"{implementation!r} in a config, under which masks would have no effect; call that method"
            )

    def own_positions(self, given: dict[str, Any], segments: torch.Tensor | None) -> torch.Tensor | None:
        """The positions (B, L) from 0 that a packed call gave, None where they are to be counted.

        Raises:
            MaskError: the side would not read them.
        """
        positions: torch.Tensor | None = given.get("position_ids")
        if positions is None or segments is None:
            return None
        if "position_ids" not in self.names:
            raise MaskError(
                "position_ids must be left out beside segment_ids on this model, which has no such argument; they are "
                "counted inside each example"
            )
        return positions - self.first_position

    def give_positions(
        self, name: str, layout: Layout, batch: int, given: dict[str, Any], kwargs: dict[str, Any]
    ) -> dict[str, Any]:
        """Tell the side its positions, by an argument, or by way of its table.

        Those of padding are 0: in a row with much of it they could go beyond the last one that there is.
        """
        positions = layout.positions.expand(batch, -1)
        if layout.segments is not None:
            positions = positions.masked_fill(layout.segments == 0, 0)
        if "position_ids" not in self.names:
            self.current_call.of_side().positions[name] = positions
        elif given.get("position_ids") is None:
            kwargs = {**kwargs, "position_ids": positions + self.first_position}
        return kwargs

    def hand_over(
        self, name: str, masks: SideMasks | None, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Arguments:
        self.current_call.of_side().sides[name] = masks
        if masks is not None and self.takes_keywords:
            kwargs = {**kwargs, KEYWORD: masks}
        return args, kwargs


class EncoderSide(Side):
    """Before the encoder.

    Attributes:
        is_reachable: whether masks reach all of its attention.
    """

    def __init__(
        self, side: PreTrainedModel, masks: dict[str, LayerMasks], current_call: AttachedCall, is_reachable: bool
    ):
        super().__init__(side, masks, current_call)
        self.is_reachable = is_reachable

    def __call__(self, encoder: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Arguments | None:
        refuse_segments(kwargs)
        call = self.current_call.of_side()
        if call.is_unmasked:
            return None
        mask = call.masks.get("encoder_mask")
        if "encoder_mask" in kwargs:  # the encoder was called by itself
            mask = as_mask(kwargs.pop("encoder_mask"), "encoder_mask")
        passage_ids = kwargs.pop("passage_ids", call.passage_ids)
        segments = call.segments.get("encoder")
        call.positions.pop("encoder", None)
        if segments is None and not self.needed("encoder", mask, encoder.training):
            return self.hand_over("encoder", None, args, kwargs)
        if not self.is_reachable:
            raise MaskError(NO_ENCODER_MASK)
        self.check_implementation(encoder)
        given = {**dict(zip(self.names, args, strict=False)), **kwargs}
        batch, length, device, padding = source_of(encoder, given)
        call.source_positions = self.own_positions(given, segments)
        layout = lay_out(
            length,
            device,
            attention_mask=padding,
            segment_ids=segments,
            position_ids=call.source_positions,
            passage_ids=passage_ids,
            rows=batch,
        )
        compiled_masks: list[Any] = self.masks["encoder"].compile(
            mask,
            layout,
            layout,
            batch=batch,
            rows=torch.arange(length, device=device),
            seen=length,
            training=encoder.training,
            backend="sdpa",
        )
        if segments is not None or self.first_position:
            kwargs = self.give_positions("encoder", layout, batch, given, kwargs)
        masks = SideMasks({"encoder": compiled_masks}, made_under=describe(mask))
        return self.hand_over("encoder", masks, args, kwargs)


class AfterSide:
    """A hook after a side. The encoder's output then says which mask of the call it was made under."""

    def __init__(self, name: str, current_call: AttachedCall):
        self.name, self.current_call = name, current_call

    def __call__(self, side: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        call = self.current_call.now
        masks = None if call is None or self.name != "encoder" else call.sides.get("encoder")
        if masks is not None and masks.made_under is not None and hasattr(output, "keys"):
            object.__setattr__(output, MADE_UNDER, masks.made_under)
        self.current_call.end_side()


class DecoderSide(Side):
    """Before the decoder: its attention to the target, and to the source."""

    def __call__(self, decoder: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Arguments | None:
        refuse_segments(kwargs)
        call = self.current_call.of_side()
        if call.is_unmasked:
            return None
        masks = {"decoder": call.masks.get("decoder_mask"), "cross": call.masks.get("cross_mask")}
        given = {**dict(zip(self.names, args, strict=False)), **kwargs}
        states: Any = given.get("encoder_hidden_states")
        needed = {name: self.needed(name, mask, decoder.training) for name, mask in masks.items()}
        segments = call.segments.get("decoder")
        call.positions.pop("decoder", None)
        needed = {name: segments is not None or is_needed for name, is_needed in needed.items()}
        needed["cross"] = needed["cross"] and states is not None
        if not any(needed.values()):
            return self.hand_over("decoder", None, args, kwargs)
        self.check_implementation(decoder)
        inputs = given["input_ids"] if given.get("inputs_embeds") is None else given["inputs_embeds"]
        batch, length = inputs.shape[:2]
        cache = given.get("past_key_values")
        cache = cache.self_attention_cache if isinstance(cache, EncoderDecoderCache) else cache
        padding = given.get("attention_mask")
        past, capacity = cached_sizes(cache, length)
        if segments is not None and isinstance(past, int) and past:
            raise MaskError(f"past_key_values must be empty in packed rows, got {past} tokens; leave them out")
        target = lay_out_target(
            length,
            past,
            capacity,
            inputs.device,
            batch=batch,
            examples=call.example_ids,
            attention_mask=padding if getattr(padding, "ndim", 0) == 2 else None,
            segment_ids=segments,
            position_ids=self.own_positions(given, segments),
        )
        if segments is not None:
            kwargs = self.give_positions("decoder", target.query, batch, given, kwargs)
        compiled_masks: dict[Scope, list[Any]] = {}
        common = {"batch": batch, "training": decoder.training, "backend": "sdpa"}
        if needed["decoder"]:
            compiled = self.masks["decoder"].compile_target(masks["decoder"], target, **common)
            compiled_masks["decoder"] = [
                mask if mask is None else columns_of_layer(mask, cache, layer, length)
                for layer, mask in enumerate(compiled)
            ]
        if needed["cross"]:
            source = lay_out_source_once(
                given.get("past_key_values"),
                states,
                batch,
                call.example_ids,
                attention_mask=given.get("encoder_attention_mask"),
                segment_ids=call.segments.get("encoder"),
                position_ids=call.source_positions,
                passage_ids=call.passage_ids,
            )
            compiled_masks["cross"] = self.masks["cross"].compile(
                masks["cross"], target.query, source, rows=target.rows, seen=target.seen, **common
            )
        return self.hand_over("decoder", SideMasks(compiled_masks), args, kwargs)


def lay_out_source_once(
    cache: Cache | None,
    states: torch.Tensor,
    batch: int,
    example_ids: torch.Tensor | None,
    **ids_of_call: torch.Tensor | None,
) -> Layout:
    """`lay_out_shared_source`, which a cache keeps from one step of generation to the next, if nothing has changed.

    Args:
        cache: that of the call. states: (B, S, D) of the encoder. batch, ids_of_call: as there.
        example_ids: (B,) int64, or None where each row is an example of its own.
    """
    rows = batch if example_ids is None else example_ids
    if cache is None or torch.compiler.is_compiling() or torch.jit.is_tracing():
        return lay_out_shared_source(states.shape[1], states.device, batch, rows, **ids_of_call)
    sizes, given = (batch, states.shape[1], states.device), (example_ids, *ids_of_call.values())
    versions = [None if ids is None or ids.is_inference() else ids._version for ids in given]
    known: Any = getattr(cache, SOURCE, None)
    if known is not None and known[:2] == (sizes, versions) and all(map(is_, known[2], given)):
        kept: Layout = known[3]
        return kept
    layout = lay_out_shared_source(states.shape[1], states.device, batch, rows, **ids_of_call)
    setattr(cache, SOURCE, (sizes, versions, given, layout))
    return layout


def source_of(encoder: Any, given: dict[str, Any]) -> tuple[int, int, torch.device, torch.Tensor | None]:
    """B, S, the device, and the padding (B, S) or None, of what an encoder is given.

    Raises:
        MaskError: an encoder of which nothing says how many states it makes.
    """
    inputs = given.get("input_ids") if given.get("inputs_embeds") is None else given["inputs_embeds"]
    padding = given.get("attention_mask")
    if inputs is not None:
        return *inputs.shape[:2], inputs.device, padding if getattr(padding, "ndim", 0) == 2 else None
    features = given[encoder.main_input_name]
    # Spectrograms are (B, frames, bins), or (B, bins, frames) as Whisper has them; waveforms (B, samples).
    frames = features.shape[-1 if features.shape[1] == getattr(encoder.config, "num_mel_bins", None) else 1]
    try:
        length = int(encoder._get_feat_extract_output_lengths(torch.tensor(frames)))
    except AttributeError as error:  # there is no such method, or as in Moonshine's streaming encoder a broken one
        raise _of_unknown_length(encoder) from error
    if padding is not None and hasattr(encoder, "_get_feature_vector_attention_mask"):
        padding = encoder._get_feature_vector_attention_mask(length, padding)
    else:
        padding = None
    return features.shape[0], length, features.device, padding


def check_states_are_counted(encoder: PreTrainedModel) -> None:
    """Refuse an encoder of which nothing says how many states it makes, such as one of images. Raises MaskError."""
    if encoder.main_input_name != "input_ids" and not hasattr(encoder, "_get_feat_extract_output_lengths"):
        raise _of_unknown_length(encoder)


def _of_unknown_length(encoder: Any) -> MaskError:
    return MaskError(
        f"encoder_mask must be full() where {type(encoder).__name__} encodes, since nothing tells the number of its "
        "states; give a cross_mask"
    )


def refuse_segments(kwargs: dict[str, Any]) -> None:
    """Refuse packed rows where a side is called by itself, which alone does not know the other one's.

    Raises:
        MaskError: with the argument.
    """
    for name in SEGMENTS:
        if kwargs.get(name) is not None:
            raise MaskError(f"{name} must be given to the whole model, got it in a call of one side; call the model")
