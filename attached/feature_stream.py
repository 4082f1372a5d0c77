"""Translation streams of attached speech models, which read frames of features instead of tokens.

What tokens are to a text encoder, states are to a speech encoder: masks speak of them, and delays count them. The
encoder's convolutions look ahead, so the frames that have arrived give fewer final states than they would at the end:
of F frames Whisper's encoder has (F - 1) // 2. Only these are shown to the decoder. The encoder reads all frames anew
each time, and one with a window of fixed length, as Whisper's, reads the whole window.
"""

from collections.abc import Sequence
from typing import Any, cast

import torch
from transformers.cache_utils import DynamicCache, EncoderDecoderCache

from .feature_layout import FeatureLayout
from .token_stream import AttachedStream


class FeatureStream(AttachedStream):
    """A stream of one recording, to which chunks of features are pushed. `arrived` numbers the states that are final.

    Attributes:
        features: (1, ...) those that have arrived.
    """

    features: torch.Tensor | None = None

    def __init__(self, model: Any, batch: int, *args: Any):
        if batch != 1:
            raise ValueError(
                f"a stream of speech must be one recording, got {batch}: decoders see no padding of features; open a "
                "stream for each"
            )
        self.layout: FeatureLayout = model.attachment.layout_of_features(model)
        super().__init__(model, batch, *args)

    def push(self, tokens: Sequence[Sequence[Any]], ended: bool | Sequence[bool] = False) -> list[list[int]]:
        """Take chunks of features that have arrived, and return the target tokens that can be written now.

        Args:
            tokens: a list with the list of new chunks, each as the model takes features, without a batch: (bins,
                frames) for Whisper, (frames, bins) for Speech2Text.
            ended: whether the recording is over.

        Raises:
            ValueError: chunks of another shape, more frames than the model takes, or as for every stream.
        """
        chunks = [torch.as_tensor(chunk) for row in tokens for chunk in row]
        is_over = ended if isinstance(ended, bool) else all(ended)
        before = self.features
        if len(tokens) == 1 and not self.ended[0] and not self.finished[0]:
            self._take(chunks)
        if self.features is None:
            return super().push(tokens, ended)
        frames = self.features.shape[1 + self.layout.frame_axis]
        states = self.layout.final_states(frames)
        if is_over:
            states = self.layout.all_states(self.layout.window or frames)
        known = len(self.arrived[0])
        new: list[Any] = [chunks] if self.ended[0] else [[*range(known, max(states, known))]]
        try:
            return super().push(new, ended)
        except ValueError:
            if len(self.arrived[0]) == known:  # nothing was taken, so that the same chunk may come again
                self.features = before
            raise

    def _take(self, chunks: list[torch.Tensor]) -> None:
        layout, model = self.layout, cast(Any, self.model)
        for chunk in chunks:
            if chunk.ndim != 2 or chunk.shape[1 - layout.frame_axis] != layout.bins:
                wanted = f"(frames, {layout.bins})" if layout.frame_axis == 0 else f"({layout.bins}, frames)"
                raise ValueError(f"a chunk of features must be {wanted}, got {tuple(chunk.shape)}")
        parts = [chunk[None].to(model.device, model.dtype) for chunk in chunks]
        parts = parts if self.features is None else [self.features, *parts]
        features = torch.cat(parts, dim=1 + layout.frame_axis) if parts else None
        if features is not None and layout.window is not None:
            frames = features.shape[1 + layout.frame_axis]
            if frames > layout.window:
                raise ValueError(
                    f"a stream must have at most {layout.window} frames, which is what the model takes, got {frames}; "
                    "end it and open another"
                )
        self.features = features

    def _encode_arrived(self) -> None:
        model = cast(Any, self.model)
        assert self.features is not None
        rule = {name: mask for name, mask in self.masks.call_rules.items() if name == "encoder_mask"}
        output = model.get_encoder()(self.layout.padded(self.features), return_dict=True, **rule)
        output.last_hidden_state = output.last_hidden_state[:, : self.encoded[0]]
        self.encoder_outputs, self.source_filled = output, None
        if self.kept is not None:
            self.kept = EncoderDecoderCache(self.kept.self_attention_cache, DynamicCache())
