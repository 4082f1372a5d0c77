"""Translation streams of attached models: nothing is kept, so every token is computed from all that has arrived.

A pretrained encoder has no cache, and a pretrained decoder counts positions by its cache alone, which streams side by
side do not fill evenly. A stream therefore costs a whole pass over source and target for each token.
"""

from collections.abc import Sequence
from typing import Any

import torch

from ..seq2seq.interactive_attention import InteractiveAttention
from ..seq2seq.simultaneous.ragged_cache import pad
from ..seq2seq.simultaneous.session import StreamingMixin, TranslationStream


class AttachedStream(TranslationStream):
    """Streams side by side, without a cache."""

    def _encode_anew(self) -> None:
        """Nothing: each step encodes what has arrived by then."""

    def _step(self, ready: list[int]) -> tuple[list[int], list[torch.Tensor | None]]:
        model: Any = self.model
        streams = range(len(self.arrived))
        generation: Any = self.generation
        start = int(generation._decoder_start_token_tensor)
        histories = [[start, *target] for target in self.targets]
        for row in ready:
            model.check_target_length(len(histories[row]))
        lengths = self._final([*map(len, self.arrived)], self.ended)
        self.masks.check(lengths, [len(self.targets[row]) + (row in ready) for row in streams])
        # A stream of which nothing has arrived has a token too, of which nothing is read.
        sources = [tokens[:end] or [start] for tokens, end in zip(self.arrived, self.encoded, strict=True)]
        (ids, filled), (inputs, written) = (
            pad(rows, model.config.pad_token_id or 0, model.device) for rows in (sources, histories)
        )
        output = model(
            input_ids=ids,
            attention_mask=filled,
            decoder_input_ids=inputs,
            decoder_attention_mask=written,
            use_cache=False,
            output_attentions=self.policy.needs_attention,
            **self.masks.call_rules,
        )
        last = torch.tensor([len(history) - 1 for history in histories], device=model.device)
        rows = torch.arange(len(histories), device=model.device)
        scores = output.logits[rows, last].float()
        for row in ready if self.processors else ():
            history: Any = torch.tensor([histories[row]], device=model.device)
            scores[row] = self.processors(history, scores[row : row + 1])[0]
        attention: list[torch.Tensor | None] = [None for _ in streams]
        if self.policy.needs_attention:
            weights = torch.stack(output.cross_attentions, dim=1)[rows, :, :, last]
            attention = [weights[row, :, :, : self.encoded[row]] for row in streams]
        return scores.argmax(dim=-1).tolist(), attention

    def _take_back(self, row: int) -> None:
        """Nothing: what was not written is in no cache."""


class AttachedStreamingMixin(StreamingMixin):
    """Simultaneous translation by an attached model. Each token costs a whole pass over all that has arrived."""

    main_input_name: str
    stream_class = AttachedStream
    encodes_in_parts = False
    max_source_length: int | None = None  # the model says so itself, if it has a limit
    max_target_length: int | None = None
    cross_attentions: Sequence[InteractiveAttention] = ()

    def open_stream(self, batch: int = 1, **options: Any) -> TranslationStream:
        """As for every model that streams.

        Raises:
            ValueError: a model that reads no tokens.
        """
        if self.main_input_name != "input_ids":
            raise ValueError(
                f"a stream must be of tokens, got a model that reads {self.main_input_name}; call generate() on what "
                "has arrived"
            )
        return super().open_stream(batch, **options)
