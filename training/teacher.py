"""A teacher: a finished model whose predictions are a share of every target (`seq2seq/distillation.py`)."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from transformers import AutoModelForSeq2SeqLM, PreTrainedConfig, PreTrainedModel, ProcessorMixin

from ..bridge import CrossMaskBridgeConfig
from ..configuration.base import MASK_FIELDS, MaskedConfig
from ..inference.loading import check_kind, load_config, load_model
from ..modeling.crossmask import CrossMaskForConditionalGeneration
from ..modeling.layers import is_plain_linear
from ..seq2seq.attention_weights import plain_name
from ..seq2seq.distillation import Distillation
from ..seq2seq.mask_probe import reads_target_padding
from ..tasks.encoder_decoders import special_id
from ..utils.errors import InputError
from .attaching import attach_masks
from .build_model import check_lengths
from .build_tokenizer import load_tokenizer
from .validation import one_line

if TYPE_CHECKING:
    from ..tasks.base import LengthLimits, Task


class Teacher:
    """A model that predicts what another one should, for the batches that this one is trained on.

    Args:
        model: an encoder-decoder; it is put into evaluation mode, and nothing of it is trained.
        weight: the share of its predictions in the target, from 0 to 1.
    """

    def __init__(self, model: PreTrainedModel, weight: float) -> None:
        self.model, self.weight = model.eval().requires_grad_(False), weight
        taken = inspect.signature(model.forward).parameters
        self._options = {"use_cache": False} if "use_cache" in taken else {}

    @torch.no_grad()
    def predictions(self, batch: Mapping[str, Any]) -> Distillation:
        """What it predicts for the inputs of a batch, as collators make them.

        It reads them under its own masks and those of the examples, not under one that a step of training has.
        """
        given = {name: value for name, value in batch.items() if name != "labels"}
        for name in MASK_FIELDS:
            if not torch.is_tensor(given.get(name)):
                given.pop(name, None)
        start = special_id(self.model.config, "decoder_start_token_id")
        first = first_of_targets(given["decoder_input_ids"], given.get("decoder_segment_ids"))
        given["decoder_input_ids"] = given["decoder_input_ids"].masked_fill(first, start)
        model: Any = self.model
        if isinstance(model, CrossMaskForConditionalGeneration) and is_plain_linear(model.lm_head):
            states = model.head_proj(model.model(**given, **self._options).last_hidden_state)
            return Distillation(_logits_of(states.flatten(0, 1), model.lm_head.weight), self.weight)
        logits = model(**given, **self._options).logits.flatten(0, 1)
        return Distillation(logits.__getitem__, self.weight)


def first_of_targets(ids: torch.Tensor, segment_ids: torch.Tensor | None) -> torch.Tensor:
    """Where the targets of a batch begin, with the start token of their model: (B, T) bool, of (B, T) both."""
    first = torch.zeros_like(ids, dtype=torch.bool)
    first[:, 0] = True
    if segment_ids is not None:
        first[:, 1:] = segment_ids[:, 1:] != segment_ids[:, :-1]
    return first


def _logits_of(states: torch.Tensor, weight: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
    """The logits of some rows, in the precision of this moment: the loss is computed outside of autocast too."""
    device = states.device.type
    kind = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else states.dtype
    states, weight = states.to(kind), weight.to(kind)

    def logits(rows: torch.Tensor) -> torch.Tensor:
        with torch.autocast(device, enabled=False):
            return nn.functional.linear(states[rows], weight)

    return logits


def check_teacher(name: str, limits: LengthLimits, task: Task) -> None:
    """Refuse a teacher that cannot read the task's texts, by its config.

    Raises:
        InputError: with what it is. OSError: it cannot be loaded.
    """
    if Path(name).is_file():
        raise InputError(f"teacher must be a folder that holds a finished model, or a Hub id, got the file {name}")
    try:
        config = load_config(name)
        check_kind(name, config, AutoModelForSeq2SeqLM)
    except (InputError, ImportError) as error:
        raise InputError(f"teacher: {one_line(error)}") from error
    except OSError as error:
        raise OSError(f"teacher: {one_line(error)}") from error
    if config.model_type == CrossMaskBridgeConfig.model_type:
        raise InputError(f"teacher must not be a bridge, whose sides have a tokenizer each, got {name}; give another")
    start = special_id(config, "decoder_start_token_id")
    if not isinstance(start, int) or not 0 <= start < vocabulary_of(config):
        raise InputError(
            f"teacher must have a decoder_start_token_id of its vocabulary, got {start}; set it in {name}'s config"
        )
    try:
        check_lengths(limits, task, config)
    except InputError as error:
        raise InputError(f"teacher {name} is too short: {error}, or give another teacher") from error


def vocabulary_of(config: PreTrainedConfig) -> int:
    """The number of tokens that an encoder-decoder writes."""
    return config.get_text_config(decoder=True).vocab_size


def load_teacher(name: str, weight: float, model: PreTrainedModel, tokenizer: Any, packed: bool) -> Teacher:
    """The teacher of a model that is trained with a tokenizer.

    Args:
        name: a folder or a Hub id.
        weight: the share of its predictions in the target.
        packed: whether it will read packed rows.

    Raises:
        InputError: it has another vocabulary, or cannot read packed rows. OSError: it cannot be loaded.
    """
    if isinstance(tokenizer, ProcessorMixin):
        raise InputError(f"teacher must be left out for a bridge, whose sides have a tokenizer each, got {name}")
    own = load_tokenizer("teacher", name, of_model=True)
    if own.get_vocab() != tokenizer.get_vocab():
        raise InputError(
            f"teacher must have the tokenizer of the run, got {name} with another; set tokenizer to {name}, or begin "
            "with model_name_or_path that has it"
        )
    try:
        config = load_config(name)
        if (its := vocabulary_of(config)) != (size := vocabulary_of(model.config)):
            raise InputError(
                f"{name} must have the vocab_size of the model, {size}, got {its}; leave model.vocab_size out, or set "
                "it to that"
            )
        options: dict[str, Any] = {"dtype": torch.float32}
        if isinstance(config, MaskedConfig):  # under the model's backend, which others may not have
            options["attn_implementation"] = plain_name(model.config._attn_implementation)
        loaded: Any = attach_masks(load_model(name, config, **options), {}, packed=packed)
    except (InputError, ImportError) as error:
        raise InputError(f"teacher: {one_line(error)}") from error
    if reads_target_padding(loaded):
        raise InputError(
            f"teacher must not be a {config.model_type} model, got {name}: padding after a target changes what it "
            "predicts; give one of another family"
        )
    return Teacher(loaded, weight)
