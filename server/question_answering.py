"""Models that answer questions about contexts: by a span of the context, or by a text that they write."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from tqdm.auto import tqdm

from ..inference.answers import answer_batch
from ..inference.generate_translator import GenerateTranslator
from ..inference.texts import tokenizers_of, translate_ids
from ..pipelines.questions import as_answer, check_options, check_quotable, default_template
from ..question_answering.windows import encode_windows, longest_question
from ..seq2seq.quoting import quotation, with_quoting
from ..utils.errors import InputError
from .errors import as_bad_request, too_large
from .models import ServedModel, TextModel
from .scheduler import Encoded

Question = tuple[str, str]
"""A question and its context."""


class ReadingModel(ServedModel):
    """A span of a context for each question."""

    task = "question-answering"
    engine = "torch"

    def __init__(self, model: Any, tokenizer: Any, name: str):
        self.model, self.own_tokenizer, self.name = model.eval(), tokenizer, name
        self.dtype = str(model.dtype).removeprefix("torch.")
        self.tokenizer = copy.deepcopy(tokenizer)

    def encode(self, inputs: Sequence[Question]) -> list[Encoded]:
        questions, contexts = [question for question, _ in inputs], [context for _, context in inputs]
        longest = longest_question(self.tokenizer)
        for index, ids in enumerate(self.tokenizer(questions, add_special_tokens=False, verbose=False)["input_ids"]):
            if len(ids) > longest:
                raise too_large(f"question {index + 1} must have at most {longest} tokens, got {len(ids)}; shorten it")
        with as_bad_request(ValueError):  # a text without tokens
            windows = encode_windows(self.tokenizer, questions, contexts)
        counts = [sum(len(window["input_ids"]) for window in own) for own in windows]
        return [Encoded(pair, count) for pair, count in zip(inputs, counts, strict=True)]

    def run(self, payloads: list[Question], batch_tokens: int) -> list[dict[str, Any]]:
        questions, contexts = zip(*payloads, strict=True)
        found = answer_batch(self.model, self.own_tokenizer, questions, contexts, batch_tokens=batch_tokens)
        return [{"answer": best.text, "score": best.score, "start": best.start, "end": best.end} for best, *_ in found]


class WritingModel(ServedModel):
    """A text for each question about a context, and what it follows from where the model writes that first.

    Args:
        texts: writes it.
        source_template: what is read for a question, with `{question}` and `{context}`; by default that of the task.
        no_answer: what is written for a question that the context does not answer.
        quote: what can only be quoted from the context, as in a recipe's task options.

    Raises:
        PipelineInputError: a template that must be another, or a tokenizer that cannot quote.
        InputError: an engine that cannot.
    """

    task = "question-answering"

    def __init__(
        self,
        texts: TextModel,
        source_template: str | None = None,
        no_answer: str | None = None,
        quote: str | None = None,
    ):
        self.texts, self.name, self.engine, self.dtype = texts, texts.name, texts.engine, texts.dtype
        own, self.target_tokenizer = tokenizers_of(texts.translator.tokenizer)
        check_options(source_template, no_answer, quote)
        self.source_template = source_template or default_template(own)
        self.no_answer, self.quote = no_answer, quote
        if quote:
            check_quotable(self.target_tokenizer)
            if not isinstance(texts.translator, GenerateTranslator):
                raise InputError(
                    f"engine must be torch or onnx for {self.name}, which quotes its contexts, got {self.engine}"
                )

    def encode(self, inputs: Sequence[Question]) -> list[Encoded]:
        sources = [self.source_template.format(question=question, context=context) for question, context in inputs]
        encoded = self.texts.encode(sources, kind="what is read for question", fix="cut the context")
        return [Encoded((one.payload, context), one.tokens) for one, (_, context) in zip(encoded, inputs, strict=True)]

    def run(self, payloads: list[tuple[list[int], str]], batch_tokens: int) -> list[dict[str, str]]:
        sources, contexts = [ids for ids, _ in payloads], [context for _, context in payloads]
        if self.quote:
            written = self._quoted(sources, contexts, batch_tokens)
        else:
            written = self.texts.run(sources, batch_tokens)
        return [as_answer(text, self.no_answer, self.quote) for text in written]

    def _quoted(self, sources: list[list[int]], contexts: list[str], batch_tokens: int) -> list[str]:
        model, options, quote = self.texts.translator.model, self.texts.options, self.quote or ""

        def options_of(batch: list[int]) -> Mapping[str, Any]:
            allowed = [quotation(self.target_tokenizer, contexts[index], quote, self.no_answer) for index in batch]
            return with_quoting(options, allowed, model.generation_config)

        tokenizer = self.texts.translator.tokenizer
        with tqdm(disable=True) as bar:
            return translate_ids(model, tokenizer, sources, batch_tokens, bar, options_of, **options)

    def close(self) -> None:
        self.texts.close()
