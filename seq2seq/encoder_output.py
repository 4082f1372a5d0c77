"""The encoder's output, with the mask that it was made under."""

from dataclasses import dataclass

import torch
from transformers.modeling_outputs import BaseModelOutput
from transformers.utils import ModelOutput

from ..masks.expressions import Mask
from ..masks.rules import parse
from ..masks.tensor_mask import TensorMask, describe

_OF_DECODERS = {"past_key_values", "encoder_last_hidden_state"}
"""Fields of outputs whose states are not an encoder's."""


@dataclass
class CrossMaskEncoderOutput(BaseModelOutput):
    """The encoder's output, and which of the call's masks it was made under.

    Attributes:
        encoder_mask: the call's mask as `describe` has it, None where there was none. The decoder can then check that
            a span which is blind to it was blind to the encoder too.
    """

    encoder_mask: Mask | str | None = None

    @classmethod
    def of(cls, encoder_outputs: "BaseModelOutput | tuple") -> "CrossMaskEncoderOutput":
        """What a caller passed as `encoder_outputs`.

        Raises:
            ValueError: it is not the output of an encoder.
        """
        if isinstance(encoder_outputs, cls):
            return encoder_outputs
        if isinstance(encoder_outputs, (ModelOutput, dict)) and not encoder_outputs.keys() & _OF_DECODERS:
            fields = cls.__dataclass_fields__.keys() & encoder_outputs.keys()  # some have pooled states besides
            output = cls(**{name: encoder_outputs[name] for name in fields})
        elif isinstance(encoder_outputs, (tuple, list)):
            # Hidden states are recorded after the output is made, so they follow the mask in its tuple.
            masks = [part for part in encoder_outputs if isinstance(part, (Mask, str))]
            states = [part for part in encoder_outputs if not isinstance(part, (Mask, str))]
            names = ("last_hidden_state", "hidden_states", "attentions")
            output = cls(**dict(zip(names, states, strict=False)), encoder_mask=masks[0] if masks else None)
        else:
            output = cls()
        first = output.last_hidden_state
        if not isinstance(first, torch.Tensor) or first.ndim != 3:
            description = tuple(first.shape) if isinstance(first, torch.Tensor) else type(encoder_outputs).__name__
            raise ValueError(
                "encoder_outputs must be the encoder's output or a tuple that starts with its hidden states, "
                f"(batch, source, hidden), got {description}; give what model.get_encoder()(...) returned"
            )
        return output

    def made_under(self, encoder_mask: Mask | TensorMask | None = None) -> Mask | None:
        """The call's rule under which this output was made, None where there was none.

        Args:
            encoder_mask: what is given beside the output, as `as_mask` reads it, which has to be the same.

        Raises:
            ValueError: it is another mask, and would have no effect.
        """
        described = describe(encoder_mask)
        if described is not None and described != self.encoder_mask:
            raise ValueError(
                f"encoder_mask {described} has no effect on encoder_outputs that were made under "
                f"{self.encoder_mask or 'none'}; give it to the encoder, or give input_ids instead of encoder_outputs"
            )
        if isinstance(self.encoder_mask, str):
            return None if self.encoder_mask.startswith("a tensor") else parse(self.encoder_mask)
        return self.encoder_mask
