"""Simultaneous translation: target tokens while source tokens still arrive."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

from torch import nn
from transformers import GenerationConfig, LogitsProcessorList

from ..masks.given import MaskLike
from .policies import FollowMask, Policy
from .streams import TranslationStream


class StreamingMixin:
    """Simultaneous translation for a model that generates."""

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
        return TranslationStream(self, batch, policy or FollowMask(), masks, *_read_options(self, options))


def _pairs(stream: TranslationStream, sources: list[Iterator[int]]) -> Iterator[tuple[int, int]]:
    while not all(stream.finished):
        over = [ended or finished for ended, finished in zip(stream.ended, stream.finished, strict=True)]
        tokens = [[] if over[row] else [*islice(source, 1)] for row, source in enumerate(sources)]
        written = stream.push(tokens, ended=[not new for new in tokens])
        yield from ((row, token) for row, new in enumerate(written) for token in new)


def _read_options(model: nn.Module, options: dict) -> tuple[GenerationConfig, LogitsProcessorList]:
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
