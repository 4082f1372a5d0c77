"""Text classification."""

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from transformers import PreTrainedModel
from transformers.pipelines.text_classification import TextClassificationPipeline

from .inputs import (
    CLASSES,
    PipelineInputError,
    check_head,
    check_inputs,
    check_length,
    check_text,
    longest_text,
)
from .item_masks import call_masks, check_keys_and_masks, group_by_masks, masks_of, rows_of_batch

_TextClassificationPipeline: Any = TextClassificationPipeline  # whose options a type checker need not compare


class ClassificationPipeline(_TextClassificationPipeline):
    """Transformers' own pipeline for text classification, with inputs that are checked, and masks.

    ```python
    >>> classify = pipeline("crossmask-text-classification", model=folder)
    >>> classify("A fine film.")
    [{'label': 'positive', 'score': 0.97}]
    >>> classify([{"text": "A fine film.", "cross_mask": "keep((0, 3))"}])
    [{'label': 'positive', 'score': 0.96}]
    ```

    An input is a text or `{"text": ..., "text_pair": ...}`, to which a model of crossmask takes masks of its own
    (`cross_mask`, `encoder_mask`). Results are those of Transformers: a list for one text, one result for a mapping,
    and one for each input of a list.

    Args:
        top_k: how many labels to return, the likeliest first; None for all.
        return_all_scores: Transformers 4's option for all labels, in the order of their numbers.
        function_to_apply: `sigmoid`, `softmax` or `none`; by default what fits the model.
        cross_mask, encoder_mask: rules for every text, besides those of the model's config.
        options: all others are those of the tokenizer, such as `truncation=True`.

    Raises:
        PipelineInputError: an input that is no text, or empty, or that has both a mask of its own and the call's, the
            message says which; an option that nothing takes.
    """

    _load_video_processor = False

    def __init__(self, model: PreTrainedModel, **options: Any) -> None:
        check_head(model, CLASSES)
        super().__init__(model=model.eval(), **options)
        self._longest = longest_text(model, self.tokenizer)

    def check_model_type(self, supported_models: Any) -> None:
        """Models of other packages classify too."""

    def __call__(self, inputs: Any, **options: Any) -> Any:
        """Classify one text, or several: a list, a dataset, a column, a generator."""
        checked = check_inputs(inputs, self.check_input)
        if isinstance(checked, list) and not checked:
            return []
        result = super().__call__(checked, **options)
        return [result] if isinstance(inputs, str) and "top_k" not in options else result

    def check_input(self, item: Any, name: str) -> dict[str, Any]:
        """An input as a mapping with its name, its texts and its masks."""
        if not isinstance(item, Mapping):
            return {"name": name, "texts": {"text": check_text(item, name)}, "masks": {}}
        check_keys_and_masks(self.model, item, name, ("text",), ("text_pair",))
        texts = {key: check_text(item[key], f"{name}: {key!r}") for key in ("text", "text_pair") if key in item}
        return {"name": name, "texts": texts, "masks": masks_of(item)}

    def _sanitize_parameters(
        self,
        return_all_scores: bool | None = None,
        cross_mask: Any = None,
        encoder_mask: Any = None,
        **options: Any,
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        if return_all_scores is not None and "top_k" in options:
            raise PipelineInputError("return_all_scores must be left out beside top_k; top_k=None gives all")
        preparing, _, finishing = super()._sanitize_parameters(**options)
        taken = inspect.signature(type(self.tokenizer).__call__).parameters if self.tokenizer is not None else {}
        for name in preparing:
            if name not in taken or name in ("text", "text_pair", "return_tensors"):
                raise PipelineInputError(f"options must be those of the pipeline or its tokenizer, got {name!r}")
        if return_all_scores is not None:
            finishing["top_k"] = None if return_all_scores else 1
        return preparing, call_masks(self.model, cross_mask=cross_mask, encoder_mask=encoder_mask), finishing

    def preprocess(self, item: Mapping[str, Any], **tokenizer_options: Any) -> Any:
        """The ids of a text, (1, S), and its masks."""
        if tokenizer_options.get("truncation") and self._longest is not None:
            tokenizer_options = {"max_length": self._longest, **tokenizer_options}
        encoded = self.tokenizer(**item["texts"], return_tensors="pt", verbose=False, **tokenizer_options)
        check_length(encoded["input_ids"].shape[1], self._longest, item["name"], "shorten it, or give truncation=True")
        return {**encoded, "item": {"name": item["name"], "masks": item["masks"]}}

    def _forward(self, batch: dict[str, Any], **masks: Any) -> dict[str, torch.Tensor]:
        """The scores of classes, (B, C); rows under the same masks are read together."""
        items = batch.pop("item")
        rows = items if isinstance(items, list) else [items]  # a batch of one is not collated
        if "use_cache" in inspect.signature(self.model.forward).parameters:
            masks["use_cache"] = False
        logits: list[Any] = [None] * len(rows)
        for members, own in group_by_masks(rows, masks):
            for row, scores in zip(members, self.model(**rows_of_batch(batch, members), **own).logits, strict=True):
                logits[row] = scores
        return {"logits": torch.stack(logits)}
