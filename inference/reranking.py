"""Hypotheses of beam search, ranked again by a model of the other direction (noisy channel reranking)."""

import copy
import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import GenerationConfig, LogitsProcessorList, PreTrainedModel

from ..pipelines.registration import attach_saved_masks
from ..pipelines.saved_options import saved_prefix
from ..seq2seq.decoder_inputs import IGNORED
from ..seq2seq.hypothesis_scores import HypothesisScores
from ..seq2seq.lengths import longest_source, longest_target
from ..seq2seq.log_probabilities import mean_log_probabilities
from ..utils.errors import InputError
from ..utils.text import is_blank
from ..utils.type_checks import check_type
from .digests import digest
from .generate_translator import GenerateTranslator
from .loading import load_model_and_tokenizer
from .texts import pad, pair_encoder, tokenizers_of

WEIGHT = 0.5
"""Of the reverse model. Between 0.4 and 0.8 development sets of captions and news hardly differ."""


@dataclass(frozen=True)
class NoisyChannelReranker:
    """Chooses among the hypotheses of beam search the one that also gives the source back.

    A hypothesis y of a source x has the score `log p(y|x) / |y| + weight * log p(x|y) / |x|`, whose second term is of
    a model that was trained from targets to sources (Yee et al. 2019, https://arxiv.org/abs/1908.05731, without a
    language model). It sees what a fluent output has left out or added. `generate` takes it as `custom_generate`, of
    any encoder-decoder of Transformers:

    ```python
    >>> reranker = NoisyChannelReranker.load("runs/news-de-en", tokenizer)
    >>> translate_batch(model, tokenizer, ["A dog barks."], num_beams=10, custom_generate=reranker)
    ['Ein Hund bellt.']
    ```

    The first term is as the search counts it, under the masks and other options of the call; `length_penalty` acts on
    which hypotheses there are. The second one is of texts: a source is what its ids decode to, without special
    tokens. What is longer than the reverse model takes is cut off. All hypotheses pass through the reverse model once.

    Args:
        reverse_model: an encoder-decoder of texts, in evaluation mode.
        reverse_tokenizer: of it, or a bridge's processor. tokenizer: the same of the model that generates.
        weight: of the second term, above 0.
        prefix: stands before the sources of the model that generates, and does not belong to their texts.
        reverse_prefix: the same of the reverse model.

    Raises:
        InputError: a weight that is not a finite number above 0. From `generate`: fewer than two beams, no
            `input_ids`, `return_dict_in_generate`, or further stopping criteria.
    """

    reverse_model: PreTrainedModel
    reverse_tokenizer: Any
    tokenizer: Any
    weight: float = WEIGHT
    prefix: str = ""
    reverse_prefix: str = ""

    def __post_init__(self) -> None:
        check_type("weight", self.weight, float)
        if not 0 < self.weight < math.inf:
            raise InputError(
                f"weight must be a finite number above 0, got {self.weight}; leave the reranker out for 0"
            )

    @classmethod
    def load(
        cls,
        name: str,
        tokenizer: Any,
        *,
        weight: float | None = None,
        prefix: str = "",
        device: torch.device | str = "cpu",
        dtype: torch.dtype | None = None,
    ) -> "NoisyChannelReranker":
        """The reranker by a saved reverse model, under its saved masks and after its saved prefix.

        Args:
            name: a folder or a Hub id. tokenizer, weight, prefix: as above.
            device: to compute on. dtype: None is the saved one.

        Raises:
            OSError: it does not exist, or cannot be fetched. InputError: it cannot be read, or the weight.
        """
        reverse, reverse_tokenizer = load_model_and_tokenizer(name, dtype)
        own_prefix = saved_prefix(reverse.config, "translation")
        on_device: Any = attach_saved_masks(reverse).to(device)
        return cls(on_device, reverse_tokenizer, tokenizer, WEIGHT if weight is None else weight, prefix, own_prefix)

    def digest(self) -> str:
        """Of the reverse model, its tokenizer, and how it is used."""
        found = GenerateTranslator(self.reverse_model, self.reverse_tokenizer).digests()
        return digest([found, self.weight, self.prefix, self.reverse_prefix])

    @staticmethod
    def check_settings(settings: Mapping[str, Any]) -> None:
        """Refuse settings of `generate` that do not go with a reranker, by name, before anything is generated.

        Raises:
            InputError: fewer than two beams, stop strings, or outputs other than ids.
        """
        if (beams := settings.get("num_beams") or 1) < 2:
            raise InputError(
                f"num_beams must be at least 2 with a reranker, which chooses among the hypotheses of beam search, "
                f"got {beams}; 10 is usual"
            )
        for name in ("stop_strings", "return_dict_in_generate"):
            if settings.get(name):
                raise InputError(
                    f"{name} must be left out with a reranker, got {settings[name]!r}; call generate without it"
                )

    def __call__(
        self,
        model: Any,
        input_ids: torch.LongTensor,
        *,
        logits_processor: LogitsProcessorList,
        generation_config: GenerationConfig,
        inputs_tensor: torch.Tensor,
        **options: Any,
    ) -> torch.Tensor:
        """The decoding loop of `generate`, which calls it. The best `num_return_sequences` come back, in order.

        Args:
            input_ids: (B * beams, P) int64, what the decoder begins with. inputs_tensor: (B, S), the sources' ids.

        Returns:
            (B * num_return_sequences, T) int64
        """
        self.check_settings(vars(generation_config))
        if inputs_tensor.is_floating_point() or bool((inputs_tensor < 0).any()):
            raise InputError(
                "input_ids must be given with a reranker, which reads the source, got none; give them beside "
                "encoder_outputs"
            )
        beams, wanted = generation_config.num_beams, generation_config.num_return_sequences
        settings: Any = copy.deepcopy(generation_config)
        settings.num_return_sequences = beams
        end = settings._eos_token_tensor
        scores = HypothesisScores(beams, [] if end is None else end.flatten().tolist())
        processors = LogitsProcessorList([*logits_processor, scores])
        hypotheses = model._beam_search(input_ids, logits_processor=processors, generation_config=settings, **options)
        try:
            direct = scores.means(hypotheses)
        except KeyError:
            raise InputError(
                "stopping_criteria must be left out with a reranker, which scores whole hypotheses; give "
                "max_new_tokens"
            ) from None
        mask = options.get("attention_mask")
        mask = torch.ones_like(inputs_tensor) if mask is None else mask[:: len(mask) // len(inputs_tensor)]
        total = direct + self.weight * self._reverse_scores(hypotheses, inputs_tensor, mask)
        best = total.view(-1, beams).argsort(dim=-1, descending=True, stable=True)[:, :wanted]
        first = torch.arange(0, len(hypotheses), beams, device=best.device)[:, None]
        return hypotheses[(first + best).flatten()]

    def _reverse_scores(self, hypotheses: torch.Tensor, sources: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """log p(x|y) / |x| of hypotheses (B * beams, T), (B * beams,); minus infinity of one without text.

        Args:
            sources: (B, S) ids. mask: (B, S), which of them are tokens.
        """
        own_source, own_target = tokenizers_of(self.tokenizer)
        written = own_target.batch_decode(hypotheses, skip_special_tokens=True)
        ids = [row[shown.bool()] for row, shown in zip(sources, mask, strict=True)]
        texts = [
            text.strip().removeprefix(self.prefix.strip()).strip()
            for text in own_source.batch_decode(ids, skip_special_tokens=True)
        ]
        beams = len(hypotheses) // len(sources)
        with_text = [index for index, text in enumerate(written) if not is_blank(text)]
        scores = torch.full((len(written),), -math.inf, device=hypotheses.device)
        if not with_text:
            return scores
        model: Any = self.reverse_model
        longest = (longest_source(model) or sys.maxsize, longest_target(model) or sys.maxsize)
        encode = pair_encoder(self.reverse_tokenizer, *longest, "truncate")
        rows = encode(
            [f"hypothesis {index}" for index in with_text],
            [self.reverse_prefix + written[index] for index in with_text],
            [texts[index // beams] for index in with_text],
        )
        labels = [torch.tensor(row) for row in rows["labels"]]
        found = mean_log_probabilities(
            model,
            pad(rows["input_ids"], self.reverse_tokenizer, model.device),
            pad_sequence(labels, batch_first=True, padding_value=IGNORED).to(model.device),
        )
        scores[with_text] = found.to(scores)
        return scores
