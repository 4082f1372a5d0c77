"""Which states of a speech encoder are final, of those that the first frames of a recording give."""

from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from .attention_sites import layers_of


@dataclass(frozen=True)
class FeatureLayout:
    """How an encoder takes features, and which frames its states read before the first layer.

    Attributes:
        bins: features of a frame. frame_axis: of a chunk, 0 or 1. window: frames of every input, None for any number.
        convolutions: kernel size, stride and padding of each, first to last.
    """

    bins: int
    frame_axis: int
    window: int | None
    convolutions: tuple[tuple[int, int, int], ...]

    def final_states(self, frames: int) -> int:
        """How many states read none but the first `frames` frames."""
        for kernel, stride, padding in self.convolutions:
            frames = max((frames + padding - kernel) // stride + 1, 0)
        return frames

    def all_states(self, frames: int) -> int:
        """How many states this number of frames gives at the end."""
        for kernel, stride, padding in self.convolutions:
            frames = max((frames + 2 * padding - kernel) // stride + 1, 0)
        return frames

    def padded(self, features: torch.Tensor) -> torch.Tensor:
        """Features (1, ...) of the window's length, with silence after them."""
        missing = 0 if self.window is None else self.window - features.shape[1 + self.frame_axis]
        # The features of silence, by Whisper's extractor: it cuts them off at 8 below the loudest, and divides by 4.
        silence = float(features.max()) - 2
        return nn.functional.pad(features, (0, missing) if self.frame_axis else (0, 0, 0, missing), value=silence)


def find_layout(model: Any) -> FeatureLayout:
    """The layout of an attached speech model's features, measured by encoding noise under `causal()`.

    Raises:
        ValueError: its states cannot be told final before the end, with the reason.
    """
    encoder = model.get_encoder()
    name, layers = type(encoder).__name__, {id(part) for layer in layers_of(encoder) for part in layer.modules()}
    found = [part for part in encoder.modules() if isinstance(part, nn.Conv1d) and id(part) not in layers]
    if not found or not model.attachment.attentions.encoder:
        raise _refusal(name, "takes no encoder masks, so that all of its states change with every frame")
    sizes = tuple((conv.kernel_size[0], conv.stride[0], int(conv.padding[0])) for conv in found)
    stride = prod(step for _, step, _ in sizes)
    positions = getattr(encoder.config, "max_source_positions", None)
    windows = [None, *([] if positions is None else [positions * stride])]
    for window in windows:
        for axis in (0, 1):
            layout = FeatureLayout(found[0].in_channels, axis, window, sizes)
            outcome = _is_final(encoder, layout, window or 12 * stride)
            if outcome is False:
                raise _refusal(name, "reads later frames in all of its states, as a normalisation over time does")
            if outcome:
                return layout
    raise _refusal(name, "does not take features of the shape that its first convolution reads")


def _refusal(name: str, reason: str) -> ValueError:
    return ValueError(
        f"a stream must have an encoder with final states before the end, got {name}, which {reason}; call generate() "
        "on what has arrived"
    )


@torch.no_grad()
def _is_final(encoder: PreTrainedModel, layout: FeatureLayout, frames: int) -> bool | None:
    """Whether frames that come later leave the first states alone; None where the encoder does not run."""
    generator = torch.Generator().manual_seed(0)
    shape = (frames, layout.bins) if layout.frame_axis == 0 else (layout.bins, frames)
    noise = torch.randn(2, 1, *shape, generator=generator).to(encoder.device, encoder.dtype)
    arrived = frames // 2
    late = noise[1].narrow(1 + layout.frame_axis, arrived, frames - arrived)
    early = noise[0].narrow(1 + layout.frame_axis, 0, arrived)
    other = torch.cat([early, late], dim=1 + layout.frame_axis)
    training, states = encoder.training, []
    encoder.eval()
    try:
        for features in (noise[0], other):
            states.append(encoder(features, encoder_mask="causal()", return_dict=True).last_hidden_state)
    except (ValueError, RuntimeError):
        return None
    finally:
        encoder.train(training)
    if states[0].shape[1] != layout.all_states(frames):
        return None
    first = slice(0, layout.final_states(arrived))
    return bool((states[0][:, first] - states[1][:, first]).abs().max() <= torch.finfo(encoder.dtype).eps ** 0.5)
