"""CTranslate2 behind `generate()`, so that pipelines and other callers of Transformers' models run on it."""

from collections.abc import Callable, Mapping
from copy import deepcopy
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import GenerationConfig

from ..configuration.crossmask import CrossMaskConfig
from ..modeling.pretrained import CrossMaskPreTrainedModel
from ..utils.errors import InputError
from .ctranslate2_refusals import generation_refusals
from .generation import end_tokens, start_token

Run = Callable[[list[list[int]], Mapping[str, Any]], list[list[int]]]


class CTranslate2Model(CrossMaskPreTrainedModel):
    """A model without weights whose `generate()` is CTranslate2's. There is no `forward`, and so are no scores.

    Args:
        config: of the model that was exported. generation: its settings of generation.
        run: from sources and options to tokens, the start token included. options: that `run` takes.
    """

    def __init__(
        self, config: CrossMaskConfig, generation: GenerationConfig, run: Run, options: tuple[str, ...]
    ) -> None:
        super().__init__(config)
        self.generation_config, self._run, self._options = generation, run, options
        # The engine's own; `generation_config` may be changed later.
        self._tokens = {"decoder_start_token_id": start_token(generation), "eos_token_id": end_tokens(generation)}

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
    def generate(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        generation_config: GenerationConfig | None = None,
        **options: Any,
    ) -> torch.Tensor:
        """As `GenerationMixin.generate`, greedily or with beams: one sequence for each source.

        Args:
            input_ids, attention_mask: (B, S) int64. generation_config: by default the model's own.
            options: settings of generation that come before those of `generation_config`.

        Returns:
            (B, 1 + T) int64, with the start token, padded on the right.

        Raises:
            InputError: a setting that CTranslate2 does not have, or an argument that is none.
        """
        if input_ids is None:
            raise InputError("input_ids must be given, got None; CTranslate2 reads tokens")
        settings = GenerationConfig() if generation_config is None else deepcopy(generation_config)
        settings.update(**self.generation_config.to_dict(), defaults_only=True, allow_custom_entries=True)
        if unknown := settings.update(**options):
            raise InputError(
                f"{sorted(unknown)[0]} must be left out on CTranslate2, which has no such argument; export to "
                '"onnx", or load the model that was exported'
            )
        reasons = list(generation_refusals(settings))
        reasons += [
            f"generation_config.{name} must be left out, got {value}; {fix}"
            for name, fix in (
                ("max_length", "give max_new_tokens"),
                ("num_return_sequences", "one sequence is written for each source"),
                ("return_dict_in_generate", "sequences alone are returned"),
            )
            if (value := getattr(settings, name)) not in (None, 1, False)
        ]
        of_call = {"decoder_start_token_id": start_token(settings), "eos_token_id": end_tokens(settings)}
        reasons += [
            f"{name} must be the exported model's {self._tokens[name]}, got {token}; leave it out, or set it in the "
            "model's generation_config and export that again"
            for name, token in of_call.items()
            if token != self._tokens[name]
        ]
        if reasons:
            raise InputError("; ".join(reasons))
        chosen = {name: value for name in self._options if (value := getattr(settings, name, None)) is not None}
        if attention_mask is None:
            attention_mask = torch.ones_like(input_ids)
        sources = [row[mask.bool()].tolist() for row, mask in zip(input_ids, attention_mask, strict=True)]
        (end,) = self._tokens["eos_token_id"]
        padding = end if settings.pad_token_id is None else settings.pad_token_id
        written = [torch.tensor(tokens) for tokens in self._run(sources, chosen)]
        return pad_sequence(written, batch_first=True, padding_value=padding).to(input_ids.device)
