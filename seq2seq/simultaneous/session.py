"""Translation streams: source tokens are pushed, target tokens come back, and nothing is computed twice."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

import torch
from transformers import GenerationConfig, LogitsProcessorList
from transformers.cache_utils import DynamicCache, EncoderDecoderCache

from ...masks.materialize import skip_shape_checks
from ...masks.tensor_mask import MaskLike, describe
from ..call_checks import check_length
from ..encoder_output import CrossMaskEncoderOutput
from ..generation import MaskedGenerationMixin
from ..interactive_attention import InteractiveAttention
from .lookahead import StreamMasks
from .policies import FollowMask, Policy
from .ragged_cache import Columns, pad
from .streaming_model import StreamingModel


class TranslationStream:
    """Streams side by side; push source tokens, get target tokens. Made by `model.open_stream`.

    ```python
    >>> stream = model.open_stream(batch=2, encoder_mask="causal()", cross_mask="wait_k(2)")
    >>> stream.push([[5], [8, 9]])
    [[], [31]]
    >>> stream.push([[6, 2], [2]], ended=True)
    [[17, 9, 2], [4, 2]]
    >>> stream.delays
    [[3, 3, 3], [2, 3, 3]]
    ```

    Attributes:
        targets: the tokens written so far by each stream.
        delays: for each of them, how many source tokens had arrived when it was written.
        ended: which sources have. finished: which streams have written their last token.
    """

    def __init__(
        self,
        model: StreamingModel,
        batch: int,
        policy: Policy,
        masks: dict[str, MaskLike | None],
        generation: GenerationConfig,
        processors: LogitsProcessorList,
    ):
        self.model = model
        self.policy, self.generation, self.processors = policy, generation, processors
        self.masks = StreamMasks(model, batch, masks)
        # Not by its class: a model whose code came with its weights has policies of its own.
        if not callable(getattr(policy, "ready", None)):
            raise ValueError(f"policy must be a Policy such as AlignAtt(f=2), got {type(policy).__name__}")
        policy.check(model, self.masks.unlimited_cross_mask())
        self.arrived: list[list[int]] = [[] for _ in range(batch)]
        self.encoded = [0] * batch
        self.refused = [0] * batch  # how much had been encoded when the policy last refused a token
        self.ended = [False] * batch
        self.targets: list[list[int]] = [[] for _ in range(batch)]
        self.delays: list[list[int]] = [[] for _ in range(batch)]
        self.finished = [False] * batch
        self.source, self.target = (Columns(batch, model.device) for _ in range(2))
        self.encoder_cache = DynamicCache()
        self.cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
        self.states: torch.Tensor | None = None  # (B, source columns, hidden)

    @torch.no_grad()
    def push(self, tokens: Sequence[Sequence[int]], ended: bool | Sequence[bool] = False) -> list[list[int]]:
        """Take source tokens that have arrived, and return the target tokens that can be written now.

        Args:
            tokens: for each stream, any number of new source tokens. Those of a finished stream are passed over.
            ended: which sources have no more to come, one answer for all or one for each.

        Raises:
            ValueError: tokens for other than all streams, for one that has ended, for more than the model's longest
                source, an end without a token, or before tokens that a mask names.
        """
        batch = len(self.arrived)
        ended = [ended] * batch if isinstance(ended, bool) else list(ended)
        if len(tokens) != batch or len(ended) != batch:
            raise ValueError(
                f"{len(tokens)} lists of tokens and {len(ended)} ends for {batch} streams; give one for each"
            )
        for row, new in enumerate(tokens):
            if self.ended[row] and len(new):
                raise ValueError(f"stream {row} has ended, but {len(new)} tokens came for it; open another stream")
            if ended[row] and not len(new) and not self.arrived[row]:
                raise ValueError(f"stream {row} ended without a token; push at least the end-of-sequence token")
            self.model.check_source_length(len(self.arrived[row]) + len(new))
        if any(ended):
            lengths = [len(old) + len(new) for old, new in zip(self.arrived, tokens, strict=True)]
            ended_by_now = [now or before for now, before in zip(ended, self.ended, strict=True)]
            self.masks.check(self._final(lengths, ended_by_now), [*map(len, self.targets)])
        for row, new in enumerate(tokens):
            self.arrived[row] += map(int, new)
            self.ended[row] |= ended[row]
        self._encode()
        return self._write()

    def _final(self, lengths: Sequence[int], ended: Sequence[bool]) -> list[int | None]:
        """The length of each source, or None where that is not known, or no longer matters."""
        rows = zip(lengths, ended, self.finished, strict=True)
        return [length if is_final and not finished else None for length, is_final, finished in rows]

    def _encode(self) -> None:
        """Encode what may be: all that has arrived that looks at nothing still to come."""
        starts, ends = [*self.encoded], [*self.encoded]
        for row, tokens in enumerate(self.arrived):
            if not self.finished[row]:
                takes_all = self.ended[row] or not self.model.encodes_in_parts
                ends[row] = max(ends[row], len(tokens) if takes_all else self.masks.closed.longest(len(tokens), row))
        if starts == ends:
            return
        self.encoded = ends
        if not self.model.encodes_in_parts:
            return self._encode_anew()
        portions = [tokens[start:end] for tokens, start, end in zip(self.arrived, starts, ends, strict=True)]
        ids, filled = pad(portions, self.model.config.pad_token_id, self.model.device)
        if self.states is not None and self.source.compact(self.encoder_cache, self.cache.cross_attention_cache):
            self.states = self.source.compacted(self.states[:, None])[:, 0]
        self.source.append(filled)
        new = self._states_of(ids, past_key_values=self.encoder_cache, position_ids=self.source.positions)
        self.states = new if self.states is None else torch.cat([self.states, new], dim=1)
        for index, attention in enumerate(self.model.cross_attentions):
            self.cache.is_updated[index] = False  # so that these keys and values join those in the cache
            attention.source_states(new, self.cache)

    def _encode_anew(self) -> None:
        """Encode all that has arrived, by an encoder that keeps nothing. Tokens written before stay as they are."""
        sources = [tokens[:end] for tokens, end in zip(self.arrived, self.encoded, strict=True)]
        ids, filled = pad(sources, self.model.config.encoder.pad_token_id or 0, self.model.device)
        self.source.filled = filled
        self.states = self._states_of(ids)
        self.cache = EncoderDecoderCache(self.cache.self_attention_cache, DynamicCache())

    def _states_of(self, ids: torch.Tensor, **options: Any) -> torch.Tensor:
        """The encoder's states for new tokens: (B, L) to (B, L, hidden)."""
        with skip_shape_checks():
            return self.model.encode(
                input_ids=ids,
                attention_mask=self.source.filled,
                encoder_mask=self.masks.call_rules.get("encoder_mask"),
                **options,
            ).last_hidden_state

    def _write(self) -> list[list[int]]:
        written: list[list[int]] = [[] for _ in self.arrived]
        while ready := [row for row in range(len(self.arrived)) if self._ready(row)]:
            tokens, attention = self._step(ready)
            for row in ready:
                if self._complete(row) or self.policy.accepts(attention[row], self.encoded[row]):
                    self._emit(row, tokens[row])
                    written[row].append(tokens[row])
                else:
                    self.refused[row] = self.encoded[row]
                    self._take_back(row)
        return written

    def _take_back(self, row: int) -> None:
        """Forget the step that predicted a token which is not written, as if it had never been asked."""
        self.target.filled[row, -1] = 0

    def _complete(self, row: int) -> bool:
        return self.ended[row] and self.encoded[row] == len(self.arrived[row])

    def _ready(self, row: int) -> bool:
        if self.finished[row] or not self.encoded[row]:
            return False
        if self._complete(row):
            return True
        written, read = len(self.targets[row]), self.encoded[row]
        return read > self.refused[row] and self.policy.ready(written, read, self.masks.needed(written, row))

    def _step(self, ready: list[int]) -> tuple[list[int], list[torch.Tensor | None]]:
        """Predict a token for each stream that is ready, and give its attention to its source, (layers, H, read)."""
        streams, start = range(len(self.arrived)), int(self.generation._decoder_start_token_tensor)
        histories = [[start, *target] for target in self.targets]
        for row in ready:
            self.model.check_target_length(len(histories[row]))
        lengths = self._final([*map(len, self.arrived)], self.ended)
        self.masks.check(lengths, [len(self.targets[row]) + (row in ready) for row in streams])
        self.target.compact(self.cache.self_attention_cache)
        device = self.model.device
        self.target.append(torch.tensor([[int(row in ready)] for row in streams], device=device))
        with skip_shape_checks():
            output = self.model(
                encoder_outputs=self._encoder_outputs(),
                attention_mask=self.source.filled,
                position_ids=self.source.positions,
                decoder_input_ids=torch.tensor([history[-1:] for history in histories], device=device),
                decoder_attention_mask=self.target.filled,
                decoder_position_ids=self.target.positions,
                past_key_values=self.cache,
                use_cache=True,
                output_attentions=self.policy.needs_attention,
                **{name: mask for name, mask in self.masks.call_rules.items() if name != "encoder_mask"},
            )
        scores = output.logits[:, -1].float()
        for row in ready if self.processors else ():
            history = torch.tensor([histories[row]], device=device)
            scores[row] = self.processors(history, scores[row : row + 1])[0]
        attention: list[torch.Tensor | None] = [None for _ in streams]
        if self.policy.needs_attention:
            weights = torch.stack(output.cross_attentions, dim=1)[:, :, :, -1]
            attention = [weights[row, :, :, self.source.filled[row] > 0] for row in streams]
        return scores.argmax(dim=-1).tolist(), attention

    def _encoder_outputs(self) -> CrossMaskEncoderOutput:
        return CrossMaskEncoderOutput(self.states, encoder_mask=describe(self.masks.call_rules.get("encoder_mask")))

    def _emit(self, row: int, token: int) -> None:
        self.targets[row].append(token)
        self.delays[row].append(len(self.arrived[row]))
        ends = self.generation._eos_token_tensor
        last = ends is not None and token in ends.tolist()
        self.finished[row] = last or len(self.targets[row]) >= self.generation.max_length - 1


