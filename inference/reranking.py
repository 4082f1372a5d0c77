"""Hypotheses of beam search, ranked again by a model of the other direction (noisy channel reranking)."""

import copy
import math
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import GenerationConfig, PreTrainedModel

from ..data.tokenization import cut
from ..masks.expressions import Mask
from ..masks.tensor_mask import TensorMask
from ..pipelines.registration import attach_saved_masks
from ..pipelines.saved_options import saved_prefix
from ..seq2seq.decoder_inputs import IGNORED
from ..seq2seq.lengths import longest_source, longest_target
from ..seq2seq.log_probabilities import mean_log_probabilities
from ..utils.errors import InputError
from ..utils.type_checks import check_type
from .digests import digest
from .generate_translator import GenerateTranslator
from .loading import load_model_and_tokenizer
from .options import MASKS
from .texts import encode, pad, tokenizers_of

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
    >>> reranker = NoisyChannelReranker.load("multi30k-de-en", tokenizer)
    >>> translate_batch(model, tokenizer, ["A dog barks."], num_beams=10, custom_generate=reranker)
    ['Ein Hund bellt.']
    ```

    It takes the time of the search again: all hypotheses pass through both models once. What is longer than the
    reverse model takes is cut off before it is scored.

    Args:
        reverse_model: an encoder-decoder, on the device of the model that generates.
        reverse_tokenizer: of it. tokenizer: of the model that generates.
        weight: of the second term, above 0.
        prefix: stands before the sources of the model that generates, and does not belong to their texts.
        reverse_prefix: the same of the reverse model.

    Raises:
        InputError: a weight that is not a finite number above 0. From `generate`: fewer than two beams, a tensor as a
            mask, no `input_ids`, or `return_dict_in_generate`.
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
        self.reverse_model.eval()

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
            name: a folder or a Hub id. tokenizer, weight, prefix: as above. dtype: None is the saved one.

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

    def __call__(
        self,
        model: Any,
        input_ids: torch.LongTensor,
        *,
        generation_config: GenerationConfig,
        inputs_tensor: torch.Tensor,
        **options: Any,
    ) -> torch.Tensor:
        """The decoding loop of `generate`, which calls it. The best `num_return_sequences` come back, in order.

        Args:
            input_ids: (B * beams, 1) int64, what the decoder begins with. inputs_tensor: (B, S), the sources' ids.

        Returns:
            (B * num_return_sequences, T) int64
        """
        beams, wanted = generation_config.num_beams, generation_config.num_return_sequences
        _check_call(generation_config, inputs_tensor, options)
        settings = copy.deepcopy(generation_config)
        settings.num_return_sequences = beams
        hypotheses = model._beam_search(input_ids, generation_config=settings, **options)
        mask = options.get("attention_mask")
        mask = torch.ones_like(inputs_tensor) if mask is None else mask[:: len(mask) // len(inputs_tensor)]
        rules = {name: options[name] for name in MASKS if options.get(name) is not None}
        scores = self._direct(model, hypotheses, inputs_tensor, mask, rules, settings)
        scores = scores + self.weight * self._reverse(hypotheses, inputs_tensor, mask)
        best = scores.view(-1, beams).argsort(dim=-1, descending=True, stable=True)[:, :wanted]
        first = torch.arange(0, len(hypotheses), beams, device=best.device)[:, None]
        return hypotheses[(first + best).flatten()]

    def _direct(
        self,
        model: Any,
        hypotheses: torch.Tensor,
        sources: torch.Tensor,
        mask: torch.Tensor,
        rules: dict[str, Any],
        settings: Any,
    ) -> torch.Tensor:
        """log p(y|x) / |y| of hypotheses (B * beams, T), under the rules of the call; (B * beams,)."""
        beams = settings.num_beams
        written = hypotheses[:, 1:]
        labels = written.masked_fill(_padding(written, settings), IGNORED)
        inputs = {
            "input_ids": sources.repeat_interleave(beams, 0),
            "attention_mask": mask.repeat_interleave(beams, 0),
            "decoder_input_ids": hypotheses[:, :-1],
            **rules,
        }
        return mean_log_probabilities(model, inputs, labels)

    def _reverse(self, hypotheses: torch.Tensor, sources: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """log p(x|y) / |x| of hypotheses (B * beams, T); minus infinity of one without text."""
        own_source, own_target = tokenizers_of(self.tokenizer)
        model: Any = self.reverse_model
        texts = own_target.batch_decode(hypotheses, skip_special_tokens=True)
        ids = [row[shown.bool()] for row, shown in zip(sources, mask, strict=True)]
        originals = [text.removeprefix(self.prefix) for text in own_source.batch_decode(ids, skip_special_tokens=True)]
        target = tokenizers_of(self.reverse_tokenizer)[1]
        wanted = target(text_target=originals, verbose=False)["input_ids"]
        read = [_cut(row, longest_source(model)) for row in encode(self.reverse_tokenizer, texts, self.reverse_prefix)]
        has_text = [index for index, row in enumerate(read) if row]
        scores = torch.full((len(read),), -math.inf, device=hypotheses.device)
        if not has_text:
            return scores
        beams = len(hypotheses) // len(sources)
        labels = [torch.tensor(_cut(wanted[index // beams], longest_target(model))) for index in has_text]
        found = mean_log_probabilities(
            model,
            pad([read[index] for index in has_text], self.reverse_tokenizer, model.device),
            pad_sequence(labels, batch_first=True, padding_value=IGNORED).to(model.device),
        )
        scores[has_text] = found.to(scores)
        return scores


def _cut(ids: list[int], limit: int | None) -> list[int]:
    return ids if limit is None else cut(ids, limit)


def _padding(tokens: torch.Tensor, settings: Any) -> torch.Tensor:
    """(B, T) bool, which tokens `generate` has put behind the end of a sequence."""
    pad, end = settings._pad_token_tensor, settings._eos_token_tensor
    ends = torch.isin(tokens, tokens.new_empty(0) if end is None else end.to(tokens.device))
    behind = ends.cumsum(-1) - ends.long() > 0
    return behind if pad is None else behind | ((tokens == pad.to(tokens.device)) & ~ends)


def _check_call(settings: GenerationConfig, sources: torch.Tensor, options: dict[str, Any]) -> None:
    if settings.num_beams < 2:
        raise InputError(
            f"num_beams must be at least 2 with a reranker, which chooses among the hypotheses of beam search, got "
            f"{settings.num_beams}; 10 is usual"
        )
    if settings.return_dict_in_generate:
        raise InputError("return_dict_in_generate must be left out with a reranker, which returns ids alone")
    if sources.is_floating_point() or bool((sources < 0).any()):
        raise InputError("input_ids must be given with a reranker, which reads the source; encoder_outputs may be too")
    for name in MASKS:
        mask = options.get(name)
        if isinstance(mask, TensorMask) or (isinstance(mask, Mask) and mask.is_per_example):
            raise InputError(f"{name} must be a rule that holds for every text with a reranker, got {mask}; give one")
