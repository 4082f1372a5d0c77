"""What `attach` leaves on a model: its masks, and what has to be put back."""

import copy
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from operator import is_
from typing import Any

import torch
from transformers import PreTrainedConfig, PreTrainedModel

from ..masks.blind_check import speaks_of_blind
from ..masks.expressions import Mask, MaskError
from ..masks.rules import full
from ..masks.tensor_mask import TensorMask, as_mask
from ..seq2seq.encoder_output import CrossMaskEncoderOutput
from ..seq2seq.generation import MASKS
from ..seq2seq.mask_compiler import LayerMasks, check_blind
from ..seq2seq.pretrained_parts import arguments_of, first_position_of
from .attention_sites import Attentions
from .current_call import UNMASKED, AttachedCall, Call
from .feature_layout import FeatureLayout, find_layout
from .packing import SEGMENTS, check_segments, has_capacity, measured_refusal
from .positions import counter_of
from .sides import MADE_UNDER, OWN_RULE

CALL_ARGUMENTS = (*MASKS, "passage_ids", "example_ids", *SEGMENTS)
"""The arguments that an attached model takes beside its own."""

CallMasks = dict[str, Mask | TensorMask | None]


@dataclass(eq=False)
class Attachment:
    """What an attached model has beside its own.

    Attributes:
        masks: of each scope.
        attentions: the modules that attend under them.
        configs: those whose attention implementation was changed.
        fields: the config's mask fields before, without those that it had not.
        leaks: why no source span can be hidden from every output, if that is so.
        packing_refusal: why examples cannot be packed, if so. packing_is_measured: whether that was tried as well.
        handles: of the hooks.
        checked: the config's rules when blind spans were checked last, so that a decode step need not.
        layout: of a speech model's features, once it was measured.
        texts: the config's masks as they were when they were read last.
        forbids_nothing: whether these forbid nothing that the model does not by itself.
    """

    masks: dict[str, LayerMasks]
    attentions: Attentions
    current_call: AttachedCall
    configs: list[PreTrainedConfig]
    fields: dict[str, Any]
    leaks: str | None = None
    packing_refusal: str | None = None
    packing_is_measured: bool = False
    handles: list[Any] = field(default_factory=list)
    checked: list[Any] = field(default_factory=list)
    layout: FeatureLayout | None = None
    texts: list[Any] = field(default_factory=list)
    forbids_nothing: bool = False

    def call(self, given: Mapping[str, Any], encoder_outputs: Any = None) -> AbstractContextManager[None]:
        """Inside, the masks of a call are in force in this thread.

        Args:
            given: the call's `CALL_ARGUMENTS`. encoder_outputs: made earlier.

        Raises:
            MaskError: a mask that cannot be read, or that has no effect; a blind span that something could read.
        """
        return self.current_call.of(self._read(given, encoder_outputs))

    def _read(self, given: Mapping[str, Any], encoder_outputs: Any) -> Call:
        if not given and getattr(encoder_outputs, MADE_UNDER, None) is None and self._is_unmasked():
            return UNMASKED
        masks: CallMasks = {name: as_mask(given.get(name), name) for name in MASKS}
        masks["encoder_mask"] = encoder_mask_of(encoder_outputs, masks["encoder_mask"])
        if not torch.compiler.is_compiling() or any(map(speaks_of_blind, masks.values())):
            self.check_blind(**masks)
        call = Call(masks, given.get("passage_ids"), given.get("example_ids"))
        if check_segments(given):
            call.segments = {"encoder": given["segment_ids"], "decoder": given["decoder_segment_ids"]}
        return call

    def _is_unmasked(self) -> bool:
        """Whether the masks of the config forbid nothing that the model does not by itself, in training or not."""
        if torch.compiler.is_compiling():
            return False
        texts = [*map(vars(self.masks["cross"].config).get, MASKS)]
        if texts != self.texts:
            self.check_blind(**dict.fromkeys(MASKS))
            self.texts = copy.deepcopy(texts)  # a mapping may change in place
        return self.forbids_nothing

    @staticmethod
    def has_masks(config: PreTrainedConfig) -> bool:
        """Whether a config has masks, for which a saved model is attached again; packed rows need none."""
        return any(getattr(config, name, None) is not None for name in MASKS)

    def layout_of_features(self, model: Any) -> FeatureLayout:
        """How a speech model takes features. Raises ValueError where nothing is final before the end."""
        if self.layout is None:
            self.layout = find_layout(model)
        return self.layout

    def check_packing(self, model: Any) -> None:
        """Check by the model's code, and at its first packed call by two examples, that it keeps examples apart.

        Raises:
            MaskError: it does not.
        """
        can_measure = not torch.compiler.is_compiling() and model.device.type != "meta"
        if self.packing_refusal is None and not self.packing_is_measured and can_measure:
            self.packing_is_measured = True  # the measurement is a packed call itself
            self.packing_refusal = measured_refusal(model)
        if self.packing_refusal is not None:
            raise MaskError(
                f"segment_ids must be left out on this model, since {self.packing_refusal}; give every example a row "
                "of its own"
            )

    def check_blind(self, **call_masks: Mask | TensorMask | None) -> None:
        """Check that what is blind in one mask is so wherever the source is read, and that it can be.

        Raises:
            MaskError: something could read a span.
        """
        of_config = [masks.rules() for masks in self.masks.values()]  # read anew if they changed, else the same tuples
        without_masks = all(mask is None for mask in call_masks.values())
        if without_masks and self.checked and all(map(is_, of_config, self.checked)):
            return
        check_blind(self.masks["encoder"], self.masks["decoder"], self.masks["cross"], **call_masks)
        for name, mask in call_masks.items() if self.leaks is not None else ():
            rules = self.masks[name.removesuffix("_mask")].rules(mask if isinstance(mask, Mask) else None)[0]
            if any(map(speaks_of_blind, rules)):
                raise MaskError(
                    f"{name} must be without blind spans on this model, since {self.leaks}; write drop(...) to hide "
                    "a span from attention alone"
                )
        if without_masks:
            self.checked = of_config
            self.forbids_nothing = not any(
                masks.adds_to(OWN_RULE[scope], None, training)
                for scope, masks in self.masks.items()
                for training in (False, True)
            )


def encoder_mask_of(encoder_outputs: Any, encoder_mask: Mask | TensorMask | None) -> Mask | TensorMask | None:
    """The rule under which an encoder's output was made, or the call's where there is no output yet.

    Raises:
        ValueError: the call's is another one, and would have no effect.
    """
    made_under = getattr(encoder_outputs, MADE_UNDER, None)
    if encoder_mask is None and made_under is None:
        return None
    encoder_mask = None if encoder_mask == full() else encoder_mask
    if encoder_outputs is None:
        return encoder_mask
    return CrossMaskEncoderOutput(encoder_mask=made_under).made_under(encoder_mask)


def leaks_of(encoder: PreTrainedModel) -> str | None:
    """Why a source token would show in the output although no attention reads it, or None."""
    reasons, name = [], type(encoder).__name__
    can_be_told = "position_ids" in arguments_of(encoder) or counter_of(encoder) is not None
    if first_position_of(encoder) and not can_be_told:
        reasons.append(f"{name} counts positions by ids, so that padding inside of a span would show behind it")
    if has_capacity(encoder):
        reasons.append(f"{name} has experts of limited capacity, which a hidden token can use up")
    return " and ".join(reasons) or None
