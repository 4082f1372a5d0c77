"""Generation for lists of texts, in batches of like length.

A batch takes as long as its longest text: random batches of real sentences are half padding.
"""

from collections.abc import Sequence

import torch
from torch.nn.utils.rnn import pad_sequence
from tqdm.auto import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..data.buckets import bucket_batches
from ..masks.given import TensorMask
from ..utils.errors import InputError


def translate_batch(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
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
        texts: sources, of any length that the model takes; each is one example, whatever lines it has.
        batch_tokens: source tokens in a batch at most, padding included; a longer text has a batch by itself.
        progress: whether to show a bar.
        generate_kwargs: for `model.generate`: beams, lengths, masks as rules.

    Raises:
        TypeError: texts that are no list of text; a tensor, which would be laid out for one batch.
        ValueError: a text longer than the model takes; more than one output for each text.
    """
    check_options(generate_kwargs)
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
    """`translate_batch` of token ids, none of them too many for the model; moves `bar` on by the texts done."""
    if not sources:
        return []
    outputs = [""] * len(sources)
    training = model.training
    model.eval()
    try:
        for batch in bucket_batches(list(map(len, sources)), None, batch_tokens):
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
    return tokenizer.batch_decode(model.generate(**inputs), skip_special_tokens=True)


def check_options(options: dict) -> None:
    """Refuse options of `generate` that mean something for one batch only, or that give no text for each text.

    Raises:
        TypeError, ValueError: with the option's name and the mend.
    """
    for name, value in options.items():
        if isinstance(value, torch.Tensor | TensorMask) or "examples=" in str(value):
            raise TypeError(
                f"{name} is laid out for the examples of one batch, and translate_batch makes batches of its own: "
                "give a rule that holds for every text, or call model.generate"
            )
    if options.get("num_return_sequences", 1) != 1 or options.get("return_dict_in_generate"):
        raise InputError(
            "translate_batch gives one text for each text: for num_return_sequences or return_dict_in_generate call "
            "model.generate"
        )


def token_ids(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], limit: int | None) -> list[list[int]]:
    """The texts' token ids, checked.

    Raises:
        TypeError: texts that are no list of text. ValueError: one has more tokens than `limit`.
    """
    if isinstance(texts, str):
        raise TypeError(f"texts is one text, {texts[:40]!r}: expected a list of texts; write [text]")
    for index, text in enumerate(texts):
        if not isinstance(text, str):
            raise TypeError(f"texts[{index}] is {type(text).__name__}: expected text")
    sources = tokenizer(list(texts), verbose=False)["input_ids"] if len(texts) else []
    for index, source in enumerate(sources):
        if limit is not None and len(source) > limit:
            raise InputError(
                f"texts[{index}] has {len(source)} tokens, more than the model's max_position_embeddings={limit}: "
                "split it"
            )
    return sources


def pad(sources: Sequence[Sequence[int]], model: PreTrainedModel) -> dict[str, torch.Tensor]:
    """`input_ids` and `attention_mask`, (B, S) int64, on the model's device."""
    rows = [torch.tensor(source) for source in sources]
    ids = pad_sequence(rows, batch_first=True, padding_value=model.config.pad_token_id)
    mask = pad_sequence([torch.ones_like(row) for row in rows], batch_first=True)
    return {"input_ids": ids.to(model.device), "attention_mask": mask.to(model.device)}
