"""Text classification."""

from collections.abc import Mapping
from typing import Any

from transformers import PreTrainedModel
from transformers.pipelines.text_classification import TextClassificationPipeline

from .inputs import check_inputs, check_keys, check_text

_TextClassificationPipeline: Any = TextClassificationPipeline  # whose options a type checker need not compare


class ClassificationPipeline(_TextClassificationPipeline):
    """Transformers' own pipeline for text classification, with inputs that are checked.

    ```python
    >>> classify = pipeline("crossmask-text-classification", model=folder)
    >>> classify("A fine film.")
    [{'label': 'positive', 'score': 0.97}]
    ```

    An input is a text or `{"text": ..., "text_pair": ...}`. One input gives a list, a list one label each.

    Args:
        top_k: how many labels to return, the likeliest first; None for all.
        function_to_apply: `sigmoid`, `softmax` or `none`; by default what fits the model.
        options: all others are those of the tokenizer, such as `truncation=True`.

    Raises:
        PipelineInputError: an input that is no text, or empty; the message says which.
    """

    _load_video_processor = False

    def __init__(self, model: PreTrainedModel, **options: Any) -> None:
        super().__init__(model=model.eval(), **options)

    def check_model_type(self, supported_models: Any) -> None:
        """Models of other packages classify too."""

    def __call__(self, inputs: Any, **options: Any) -> Any:
        """Classify one text, or several: a list, a dataset, a column, a generator."""
        checked = check_inputs(inputs, self.check_input)
        if isinstance(checked, list) and not checked:
            return []
        result = super().__call__(checked, **options)
        return [result] if isinstance(result, dict) else result

    def check_input(self, item: Any, name: str) -> dict[str, Any]:
        """An input as a mapping, as the tokenizer takes it."""
        if not isinstance(item, Mapping):
            return {"text": check_text(item, name)}
        check_keys(item, name, ("text",), ("text_pair",))
        return {key: check_text(text, f"{name}: {key!r}") for key, text in item.items()}
