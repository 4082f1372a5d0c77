"""Checks of every call: keywords without effect, sides that are too long, attention weights that are missing."""

import difflib
from collections.abc import Callable
from functools import wraps
from inspect import Parameter, signature

import torch
from transformers.utils import ModelOutput, TransformersKwargs, logging

logger = logging.get_logger(__name__)

# Transformers' own keywords whose work is done by arguments of ours.
REPLACED = {
    **dict.fromkeys(("cu_seq_lens_q", "cu_seq_lens_k", "max_length_q", "max_length_k", "seq_idx"), "segment_ids"),
    "is_causal": "encoder_mask and decoder_mask",
}
WEIGHTS = ("attentions", "decoder_attentions", "cross_attentions", "encoder_attentions")


def check_keywords(keywords: dict, known: set[str], error: type[Exception]) -> None:
    """Refuse keywords that nothing would read.

    Args:
        keywords: with their values; of those that another argument replaces, None is accepted.

    Raises:
        error: one is not in `known`; the message has the nearest name that is.
    """
    for name, value in keywords.items():
        if name in REPLACED and value is not None:
            raise error(f"{name} has no effect on this model; give {REPLACED[name]} instead")
        if name not in known and name not in REPLACED:
            near = difflib.get_close_matches(name, sorted(known), n=1)
            fix = f"did you mean {near[0]}?" if near else f"it takes {', '.join(sorted(known))}"
            raise error(f"no argument is called {name}; {fix}")


def check_not_packed(keywords: dict) -> None:
    """Refuse packed rows in `generate()`.

    Raises:
        ValueError: with the argument that was given.
    """
    for name in ("segment_ids", "decoder_segment_ids"):
        if keywords.get(name) is not None:
            raise ValueError(
                f"generate() takes one example a row, so it has no use for {name}: give every example a row of "
                "its own, padded, with an attention_mask"
            )


def check_length(side: str, length: int, limit: int | None) -> None:
    """Refuse a source or a target that is longer than the model takes.

    Args:
        side: "source" or "target", for the error. limit: None for any length.

    Raises:
        ValueError: with the length and the limit.
    """
    if limit is not None and length > limit:
        raise ValueError(
            f"the {side} must have at most {limit} tokens, which is what the model takes, got {length}; truncate it, "
            "or train a model with a larger max_position_embeddings"
        )


def keywords_of(forward: Callable) -> set[str]:
    """The names of all arguments that a forward pass reads, Transformers' own included."""
    named = {name for name, p in signature(forward).parameters.items() if p.kind is Parameter.POSITIONAL_OR_KEYWORD}
    return (named | set(TransformersKwargs.__optional_keys__) | {"return_dict"}) - {"self", *REPLACED}


def checked_call(forward: Callable) -> Callable:
    """Decorate a `forward` with `**kwargs`: unknown keywords raise a TypeError, missing attention weights warn.

    Only eager attention has weights to return. Under another implementation the fields are None, as they are where
    nobody asked for them, and a warning says once what to do.
    """
    known = keywords_of(forward)

    @wraps(forward)
    def wrapper(self, *args, **kwargs):
        if not known.issuperset(kwargs):
            check_keywords(kwargs, known, TypeError)
            kwargs = {name: value for name, value in kwargs.items() if name not in REPLACED}
        outputs = forward(self, *args, **kwargs)
        if not isinstance(outputs, ModelOutput) or all(outputs.get(name) != () for name in WEIGHTS):
            return outputs
        if not torch.compiler.is_compiling():
            logger.warning_once(
                f"output_attentions: the attention implementation {self.config._attn_implementation!r} returns no "
                'weights; call model.set_attn_implementation("eager") to have them'
            )
        return type(outputs)(**{name: value for name, value in outputs.items() if name not in WEIGHTS or value != ()})

    return wrapper
