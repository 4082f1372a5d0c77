"""The masks of one call, read and checked before anything is computed."""

import torch
from transformers.modeling_outputs import BaseModelOutput

from ..masks.blind_check import speaks_of_blind
from ..masks.expressions import Mask
from ..masks.tensor_mask import MaskLike, TensorMask, as_mask
from .encoder_output import CrossMaskEncoderOutput
from .mask_compiler import LayerMasks, check_blind

CallMasks = dict[str, Mask | TensorMask | None]
"""The masks of a call by name, as `as_mask` reads them."""


def read_call_masks(
    mask_compilers: tuple[LayerMasks, LayerMasks, LayerMasks],
    encoder_outputs: BaseModelOutput | tuple | None,
    **masks: MaskLike | None,
) -> tuple[CallMasks, CrossMaskEncoderOutput | None]:
    """What a call gave, checked: its masks, and the encoder's output where it has one.

    Args:
        mask_compilers: the model's, of the encoder, the decoder and the interactive attention.
        encoder_outputs: made earlier, under a mask that then is the call's `encoder_mask`.
        masks: `encoder_mask`, `decoder_mask` and `cross_mask`.

    Raises:
        MaskError: a mask that cannot be read, or a blind span that something could read.
        ValueError: what is not the output of an encoder, or was made under another mask than the one beside it.
    """
    call_masks = {name: as_mask(mask, name) for name, mask in masks.items()}
    encoded = None if encoder_outputs is None else CrossMaskEncoderOutput.of(encoder_outputs)
    if encoded is not None:
        call_masks["encoder_mask"] = encoded.made_under(call_masks["encoder_mask"])
    # The masks of the config were checked when the model was made; a compiler need not follow that.
    if not torch.compiler.is_compiling() or any(map(speaks_of_blind, call_masks.values())):
        encoder, decoder, cross = mask_compilers
        check_blind(encoder, decoder, cross, **call_masks)
    return call_masks, encoded
