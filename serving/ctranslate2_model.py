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

Run = Callable[[list[list[int]], Mapping[str, Any]], list[list[int]]]


class CTranslate2Model(CrossMaskPreTrainedModel):
    """A model without weights whose `generate()` is CTranslate2's. There is no `forward`, and so are no scores.

    Args:
        config: of the model that was exported. generation: its settings of generation.
        run: from sources and options to tokens, without the start token. options: that `run` takes.
    """

    def __init__(
        self, config: CrossMaskConfig, generation: GenerationConfig, run: Run, options: tuple[str, ...]
    ) -> None:
        super().__init__(config)
        self.generation_config, self._run, self._options = generation, run, options

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
        settings = deepcopy(generation_config or self.generation_config)
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
        if reasons:
            raise InputError("; ".join(reasons))
        chosen = {name: value for name in self._options if (value := getattr(settings, name, None)) is not None}
        if attention_mask is None:
            attention_mask = torch.ones_like(input_ids)
        sources = [row[mask.bool()].tolist() for row, mask in zip(input_ids, attention_mask, strict=True)]
        start, padding = settings.decoder_start_token_id, settings.pad_token_id
        written = [torch.tensor([start, *tokens]) for tokens in self._run(sources, chosen)]
        return pad_sequence(written, batch_first=True, padding_value=padding or 0).to(input_ids.device)
