"""CTranslate2 behind `generate()`, so that pipelines and other callers of Transformers' models run on it."""

from collections.abc import Callable
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import GenerationConfig

from ..configuration.crossmask import CrossMaskConfig
from ..inference.options import check_options, check_value
from ..modeling.pretrained import CrossMaskPreTrainedModel
from ..seq2seq.generation import MaskedGenerationMixin
from ..utils.errors import InputError
from .call_checks import check_source
from .ctranslate2_refusals import FIX, generation_refusals
from .generation import end_tokens, start_token

OPTIONS = ("num_beams", "max_new_tokens", "length_penalty", "early_stopping")
_SOURCE = ("input_ids", "attention_mask")
# Arguments of `generate()` that CTranslate2 does not have, with the values besides None that change nothing.
_NEUTRAL: dict[str, Any] = {"logits_processor": [], "stopping_criteria": [], "synced_gpus": False}
Run = Callable[[list[list[int]], GenerationConfig], list[list[int]]]


class CTranslate2Model(CrossMaskPreTrainedModel, MaskedGenerationMixin):
    """A model without weights whose `generate()` is CTranslate2's. There is no `forward`, and so are no scores.

    Args:
        config: of the model that was exported. generation: its settings of generation.
        run: from sources and settings to tokens, the start token included.
    """

    def __init__(self, config: CrossMaskConfig, generation: GenerationConfig, run: Run) -> None:
        super().__init__(config)
        self.generation_config, self._run = generation, run
        self._start = start_token(generation)  # the engine's own; `generation_config` may be changed later

    @classmethod
    def can_generate(cls) -> bool:
        return True

    @property
    def device(self) -> torch.device:
        """Where ids come from and go to, wherever CTranslate2 computes."""
        return torch.device("cpu")

    @property
    def max_source_length(self) -> int:
        return self.config.max_position_embeddings

    max_target_length = max_source_length

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        raise InputError(
            "forward must not be called on CTranslate2, which returns no logits and no attention weights; leave out "
            "scores and alignments, or load the model that was exported"
        )

    @torch.no_grad()
    def generate(  # type: ignore[override]  # arguments that it does not have are refused
        self, inputs: torch.Tensor | None = None, generation_config: GenerationConfig | None = None, **options: Any
    ) -> torch.Tensor:
        """As `GenerationMixin.generate`, greedily or with beams: one sequence for each source.

        Args:
            inputs: (B, S) int64, also as `input_ids`. generation_config: by default the model's own.
            options: `attention_mask`, (B, S), and settings that come before those of `generation_config`.

        Returns:
            (B, 1 + T) int64, with the start token, padded on the right.

        Raises:
            InputError: a setting or an argument that CTranslate2 does not have.
            ValueError: ids or a mask that the exported model refuses too.
        """
        settings, arguments = self.settings(generation_config, **options)
        ids, _, arguments = self._prepare_model_inputs(inputs, None, arguments)  # type: ignore[misc]
        shown = check_source(self.config, ids, arguments.get("attention_mask"))
        if hidden := (~shown.any(-1)).nonzero().flatten().tolist():
            raise InputError(
                f"attention_mask must show a token of every row on CTranslate2, got none in row {hidden[0]}; leave "
                f"the row out, or {FIX}"
            )
        sources = [row[mask].tolist() for row, mask in zip(ids, shown, strict=True)]
        marks: Any = (self.config.bos_token_id, self.config.eos_token_id)
        for index, source in enumerate(sources):
            if tuple(source) in (marks, marks[:1], marks[1:]):
                raise InputError(
                    "input_ids must have more than begin and end tokens in every row on CTranslate2, which writes "
                    f"nothing then, got {source} in row {index}; leave the row out, or {FIX}"
                )
        padding, ends = settings.pad_token_id, end_tokens(settings)
        padding = next(iter(ends), 0) if padding is None else padding
        written = [torch.tensor(tokens) for tokens in self._run(sources, settings)]
        return pad_sequence(written, batch_first=True, padding_value=padding).to(ids.device)

    def settings(
        self, generation_config: GenerationConfig | None = None, **options: Any
    ) -> tuple[GenerationConfig, dict[str, Any]]:
        """The settings of a call of `generate()`, with what the model has besides, and the source of the call.

        Raises:
            InputError: a setting or an argument that CTranslate2 does not have, with all such settings.
        """
        given = (options.get("max_length"), getattr(generation_config, "max_length", None))
        settings, arguments = self._prepare_generation_config(generation_config, **options)
        reasons = list(generation_refusals(settings))
        if start_token(settings) != self._start:
            reasons.append(
                f"decoder_start_token_id must be the exported model's {self._start}, got {start_token(settings)}; "
                "leave it out, or set it in the model's generation_config and export that again"
            )
        last = self.config.vocab_size - 1
        reasons += [
            f"eos_token_id must be tokens of the model, from 0 to {last}, got {token}; leave it out"
            for token in end_tokens(settings)
            if type(token) is not int or not 0 <= token <= last
        ]
        reasons += [f"max_length must be left out, got {n}; give max_new_tokens" for n in given if n is not None]
        reasons += [
            f"{name} must be left out on CTranslate2, which has no such argument; {FIX}"
            for name, value in arguments.items()
            if name not in _SOURCE and not hasattr(settings, name) and not _is_neutral(name, value)
        ]
        if reasons:
            raise InputError("; ".join(reasons))
        for name in OPTIONS:
            check_value(name, getattr(settings, name))
        check_options(self, {name: getattr(settings, name) for name in OPTIONS})
        return settings, arguments


def _is_neutral(name: str, value: Any) -> bool:
    return value is None or (name in _NEUTRAL and value == _NEUTRAL[name])
