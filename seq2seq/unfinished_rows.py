"""Rows that have ended are left out of the steps of `generate()`.

Transformers' loop computes every row until the last one has ended, and puts padding in place of what the others
write. Here a step computes the rows that still count, and the loop is given logits of zero for the rest.

Letters: B examples, G rows of the target for each (hypotheses, or samples), N examples that are still computed.
"""

from dataclasses import replace
from typing import Any, cast

import torch
from transformers import GenerationConfig, StoppingCriteriaList
from transformers.cache_utils import Cache, DynamicLayer, DynamicSlidingWindowLayer, EncoderDecoderCache
from transformers.utils import ModelOutput

from ..masks.expressions import Mask
from ..masks.tensor_mask import TensorMask
from .current_call import CurrentCall
from .encoder_output import CrossMaskEncoderOutput
from .generation import MaskedGenerationMixin

SHRINK = 0.75
"""Rows are left out once at most this share of them counts, since the cache is copied for it."""


class UnfinishedRows:
    """Which examples of a batch one decoding loop still computes.

    Attributes:
        unfinished: (B,) bool, which examples still count, as the loop has it.
        examples: (N,) int64, ascending, those that are computed.
    """

    def __init__(self, examples: int, rows: int):
        """
        Args:
            examples: B. rows: B * G, of the target.
        """
        self.count, self.rows_per_example = examples, rows // examples
        self.unfinished = torch.ones(examples, dtype=torch.bool)
        self.examples = torch.arange(examples)
        self.encoder_outputs: CrossMaskEncoderOutput | None = None

    def keep_unfinished(self, cache: Cache | None) -> None:
        """Take the finished examples out of the cache, if they are enough to pay for it."""
        counting = self.unfinished[self.examples]
        if not 0 < int(counting.sum()) <= SHRINK * len(counting) or not _can_leave_out(cache):
            return
        places = counting.nonzero().flatten()
        cache = cast(EncoderDecoderCache, cache)
        cache.cross_attention_cache.batch_select_indices(places)
        cache.self_attention_cache.batch_select_indices(self.rows_of(places))
        self.examples, self.encoder_outputs = self.examples[places], None

    def rows_of(self, examples: torch.Tensor) -> torch.Tensor:
        """The rows (N * G,) of the target that belong to some examples (N,)."""
        return (examples[:, None] * self.rows_per_example + torch.arange(self.rows_per_example)).flatten()

    def select(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """The inputs of a step, by name, without the rows that are left out."""
        if len(self.examples) == self.count:
            return inputs
        rows = self.rows_of(self.examples)
        by_length = {self.count: self.examples, self.count * self.rows_per_example: rows}

        def of_tensor(tensor: torch.Tensor) -> torch.Tensor:
            kept = by_length.get(len(tensor)) if tensor.ndim else None
            return tensor if kept is None else tensor.index_select(0, kept)

        selected = {}
        for name, value in inputs.items():
            if isinstance(value, torch.Tensor):
                value = of_tensor(value)
            elif isinstance(value, TensorMask):
                value = replace(value, allowed=of_tensor(value.allowed))
            selected[name] = value
        if self.encoder_outputs is None:
            encoded = CrossMaskEncoderOutput.of(inputs["encoder_outputs"])
            states = of_tensor(cast(torch.Tensor, encoded.last_hidden_state))
            self.encoder_outputs = CrossMaskEncoderOutput(states, encoder_mask=encoded.encoder_mask)
        selected["encoder_outputs"] = self.encoder_outputs
        return selected

    def fill_in(self, outputs: Any) -> None:
        """Give a step's output logits (B * G, T, vocabulary) for all rows: zeros for those that were left out."""
        if len(self.examples) == self.count:
            return
        logits = outputs.logits.new_zeros(self.count * self.rows_per_example, *outputs.logits.shape[1:])
        outputs.logits = logits.index_copy_(0, self.rows_of(self.examples), outputs.logits)

    def places_of(self, rows: torch.Tensor) -> torch.Tensor:
        """Where the rows (N * G,) of the cache are to be taken from, for rows (B * G,) of the loop."""
        if len(self.examples) == self.count:
            return rows
        kept = self.rows_of(self.examples)
        places = torch.zeros(self.count * self.rows_per_example, dtype=torch.long)
        places[kept] = torch.arange(len(kept))
        return places[rows[kept].long()]


class NotingStoppingCriteria(StoppingCriteriaList):
    """Stopping criteria that note for `UnfinishedRows` which rows (B * G,) have ended."""

    def __init__(self, criteria: StoppingCriteriaList, unfinished_rows: UnfinishedRows):
        super().__init__(criteria)
        self.unfinished_rows = unfinished_rows
        self.unfinished = torch.ones(unfinished_rows.count * unfinished_rows.rows_per_example, dtype=torch.bool)

    def __call__(self, input_ids: torch.LongTensor, scores: Any, **kwargs: Any) -> torch.BoolTensor:
        ended = super().__call__(input_ids, scores, **kwargs)
        self.unfinished &= ~ended
        self.unfinished_rows.unfinished = self.unfinished.view(self.unfinished_rows.count, -1).any(-1)
        return ended


def _can_leave_out(cache: Cache | None) -> bool:
    """Whether rows can be taken out of a cache: not out of static ones, nor out of recurrent states."""
    if not isinstance(cache, EncoderDecoderCache):
        return False
    layers = [*cache.self_attention_cache.layers, *cache.cross_attention_cache.layers]
    return all(type(layer) in (DynamicLayer, DynamicSlidingWindowLayer) for layer in layers)


def _is_of_caller(cache: Cache | None) -> bool:
    """Whether the caller of `generate()` gave the cache, which Transformers notes in it."""
    return hasattr(cache, "_is_user_defined") and bool(cache._is_user_defined)  # type: ignore[union-attr]


loop: CurrentCall[UnfinishedRows] = CurrentCall()
"""The decoding loop that runs in this thread, if it leaves out rows."""


class UnfinishedRowsMixin(MaskedGenerationMixin):
    """Gives a decoding loop of Transformers only the rows that have not ended, where `loop` says which these are."""

    def unfinished_rows(
        self,
        input_ids: torch.LongTensor,
        settings: GenerationConfig,
        past_key_values: Cache | None = None,
        synced_gpus: bool = False,
        passage_ids: torch.LongTensor | None = None,
        **kwargs: Any,
    ) -> UnfinishedRows | None:
        """For a loop that begins with these arguments; None if it has to compute all rows.

        It has to where someone is given the cache or what each step returned, and under rules that speak of the
        examples or the passages of the whole batch. A GPU computes all, since one would have to wait for it to know
        which rows have ended.
        """
        kept = settings.return_dict_in_generate or _is_of_caller(past_key_values)
        if input_ids.device.type != "cpu" or len(input_ids) == 1 or kept or synced_gpus or passage_ids is not None:
            return None
        call_masks = (kwargs.get("decoder_mask"), kwargs.get("cross_mask"))
        for mask, compiler in zip(call_masks, self.mask_compilers[1:], strict=True):
            rules, _ = compiler.rules(mask if isinstance(mask, Mask) else None)
            if any(rule.is_per_example for rule in rules):
                return None
        return UnfinishedRows(len(kwargs["encoder_outputs"][0]), len(input_ids))

    def prepare_inputs_for_generation(self, *args: Any, past_key_values: Cache | None = None, **kwargs: Any) -> dict:
        """As for every model with masks, without the rows that are left out."""
        if loop.now is not None:
            loop.now.keep_unfinished(past_key_values)
        inputs = super().prepare_inputs_for_generation(*args, past_key_values=past_key_values, **kwargs)
        return inputs if loop.now is None else loop.now.select(inputs)

    def _update_model_kwargs_for_generation(self, outputs: ModelOutput, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """As Transformers does. It is called before the logits are read, which are for all rows from here on."""
        if loop.now is not None:
            loop.now.fill_in(outputs)
        return super()._update_model_kwargs_for_generation(outputs, *args, **kwargs)

    def _check_early_stop_heuristic(  # type: ignore[override]  # static in Transformers, which calls it on the model
        self, *, is_sent_finished: torch.Tensor, early_stopping: bool | str, **kwargs: Any
    ) -> torch.Tensor:
        """As Transformers finds in beam search which examples (B, 1) can still improve."""
        kwargs |= {"is_sent_finished": is_sent_finished, "early_stopping": early_stopping}
        can_improve = super()._check_early_stop_heuristic(**kwargs)
        if loop.now is not None:
            is_full = is_sent_finished.all(-1) & (early_stopping is True)
            loop.now.unfinished = can_improve[:, 0] & ~is_full
        return can_improve
