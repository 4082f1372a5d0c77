"""Translation streams of attached models that read tokens: nothing that is final is computed twice in the decoder.

A pretrained encoder has no cache, so it encodes anew all that has arrived, when a token is to be written of it. The
decoder goes on from its cache in a stream of its own, as long as nothing that a written token has read can change: its
mask showed it no source token that was still to come, nor did the encoder's. Streams side by side have no such cache,
since a pretrained decoder counts positions by it and they do not fill it evenly.
"""

from typing import Any, cast

import torch
from transformers.cache_utils import DynamicCache, EncoderDecoderCache

from ..seq2seq.simultaneous.ragged_cache import pad
from ..seq2seq.simultaneous.session import TranslationStream


class AttachedStream(TranslationStream):
    """Streams side by side; one alone has a cache of its target."""

    source_filled: torch.Tensor | None
    encoder_outputs: Any = None
    kept: EncoderDecoderCache | None = None

    def _encode_anew(self) -> None:
        """Nothing yet: the next step encodes what has arrived by then."""
        self.encoder_outputs = None

    def _encode_arrived(self) -> None:
        """Encode what has arrived. The source's keys and values in the cache are those of fewer tokens."""
        model, generation = cast(Any, self.model), cast(Any, self.generation)
        start = int(generation._decoder_start_token_tensor)
        # A stream of which nothing has arrived has a token too, of which nothing is read.
        sources = [tokens[:end] or [start] for tokens, end in zip(self.arrived, self.encoded, strict=True)]
        ids, self.source_filled = pad(sources, model.config.pad_token_id or 0, model.device)
        rule = {name: mask for name, mask in self.masks.call_rules.items() if name == "encoder_mask"}
        self.encoder_outputs = model.get_encoder()(
            input_ids=ids, attention_mask=self.source_filled, return_dict=True, **rule
        )
        if self.kept is not None:
            self.kept = EncoderDecoderCache(self.kept.self_attention_cache, DynamicCache())

    def _is_final(self, row: int) -> bool:
        """Whether all that has been read for the next token and those before it stays as it is, whatever comes."""
        model: Any = self.model
        read = self.encoded[row]
        if self._complete(row):
            return True
        needed = max(self.masks.needed(query, row) for query in range(len(self.targets[row]) + 1))
        closed = self.masks.closed.longest(read, row) == read and model.attachment.leaks is None
        return needed <= read and closed

    def _step(self, ready: list[int]) -> tuple[list[int], list[torch.Tensor | None]]:
        model, generation = cast(Any, self.model), cast(Any, self.generation)
        streams, start = range(len(self.arrived)), int(generation._decoder_start_token_tensor)
        histories = [[start, *target] for target in self.targets]
        for row in ready:
            model.check_target_length(len(histories[row]))
        lengths = self._final([*map(len, self.arrived)], self.ended)
        self.masks.check(lengths, [len(self.targets[row]) + (row in ready) for row in streams])
        if self.encoder_outputs is None:
            self._encode_arrived()
        given: dict[str, Any] = {"use_cache": False}
        if len(histories) == 1:
            new = histories[0] if self.kept is None else histories[0][-1:]
            given = {"use_cache": True, "past_key_values": self.kept}
            inputs, last = torch.tensor([new], device=model.device), torch.tensor([len(new) - 1], device=model.device)
        else:
            inputs, given["decoder_attention_mask"] = pad(histories, model.config.pad_token_id or 0, model.device)
            last = torch.tensor([len(history) - 1 for history in histories], device=model.device)
        output = model(
            encoder_outputs=self.encoder_outputs,
            attention_mask=self.source_filled,
            decoder_input_ids=inputs,
            output_attentions=self.policy.needs_attention,
            **given,
            **self.masks.call_rules,
        )
        cache = output.past_key_values if len(histories) == 1 and self._is_final(0) else None
        self.kept = cache if isinstance(cache, EncoderDecoderCache) else None
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
        """Forget the step that predicted a token which is not written."""
        self.kept = None
