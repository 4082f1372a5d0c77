"""Generation for lists of texts, in batches of like length.

A batch takes as long as its longest text: random batches of real sentences are half padding.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence
from tqdm.auto import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase, ProcessorMixin

from ..data.length_buckets import bucket_batches
from ..utils.errors import InputError, InputTypeError
from ..utils.text import check_unicode
from .options import check_options


def translate_batch(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: Iterable[str],
    *,
    batch_tokens: int = 4096,
    progress: bool = True,
    **generate_kwargs,
) -> list[str]:
    """What the model makes of each text, in the order given.

    Works for every encoder-decoder of Transformers. The longest texts come first, so that a batch too large for memory
    shows at once, and the bar's estimate falls.

    ```python
    >>> translate_batch(model, tokenizer, ["A dog barks.", "Two men are at work."], num_beams=5, progress=False)
    ['Ein Hund bellt.', 'Zwei Männer arbeiten.']
    ```

    Args:
        texts: sources, of any length that the model takes; each is one example, whatever lines it has. A list, or
            anything that gives text by text. What is made of a blank text is an empty text.
        batch_tokens: source tokens in a batch at most, padding included; a longer text has a batch by itself.
        progress: whether to show a bar.
        generate_kwargs: for `model.generate`: beams, lengths, masks as rules.

    Raises:
        TypeError: something else than text among the texts; a tensor, which would be laid out for one batch.
        ValueError: a text longer than the model takes, or not valid Unicode; an option that no text can be made with.
    """
    check_options(model, generate_kwargs)
    sources = token_ids(tokenizer, texts, getattr(model.config, "max_position_embeddings", None))
    with tqdm(total=len(sources), unit="text", disable=not progress) as bar:
        return translate_ids(model, tokenizer, sources, batch_tokens, bar, **generate_kwargs)


def translate_ids(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    sources: Sequence[Sequence[int]],
    batch_tokens: int,
    bar: tqdm,
    **generate_kwargs,
) -> list[str]:
    """`translate_batch` of token ids, none of them too many for the model; moves `bar` on by the texts done.

    Where there are no ids, there is nothing to translate, and the output is empty.
    """
    vocabulary = model.get_input_embeddings().num_embeddings
    if (highest := max((max(ids, default=0) for ids in sources), default=0)) >= vocabulary:
        raise InputError(
            f"the tokenizer gives id {highest}, but the model's vocabulary has {vocabulary}: give the tokenizer that "
            "the model was trained with"
        )
    outputs = [""] * len(sources)
    full = [index for index, ids in enumerate(sources) if ids]
    bar.update(len(sources) - len(full))
    if not full:
        return outputs
    training = model.training
    model.eval()
    try:
        for bucket in bucket_batches([len(sources[index]) for index in full], None, batch_tokens):
            batch = [full[at] for at in bucket]
            inputs = pad([sources[index] for index in batch], model)
            texts = generate_texts(model, tokenizer, **inputs, **generate_kwargs)
            for index, text in zip(batch, texts, strict=True):
                outputs[index] = text
            bar.update(len(batch))
    finally:
        model.train(training)
    return outputs


def generate_texts(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, **inputs) -> list[str]:
    """The texts generated for one batch, of what `model.generate` takes; special tokens are left out."""
    return tokenizers_of(tokenizer)[1].batch_decode(model.generate(**inputs), skip_special_tokens=True)


def tokenizers_of(
    tokenizer: PreTrainedTokenizerBase | ProcessorMixin,
) -> tuple[PreTrainedTokenizerBase, PreTrainedTokenizerBase]:
    """The tokenizers of sources and targets: twice the same one, or the two of a bridge's processor."""
    if isinstance(tokenizer, ProcessorMixin):
        processor: Any = tokenizer
        return processor.encoder_tokenizer, processor.decoder_tokenizer
    return tokenizer, tokenizer


def is_blank(text: str) -> bool:
    """Whether there is nothing to translate in a text: it is empty, or whitespace alone."""
    return not text.strip()


def token_ids(tokenizer: PreTrainedTokenizerBase, texts: Iterable[str], limit: int | None) -> list[list[int]]:
    """The texts' token ids, checked; none of a blank text.

    Raises:
        TypeError: texts that are not a list of text. ValueError: one has more tokens than `limit`, or is not Unicode.
    """
    if isinstance(texts, str):
        raise InputTypeError(f"texts must be a list of texts, got one text {texts[:40]!r}; write [text]")
    if isinstance(texts, bytes | Mapping) or not isinstance(texts, Iterable):
        raise InputTypeError(f"texts must be a list of texts, got {type(texts).__name__}")
    texts = list(texts)
    for index, text in enumerate(texts):
        if not isinstance(text, str):
            raise InputTypeError(f"texts[{index}] must be text, got {type(text).__name__}")
        check_unicode(text, f"texts[{index}]")
    sources = encode(tokenizer, texts)
    for index, source in enumerate(sources):
        if limit is not None and len(source) > limit:
            raise InputError(
                f"texts[{index}] has {len(source)} tokens, more than the model's max_position_embeddings={limit}: "
                "split it"
            )
    return sources


def encode(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], prefix: str = "") -> list[list[int]]:
    """Token ids of every text behind a prefix, and none of a blank text."""
    full = [index for index, text in enumerate(texts) if not is_blank(text)]
    encode_texts = tokenizers_of(tokenizer)[0]
    encoded = encode_texts([prefix + texts[index] for index in full], verbose=False)["input_ids"] if full else []
    sources: list[list[int]] = [[] for _ in texts]
    for index, ids in zip(full, encoded, strict=True):
        sources[index] = ids
    return sources


def pad(sources: Sequence[Sequence[int]], model: PreTrainedModel) -> dict[str, torch.Tensor]:
    """`input_ids` and `attention_mask`, (B, S) int64, on the model's device."""
    rows = [torch.tensor(source) for source in sources]
    # Any id will do where there is no padding token: the mask hides it.
    ids = pad_sequence(rows, batch_first=True, padding_value=model.config.pad_token_id or 0)
    mask = pad_sequence([torch.ones_like(row) for row in rows], batch_first=True)
    return {"input_ids": ids.to(model.device), "attention_mask": mask.to(model.device)}
