"""Question answering where the decoder writes the answer."""

from collections.abc import Mapping, Sequence
from typing import Any

from transformers import PreTrainedModel

from ..seq2seq.quoting import quotation, with_quoting
from .inputs import PipelineInputError
from .item_masks import MASKS, check_taken, masks_of
from .questions import (
    as_answer,
    as_questions,
    check_options,
    check_question,
    check_quotable,
    create_sample,
    default_template,
)
from .text_to_text import TextToTextPipeline


class GeneratedAnswersPipeline(TextToTextPipeline):
    """Answers questions about contexts with an encoder-decoder, which writes the answer.

    ```python
    >>> answer = pipeline("question-answering", model=folder)
    >>> answer(question="Where is Ann?", context="Bob left. Ann went to the garden.")
    {'answer': 'garden'}
    ```

    An input is `{"question": ..., "context": ...}`, to which masks of its own can be added; or questions and contexts
    are given by name. One input gives one answer, unless `num_return_sequences` asks for several, in a list. All other
    options are those of `TextToTextPipeline`.

    Args:
        source_template: what the encoder reads, as the model was trained, with `{question}` and `{context}`. By
            default it is what the config says, else that of the task `question-answering`. T5's is
            `"question: {question} context: {context}"`. It is for all calls of a pipeline.
        no_answer: what the model writes where the context has no answer; the answer is `""` then. By default it is
            what the config says. It is for all calls of a pipeline.
        quote: what can only be quoted from the context: `"answer"`, a sentence, which is the `rationale`, and a part
            of it; `"sentences"`, the sentences of the `rationale`, before an answer in any words. By default it is
            what the config says. It is for all calls of a pipeline.

    Where the model writes what its answer follows from, and `Answer:` before the answer, that is the `rationale`.
    """

    create_sample = staticmethod(create_sample)
    return_name = "answer"
    saved_options = (*TextToTextPipeline.saved_options, "source_template", "no_answer", "quote")
    source_template = ""
    no_answer: str | None = None
    quote: str | None = None

    def __init__(self, model: PreTrainedModel, **options: Any) -> None:
        super().__init__(model, **options)
        if self.quote:
            check_quotable(self.target_tokenizer)
        self.source_template = self.source_template or default_template(self.tokenizer)

    def __call__(
        self,
        *inputs: Any,
        question: str | Sequence[str] | None = None,
        context: str | Sequence[str] | None = None,
        **options: Any,
    ) -> Any:
        """Answer one question, or several."""
        for name in ("source_template", "no_answer", "quote"):
            if name in options:
                raise PipelineInputError(f"{name} must be given to pipeline(...), for all calls, got it in one")
        given = as_questions(inputs, question, context)
        results = super().__call__(given, **options)
        is_one = isinstance(given, dict) and len(results) == 1
        return results[0] if is_one else results

    def check_input(self, item: Any, name: str) -> dict[str, Any]:
        """An input as a mapping with its name, its source text and its masks."""
        question, context = check_question(item, name, MASKS)
        check_taken(self.model, masks_of(item), f"{name}: ")
        text = self.source_template.format(question=question, context=context)
        return {"name": name, "text": text, "masks": masks_of(item), "context": context}

    def carried(self, item: Mapping[str, Any]) -> dict[str, Any]:
        return {"context": item["context"]}

    def constrained(self, rows: Sequence[Mapping[str, Any]], options: Mapping[str, Any]) -> dict[str, Any]:
        """With nothing to write but what may be quoted, where `quote` asks for it."""
        if self.quote is None:
            return dict(options)
        tokenizer, no_answer = self.target_tokenizer, self.no_answer
        sources = [quotation(tokenizer, row["context"], self.quote, no_answer) for row in rows]
        return with_quoting(options, sources, self.model.generation_config)

    def _sanitize_parameters(  # type: ignore[override]  # which has further options
        self,
        source_template: str | None = None,
        no_answer: str | None = None,
        quote: str | None = None,
        **options: Any,
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        check_options(source_template, no_answer, quote)
        if source_template is not None:
            self.source_template = source_template
        if no_answer is not None:
            self.no_answer = no_answer
        if quote is not None:
            self.quote = quote
        if options.get("overlong") == "split":
            raise PipelineInputError("overlong must be error or truncate for questions, got 'split'")
        return super()._sanitize_parameters(**options)

    def result(self, text: str) -> dict[str, Any]:
        return as_answer(text, self.no_answer, self.quote)