class StreamingMixin(MaskedGenerationMixin):
    """Simultaneous translation for a model that generates under masks."""

    @property
    def stream_class(self) -> type[TranslationStream]:
        """What a stream is."""
        return TranslationStream

    @property
    def encodes_in_parts(self) -> bool:
        """Whether the encoder goes on from a cache of its own; if not, all that has arrived is encoded anew each time.

        Under an encoder mask that looks ahead, what was written before then stays although its source has other states
        now.
        """
        return True

    @property
    def max_source_length(self) -> int | None:
        """The most tokens that the encoder reads; None for any number."""
        raise NotImplementedError

    @property
    def cross_attentions(self) -> Sequence[InteractiveAttention]:
        """The interactive attention of each layer."""
        raise NotImplementedError

    def encode(self, input_ids: torch.Tensor, **options) -> CrossMaskEncoderOutput:
        """The encoder's output; options as the model's `forward` has them, and `past_key_values` of the encoder."""
        raise NotImplementedError

    def check_source_length(self, length: int) -> None:
        """Refuse a source that is longer than the model takes (ValueError)."""
        check_length("source", length, self.max_source_length)

    def check_target_length(self, length: int) -> None:
        """Refuse a target that is longer than the model takes (ValueError)."""
        check_length("target", length, self.max_target_length)

    def stream(self, source: Iterable[int], **options) -> Iterator[int]:
        """Translate a source while it arrives; each target token comes as soon as the policy lets it.

        The source is read one token at a time. It ends when the iterable does, so its last token should be the
        end-of-sequence token that the model was trained with. Under the default policy the tokens are those of
        `generate(source, num_beams=1, do_sample=False)` under the same masks, without the start token.

        ```python
        >>> list(model.stream(iter([5, 6, 7, 2]), encoder_mask="causal()", cross_mask="wait_k(2)"))
        [17, 9, 22, 2]
        ```

        Args:
            source: token ids.
            policy: when to write, a [`Policy`]; [`FollowMask`] by default.
            encoder_mask, decoder_mask, cross_mask: and-ed with the config's: a mask or its text.
            options: what `generate()` takes for greedy decoding, such as `max_new_tokens`.

        Raises:
            ValueError: masks that look ahead, a policy that does not fit, an empty or too long source.
        """
        return (token for _, token in self.stream_batch([source], **options))

    def stream_batch(self, sources: Sequence[Iterable[int]], **options) -> Iterator[tuple[int, int]]:
        """As `stream` for sources side by side, which advance by one token each: (number of the source, token)."""
        return _pairs(self.open_stream(len(sources), **options), [iter(source) for source in sources])

    def open_stream(
        self,
        batch: int = 1,
        *,
        policy: Policy | None = None,
        encoder_mask: MaskLike | None = None,
        decoder_mask: MaskLike | None = None,
        cross_mask: MaskLike | None = None,
        **options,
    ) -> TranslationStream:
        """Open `batch` streams, to which source tokens are pushed as they come. Arguments as for `stream`."""
        masks = {"encoder_mask": encoder_mask, "decoder_mask": decoder_mask, "cross_mask": cross_mask}
        return self.stream_class(self, batch, policy or FollowMask(), masks, *_read_options(self, options))


