"""Generation for lists of texts, in batches of similar length.

A batch takes as long as its longest text, and random batches of real sentences are half padding.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch.nn.utils.rnn import pad_sequence
from tqdm.auto import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase, ProcessorMixin

from ..data.length_buckets import bucket_batches
from ..data.tokenization import Encoder, Overlong
from ..seq2seq.lengths import longest_source
from ..utils.errors import InputError
from ..utils.text import check_texts, is_blank
from .options import check_options


class Bar(Protocol):
    """A progress bar, such as one of tqdm."""

    total: float | None

    def update(self, number: int) -> Any:
        """Advance it."""


def translate_batch(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: Iterable[str],
    *,
    batch_tokens: int = 4096,
    progress: bool = True,
    **generate_kwargs,
) -> list[str]:
    """The model's output for each text, in the order of the texts.

    Works with every encoder-decoder of Transformers. The longest texts are generated first, so that a batch too large
    for memory fails at once, and the estimate of the progress bar only falls.

    ```python
    >>> translate_batch(model, tokenizer, ["A dog barks.", "Two men are at work."], num_beams=5, progress=False)
    ['Ein Hund bellt.', 'Zwei Männer arbeiten.']
    ```

    Args:
        texts: sources, of any length that the model takes: a list, or any iterable of texts. Each is one example, also
            with several lines. The output for a text with nothing visible is empty.
        batch_tokens: source tokens in a batch at most, padding included; a longer text has a batch of its own.
        progress: whether to show a progress bar.
        generate_kwargs: for `model.generate`: beams, lengths, masks as rules.

    Raises:
        TypeError: an item that is not text; an option that is a tensor, which would belong to one batch.
        ValueError: a text longer than the model takes, not valid Unicode, or with NUL; an option with which no text
            can be generated.
    """
    check_options(model, generate_kwargs)
    sources = token_ids(tokenizer, texts, longest_source(model))
    with tqdm(total=len(sources), unit="text", disable=not progress) as bar:
        return translate_ids(model, tokenizer, sources, batch_tokens, bar, **generate_kwargs)


def translate_ids(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    sources: Sequence[Sequence[int]],
    batch_tokens: int,
    bar: Bar,
    options_of: Callable[[list[int]], Mapping[str, Any]] | None = None,
    **generate_kwargs,
) -> list[str]:
    """`translate_batch` of token ids, of lengths that the model takes; advances `bar` by the texts that are done.

    The output for a source without ids is empty.

    Args:
        options_of: from the indices of a batch's sources to options for `model.generate` that belong to these.
    """
    vocabulary = model.get_input_embeddings().num_embeddings
    if (highest := max((max(ids, default=0) for ids in sources), default=0)) >= vocabulary:
        raise InputError(
            f"ids of the tokenizer must be less than {vocabulary}, the model's vocabulary, got {highest}; give the "
            "tokenizer that the model was trained with"
        )
    outputs = [""] * len(sources)
    batches = batches_of(sources, batch_tokens)
    bar.update(len(sources) - sum(map(len, batches)))
    training = model.training
    model.eval()
    try:
        for batch in batches:
            inputs = pad([sources[index] for index in batch], tokenizer, model.device)
            own = {} if options_of is None else options_of(batch)
            texts = generate_texts(model, tokenizer, **inputs, **{**generate_kwargs, **own})
            for index, text in zip(batch, texts, strict=True):
                outputs[index] = text
            bar.update(len(batch))
    finally:
        model.train(training)
    return outputs


def batches_of(sources: Sequence[Sequence[int]], batch_tokens: int) -> list[list[int]]:
    """The indices of sources of similar length, the longest first; those of sources without ids are left out.

    Args:
        batch_tokens: tokens in a batch at most, padding included; a longer source has a batch of its own.
    """
    not_blank = [index for index, ids in enumerate(sources) if ids]
    if not not_blank:
        return []
    buckets = bucket_batches([len(sources[index]) for index in not_blank], None, batch_tokens)
    return [[not_blank[position] for position in bucket] for bucket in buckets]


def generate_texts(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, **inputs) -> list[str]:
    """The texts generated for one batch, without special tokens; `inputs` are those of `model.generate`."""
    target_tokenizer = tokenizers_of(tokenizer)[1]
    sequences = model.generate(**inputs, **tokenizer_of_stops(model, tokenizer, inputs))
    return target_tokenizer.batch_decode(sequences, skip_special_tokens=True)


def tokenizer_of_stops(model: Any, tokenizer: Any, options: Mapping[str, Any]) -> dict[str, Any]:
    """The argument of `generate` that `stop_strings` need, in its options or in its settings; none without them."""
    settings = options.get("generation_config") or model.generation_config
    has_stops = options.get("stop_strings") or getattr(settings, "stop_strings", None)
    return {"tokenizer": tokenizers_of(tokenizer)[1]} if has_stops else {}


def tokenizers_of(
    tokenizer: PreTrainedTokenizerBase | ProcessorMixin,
) -> tuple[PreTrainedTokenizerBase, PreTrainedTokenizerBase]:
    """The tokenizers of sources and targets: twice the same one, or the two of a bridge's processor."""
    if isinstance(tokenizer, ProcessorMixin):
        processor: Any = tokenizer
        return processor.encoder_tokenizer, processor.decoder_tokenizer
    return tokenizer, tokenizer


def pair_encoder(
    tokenizer: PreTrainedTokenizerBase | ProcessorMixin,
    max_source_length: int,
    max_target_length: int,
    overlong: Overlong,
) -> Encoder:
    """What makes token ids of sources with their targets, as models are trained on them. Raises as `Encoder`."""
    source, target = tokenizers_of(tokenizer)
    of_bridge = target if isinstance(tokenizer, ProcessorMixin) else None
    return Encoder(source, max_source_length, max_target_length, overlong, target_tokenizer=of_bridge)


def token_ids(tokenizer: PreTrainedTokenizerBase, texts: Iterable[str], limit: int | None) -> list[list[int]]:
    """The token ids of checked texts; none for a blank text.

    Raises:
        TypeError: texts that are not a list of texts.
        ValueError: one has more tokens than `limit`, is not valid Unicode, or has NUL.
    """
    texts = check_texts(texts)
    sources = encode(tokenizer, texts)
    for index, source in enumerate(sources):
        if limit is not None and len(source) > limit:
            raise InputError(
                f"texts[{index}] must have at most {limit} tokens, which is what the model takes, got "
                f"{len(source)}; split it"
            )
    return sources


def encode(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], prefix: str = "") -> list[list[int]]:
    """Token ids of every text after a prefix, and none for a blank text."""
    not_blank = [index for index, text in enumerate(texts) if not is_blank(text)]
    own, _ = tokenizers_of(tokenizer)
    encoded = own([prefix + texts[index] for index in not_blank], verbose=False)["input_ids"] if not_blank else []
    sources: list[list[int]] = [[] for _ in texts]
    for index, ids in zip(not_blank, encoded, strict=True):
        sources[index] = ids
    return sources


def pad(
    sources: Sequence[Sequence[int]], tokenizer: PreTrainedTokenizerBase, device: torch.device
) -> dict[str, torch.Tensor]:
    """`input_ids` and `attention_mask`, (B, S) int64."""
    rows = [torch.tensor(source) for source in sources]
    # Without a padding token any id will do, since the mask hides it.
    ids = pad_sequence(rows, batch_first=True, padding_value=tokenizers_of(tokenizer)[0].pad_token_id or 0)
    mask = pad_sequence([torch.ones_like(row) for row in rows], batch_first=True)
    return {"input_ids": ids.to(device), "attention_mask": mask.to(device)}
