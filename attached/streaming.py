"""Simultaneous translation by attached models: of tokens, or of features."""

from collections.abc import Sequence
from typing import Any

from ..seq2seq.interactive_attention import InteractiveAttention
from ..seq2seq.simultaneous.session import StreamingMixin, TranslationStream
from .feature_stream import FeatureStream
from .token_stream import AttachedStream


class AttachedStreamingMixin(StreamingMixin):
    """Simultaneous translation by an attached model, whose encoder encodes all that has arrived anew."""

    main_input_name: str
    encodes_in_parts = False
    max_source_length: int | None = None  # the model says so itself, if it has a limit
    max_target_length: int | None = None
    cross_attentions: Sequence[InteractiveAttention] = ()

    @property
    def stream_class(self) -> type[TranslationStream]:
        return AttachedStream if self.main_input_name == "input_ids" else FeatureStream

    def open_stream(self, batch: int = 1, **options: Any) -> TranslationStream:
        """As for every model that streams; of speech, chunks of features are pushed (`FeatureStream.push`).

        Raises:
            ValueError: a model that reads neither tokens nor features, or whose states are final at the end alone.
        """
        if self.main_input_name not in ("input_ids", "input_features"):
            raise ValueError(
                f"a stream must be of tokens or of features, got a model that reads {self.main_input_name}, which its "
                "encoder normalises as a whole; call generate() on what has arrived"
            )
        return super().open_stream(batch, **options)
