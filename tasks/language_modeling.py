"""Language modelling: a causal language model learns texts, and is judged by how probable it finds others."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from torch.nn.functional import cross_entropy
from transformers import (
    CONFIG_MAPPING,
    MODEL_FOR_CAUSAL_LM_MAPPING,
    AutoModelForCausalLM,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from ..data.causal_lm import CausalLMCollator, PackedCausalLMCollator
from ..seq2seq.decoder_inputs import IGNORED
from ..utils.errors import InputError
from ..utils.text import check_unicode
from ..utils.type_checks import check_choice
from .base import BatchResult, Example, LengthLimits, PrimaryMetric, Sample, Scores, Task
from .causal_lm_checks import check_causal, check_packing
from .records import group_of, text_column
from .registry import register_task
from .vocabulary import check_vocabulary

_ONE_SIDE = "a text has one side: max_target_length and target_row_length are its own"


class Likelihood(NamedTuple):
    """How probable a model finds a text: the negative logarithm to the base e, summed over this many tokens."""

    negative_log_likelihood: float
    tokens: int


@register_task
@dataclass(frozen=True)
class LanguageModeling(Task):
    """Texts as they are, learned by a causal language model of Transformers, each from its start to its end token.

    Records have a text, and optionally a group. A new model is of the class that a recipe's `model` names by its
    `model_type` (`llama`, `gpt2`, ...) and has the fields of that class's config. Texts are packed into rows of
    `target_row_length` tokens, whole, and do not see one another (`data/causal_lm.py`).

    Args:
        text_column: where the text is.
        group_column: the column with the group; every record must have it. None: a column `group` is used where there
            is one.

    Metrics, all of the sum of the negative log-likelihoods of the texts' tokens, end tokens included: `perplexity` for
    each token, `word_perplexity` for each word (what stands between white space), and `bits_per_byte` of UTF-8. The
    last two compare models with different tokenizers. A text longer than `max_target_length` is scored in pieces, each
    without the others.
    """

    name = "language-modeling"
    primary_metric = PrimaryMetric("perplexity", greater_is_better=False)
    pipeline_tag = "text-generation"
    auto_class = AutoModelForCausalLM
    length_fields = ("max_target_length",)
    tokenizer_settings = {"add_bos_token": True, "add_eos_token": False}
    unused_fields = {
        "max_source_length": _ONE_SIDE,
        "source_row_length": _ONE_SIDE,
        "generation_num_beams": "a language model is judged by likelihood, not by what it generates",
        "multipath_k": "a causal language model has no cross mask",
        **dict.fromkeys(("source_prefix", "source_language", "target_language"), "a text has no source"),
    }

    text_column: str = "text"
    group_column: str | None = None

    def example(self, record: Mapping[str, Any]) -> Example:
        fix = "set the task option text_column to one of them, or rename the column"
        text = text_column(record, self.text_column, fix)
        return Example("", text, (text,), group_of(record, self.group_column))

    def tagged(self, example: Example, tag: str) -> Example:
        raise InputError(
            f"tag must be left out for task {self.name}, got {tag!r}: it would stand before a source text"
        )

    def metrics(self, predictions: Sequence[Likelihood], examples: Sequence[Example]) -> Scores:
        for index, prediction in enumerate(predictions):
            if not isinstance(prediction, Likelihood):
                raise TypeError(f"prediction {index} must be a Likelihood, got {type(prediction).__name__}")
        return self.by_group(predictions, examples, self._score)

    @staticmethod
    def _score(predictions: list[Likelihood], examples: list[Example], group: str | None) -> Scores:
        total = math.fsum(prediction.negative_log_likelihood for prediction in predictions)
        words = sum(len(example.target.split()) for example in examples)
        size = sum(len(example.target.encode()) for example in examples)
        return {
            "perplexity": _exp(total / sum(prediction.tokens for prediction in predictions)),
            "word_perplexity": _exp(total / words),
            "bits_per_byte": total / math.log(2) / size,
        }

    def perfect_prediction(self, example: Example) -> Likelihood:
        return Likelihood(0.0, 1)

    def combine(self, outputs: Sequence[Likelihood], example: Example) -> Likelihood:
        """The likelihood of a text of those of its pieces."""
        return Likelihood(
            math.fsum(output.negative_log_likelihood for output in outputs), sum(o.tokens for o in outputs)
        )

    def config_class(self, fields: Mapping[str, Any]) -> type[PreTrainedConfig]:
        kinds = sorted(name for name, known in CONFIG_MAPPING.items() if known in MODEL_FOR_CAUSAL_LM_MAPPING)
        if "model_type" not in fields:
            raise InputError(
                f"model must have a model_type for task {self.name}; give one, for instance llama or gpt2"
            )
        check_choice("model.model_type", fields["model_type"], kinds)
        return CONFIG_MAPPING[fields["model_type"]]

    def check_config(self, config: PreTrainedConfig) -> None:
        if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
            raise InputError(f"it is a {config.model_type} model; give one that AutoModelForCausalLM loads")

    def check_model(self, model: PreTrainedModel, packed: bool) -> None:
        check_causal(model)
        if packed:
            check_packing(model)

    def check_tokenizer(self, tokenizer: PreTrainedTokenizerBase, config: PreTrainedConfig) -> None:
        if tokenizer.eos_token_id is None:
            raise InputError("the tokenizer must have an eos_token, which texts end with; set it and save it")
        check_vocabulary(tokenizer, config)

    def default_generation(self, limits: LengthLimits) -> dict[str, int]:
        return {"max_length": limits.max_target_length}

    def evaluation_limits(self, limits: LengthLimits) -> LengthLimits:
        return LengthLimits(limits.max_source_length, limits.max_target_length, "split")

    def texts(self, example: Example) -> tuple[str, ...]:
        return (example.target,)

    def features(
        self,
        names: Sequence[str],
        examples: Sequence[Example],
        tokenizer: PreTrainedTokenizerBase,
        limits: LengthLimits,
    ) -> dict[str, list[Any]]:
        """`labels` have all tokens of a text or piece, `input_ids` none: a text is a target without a source."""
        columns: dict[str, list[Any]] = {"input_ids": [], "labels": [], "example": []}
        texts = [example.target for example in examples]
        for name, text in zip(names, texts, strict=True):
            check_unicode(text, name)
        start, longest = start_token_id(tokenizer), limits.max_target_length
        if longest < 2:
            raise InputError(f"max_target_length must be at least 2, for the start token and another, got {longest}")
        encoded = tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]
        for number, (name, ids) in enumerate(zip(names, encoded, strict=True)):
            whole = [*ids, tokenizer.eos_token_id]
            if len(whole) < longest or limits.overlong == "truncate":
                pieces = [whole[: longest - 1]]
            elif limits.overlong == "split":
                pieces = [whole[at : at + longest - 1] for at in range(0, len(whole), longest - 1)]
            elif limits.overlong == "drop":
                pieces = []
            else:
                raise InputError(
                    f"{name}: its text must have at most max_target_length={longest} tokens with start and end, got "
                    f"{len(whole) + 1}; raise max_target_length (and the model's max_position_embeddings), or set "
                    "overlong to split, truncate or drop"
                )
            for piece in pieces:
                columns["input_ids"].append([])
                columns["labels"].append([start, *piece])
                columns["example"].append(number)
        return columns

    def collator(self, config: PreTrainedConfig) -> CausalLMCollator:
        return CausalLMCollator(_pad_token_id(config))

    def packed_collator(
        self, config: PreTrainedConfig, source_length: int, target_length: int
    ) -> PackedCausalLMCollator:
        return PackedCausalLMCollator(_pad_token_id(config), target_length)

    def evaluate_batch(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        batch: Mapping[str, torch.Tensor],
        generation: Mapping[str, Any] | None,
    ) -> BatchResult:
        labels = batch["labels"][:, 1:]
        logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], use_cache=False).logits
        # (B, vocabulary, T - 1), (B, T - 1)
        losses = cross_entropy(logits[:, :-1].float().mT, labels, ignore_index=IGNORED, reduction="none").double()
        sums, tokens = losses.sum(1), (labels != IGNORED).sum(1)
        predictions = [Likelihood(*pair) for pair in zip(sums.tolist(), tokens.tolist(), strict=True)]
        return BatchResult(torch.stack([sums.sum(), tokens.sum().double()]), predictions)

    def output(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, example: Example) -> list[Any]:
        """The logits for the tokens of a text."""
        ids = tokenizer(example.target, return_tensors="pt").input_ids[:, : tokenizer.model_max_length]
        with torch.no_grad():
            return model(input_ids=ids.to(model.device), use_cache=False).logits.tolist()

    def sample(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, example: Example, prediction: Likelihood
    ) -> Sample:
        """The first third of a text's words, and how the model goes on from them."""
        words = re.findall(r"\s*\S+", example.target)
        count = max(1, len(words) // 3)
        prompt, rest = "".join(words[:count]), "".join(words[count:])
        ids = [start_token_id(tokenizer), *tokenizer(prompt, add_special_tokens=False)["input_ids"]]
        inputs = torch.tensor([ids[: model.generation_config.max_length - 1]], device=model.device)
        generated = cast(Any, model).generate(inputs, attention_mask=torch.ones_like(inputs))
        perplexity = _exp(prediction.negative_log_likelihood / prediction.tokens)
        text = tokenizer.decode(generated[0, inputs.shape[1] :], skip_special_tokens=True)
        return Sample(prompt, rest, str(text), f"perplexity {perplexity:.1f}")

    def plots(
        self,
        folder: Path,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        examples: Sequence[Example],
        predictions: Sequence[Likelihood],
    ) -> dict[str, str]:
        return {}


def start_token_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """What stands before the first token of a text: bos, or eos in vocabularies without bos, as GPT-2's users do."""
    return tokenizer.eos_token_id if tokenizer.bos_token_id is None else tokenizer.bos_token_id


def _pad_token_id(config: PreTrainedConfig) -> int:
    """Any id will do where there is no padding token: padding is masked, and has no labels."""
    return next((id_ for id_ in (config.pad_token_id, config.eos_token_id) if isinstance(id_, int)), 0)


def _exp(value: float) -> float:
    return math.exp(min(value, 700.0))  # beyond which there is no float
