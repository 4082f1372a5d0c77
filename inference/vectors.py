"""Texts as vectors of a fixed length, in batches of texts of like length."""

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch.nn.functional import normalize as unit_length
from tqdm.auto import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..data.encoder_batches import EncoderCollator
from ..data.length_buckets import bucket_batches
from ..heads.base import EncoderHeadModel
from ..heads.sequence_classification import CrossMaskForSequenceClassification
from ..heads.token_classification import CrossMaskForTokenClassification
from ..question_answering.modeling import CrossMaskForQuestionAnswering
from ..seq2seq.lengths import longest_source
from ..seq2seq.pretrained_parts import encoder_of
from ..utils.errors import InputError
from ..utils.text import check_texts, is_blank

LONGEST = 10**9  # more than any model takes; tokenizers without a limit have a larger number


@torch.no_grad()
def encode_texts(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    *,
    normalize: bool = False,
    truncate: bool = False,
    batch_tokens: int = 8192,
    progress: bool = False,
    **masks: Any,
) -> torch.Tensor:
    """One vector for each text, (N, width) float32 on the CPU, in the order given.

    ```python
    >>> vectors = encode_texts(model, tokenizer, ["A dog barks.", "Ein Hund bellt."], normalize=True)
    >>> vectors[0] @ vectors[1]
    ```

    Of a `CrossMaskForSequenceClassification` it is what the classes are scored by. Of a network of crossmask with a
    memory it is the memory, its vectors one after the other. Of any other model it is the mean of the states of its
    encoder, or of what is below its head, as in sentence-transformers.

    Args:
        normalize: whether vectors have length 1, for cosine similarity.
        truncate: whether a text that is longer than the model takes is cut; else it is refused.
        batch_tokens: tokens in a batch at most, padding included.
        progress: whether to show a bar.
        masks: `cross_mask` and `encoder_mask` of the model's call, the same for all texts.

    Raises:
        InputError: no list of texts, a text that is empty or too long, a tokenizer without a padding token.
        TypeError: a mask for a model that takes none of that name.
    """
    texts = check_texts(texts)
    for index, text in enumerate(texts):
        if is_blank(text):
            raise InputError(f"texts[{index}] must have something in it, got {text[:20]!r}; leave it out")
    if not len(texts):
        raise InputError("texts must have at least one text, got none")
    if tokenizer.pad_token_id is None:
        raise InputError(f"{type(tokenizer).__name__} has no padding token; set tokenizer.pad_token")
    limit = min(longest_source(model) or LONGEST, tokenizer.model_max_length)
    cut = {"truncation": True, "max_length": limit} if truncate and limit < LONGEST else {}
    encoded = tokenizer(list(texts), verbose=False, **cut)
    lengths = [len(ids) for ids in encoded["input_ids"]]
    for index, length in enumerate(lengths):
        if length > limit:
            raise InputError(
                f"texts[{index}] has {length} tokens, and the model takes {limit}; split it, or give truncate=True"
            )
    if isinstance(model, CrossMaskForQuestionAnswering):
        raise InputError("model must read texts without questions, got one that answers; give its encoder")
    # What stands below a head of Transformers; one of crossmask knows of masks.
    head = model if isinstance(model, EncoderHeadModel) else encoder_of(model).base_model
    taken = inspect.signature(head.forward).parameters.keys()
    for name in masks:
        if name not in taken:
            raise TypeError(f"{name} must be left out for {type(head).__name__}, which takes none")
    names = [name for name in encoded if name in taken]
    wanted = {"output_hidden_states": True} if isinstance(model, CrossMaskForTokenClassification) else {}
    collate = EncoderCollator(tokenizer.pad_token_id)
    vectors: list[torch.Tensor | None] = [None] * len(texts)
    training = model.training
    model.eval()
    try:
        with tqdm(total=len(texts), unit="text", disable=not progress) as bar:
            for bucket in bucket_batches(lengths, None, batch_tokens):
                rows = [{name: encoded[name][index] for name in names} for index in bucket]
                batch = {name: tensor.to(model.device) for name, tensor in collate(rows).items()}
                outputs: Any = head(**batch, **masks, **wanted)
                if isinstance(model, CrossMaskForSequenceClassification):
                    found = outputs.pooler_output
                elif getattr(model.config, "memory_length", None) is not None:
                    found = outputs.last_hidden_state.flatten(1)
                elif wanted:
                    found = _mean(outputs.hidden_states[-1], batch["attention_mask"])
                else:
                    found = _mean(outputs.last_hidden_state, batch["attention_mask"])
                for index, vector in zip(bucket, found.float().cpu(), strict=True):
                    vectors[index] = vector
                bar.update(len(bucket))
    finally:
        model.train(training)
    stacked = torch.stack([vector for vector in vectors if vector is not None])
    return unit_length(stacked, dim=-1) if normalize else stacked


def _mean(states: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
    """The mean of the states of each text, (B, S, width) to (B, width)."""
    weights = attention_mask[..., None].to(states.dtype)
    return (states * weights).sum(1) / weights.sum(1)