def _pairs(stream: TranslationStream, sources: list[Iterator[int]]) -> Iterator[tuple[int, int]]:
    while not all(stream.finished):
        is_over = [ended or finished for ended, finished in zip(stream.ended, stream.finished, strict=True)]
        tokens = [[] if is_over[row] else [*islice(source, 1)] for row, source in enumerate(sources)]
        written = stream.push(tokens, ended=[not new for new in tokens])
        yield from ((row, token) for row, new in enumerate(written) for token in new)


def _read_options(model: StreamingModel, options: dict) -> tuple[GenerationConfig, LogitsProcessorList]:
    """Generation options as `generate()` reads them, and what they do to the scores.

    Raises:
        ValueError: an option that generation does not have, or one for anything but greedy decoding.
    """
    for name, greedy in (("num_beams", 1), ("num_return_sequences", 1), ("do_sample", False)):
        if options.get(name, greedy) != greedy:
            raise ValueError(
                f"{name}={options[name]!r}: what a stream has written stays, so it decodes greedily; leave it out"
            )
    extra = options.pop("logits_processor", None)
    default_length = options.get("max_length", model.generation_config.max_length) is None
    generation, unknown = model._prepare_generation_config(None, **options)
    if unknown:
        raise ValueError(f"there is no option {next(iter(unknown))!r}; give policy, masks or generate()'s options")
    model._prepare_special_tokens(generation, device=model.device)
    generation = model._prepare_generated_length(generation, default_length, True, "input_ids", 1, None)
    return generation, model._get_logits_processor(generation, 1, logits_processor=extra, device=model.device)
