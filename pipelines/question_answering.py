"""Question answering where the answer is a span of the context."""

import inspect
from collections.abc import Iterator, Mapping, Sequence
from functools import reduce
from operator import and_
from typing import Any

import torch
from transformers import PreTrainedModel

from ..masks.rules import blind, keep
from ..question_answering.decoding import WindowSpans, best_answers, spans_of_windows
from ..question_answering.window_masks import hidden_tokens, kept_tokens
from ..question_answering.windows import encode_windows
from .inputs import SPANS, BasePipeline, PipelineInputError, check_head, check_inputs, longest_text, refuse_options
from .questions import as_questions, check_question, create_sample

WINDOW = 384
STRIDE = 128
ANSWER_TOKENS = 15
OPTIONS = (
    "top_k", "max_answer_len", "max_seq_len", "doc_stride", "max_question_len", "align_to_words",
    "handle_impossible_answer",
)  # fmt: skip


class QuestionAnsweringPipeline(BasePipeline):
    """Answers questions by spans of their contexts, with any model that `AutoModelForQuestionAnswering` loads.

    ```python
    >>> answer = pipeline("question-answering", model=folder)
    >>> answer(question="Where is Ann?", context="Bob left. Ann is in the garden.")
    {'score': 0.98, 'start': 20, 'end': 30, 'answer': 'the garden'}
    ```

    An input is `{"question": ..., "context": ...}`; or questions and contexts are given by name, as texts or lists.
    One input gives one answer, several give a list. With a model of crossmask an input may also have `passages`, the
    numbers of the paragraphs that the answer may be in, and `hidden`, the characters `(first, one past the last)` that
    nothing reads. Contexts longer than a window are read in several, which overlap.

    Args:
        top_k: answers to each question at most, best first, which are in a list if it is not 1.
        max_answer_len: of an answer, in tokens.
        max_seq_len, doc_stride: of windows, and how much neighbours share, in tokens.
        max_question_len: of a question, in tokens; the rest is cut off. By default it is read whole.
        align_to_words: whether an answer is extended to whole words, between spaces; by default not.
        handle_impossible_answer: whether the answer may be `""`, with None as its start and end; by default where the
            model was trained to say so. Other models say so by their first token.

    Raises:
        PipelineInputError: an input without a question or a context, or an empty one, the message says which; an
            option that is not here.
    """

    create_sample = staticmethod(create_sample)

    def __init__(self, model: PreTrainedModel, **options: Any) -> None:
        check_head(model, SPANS)
        super().__init__(model=model.eval(), **options)
        if not getattr(self.tokenizer, "is_fast", False):
            raise PipelineInputError(
                f"tokenizer must tell from which characters a token is, got {type(self.tokenizer).__name__}; give a "
                "fast one"
            )
        self._longest = longest_text(model, self.tokenizer)
        self._takes_masks = "cross_mask" in inspect.signature(self.model.forward).parameters

    def __call__(
        self,
        *inputs: Any,
        question: str | Sequence[str] | None = None,
        context: str | Sequence[str] | None = None,
        **options: Any,
    ) -> Any:
        """Answer one question, or several: a list, a dataset, a generator."""
        checked = check_inputs(as_questions(inputs, question, context), self.check_input)
        return [] if checked == [] else super().__call__(checked, **options)

    def check_input(self, item: Any, name: str) -> dict[str, Any]:
        """An input as a mapping with its name, question, context and what is masked."""
        optional = ("passages", "hidden") if self._takes_masks else ()
        question, context = check_question(item, name, optional)
        masks = {key: item[key] for key in optional if item.get(key) is not None}
        return {"name": name, "question": question, "context": context, **masks}

    def _sanitize_parameters(
        self,
        top_k: int | None = None,
        max_answer_len: int | None = None,
        max_seq_len: int | None = None,
        doc_stride: int | None = None,
        max_question_len: int | None = None,
        align_to_words: bool | None = None,
        handle_impossible_answer: bool | None = None,
        **others: Any,
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        refuse_options(others, OPTIONS)
        lengths = {"max_answer_len": max_answer_len, "max_seq_len": max_seq_len, "max_question_len": max_question_len}
        for name, value in {"top_k": top_k, **lengths}.items():
            if value is not None and value < 1:
                raise PipelineInputError(f"{name} must be at least 1, got {value}")
        windows = {"max_seq_len": max_seq_len, "doc_stride": doc_stride, "max_question_len": max_question_len}
        spans = {
            "top_k": top_k,
            "max_answer_len": max_answer_len,
            "handle_impossible_answer": handle_impossible_answer,
        }
        answers = {
            "top_k": top_k,
            "handle_impossible_answer": handle_impossible_answer,
            "align_to_words": align_to_words,
        }
        given = ({k: v for k, v in options.items() if v is not None} for options in (windows, spans, answers))
        first, second, third = given
        return first, second, third

    def preprocess(
        self,
        item: Mapping[str, Any],
        max_seq_len: int | None = None,
        doc_stride: int | None = None,
        max_question_len: int | None = None,
    ) -> Iterator[dict[str, Any]]:
        """The windows of a context, each with its ids, (1, S)."""
        length = max_seq_len or min(WINDOW, self._longest or WINDOW)
        stride = min(STRIDE, length // 3) if doc_stride is None else doc_stride
        if not 0 <= stride < length:
            raise PipelineInputError(f"doc_stride must be from 0 to below max_seq_len, {length}, got {stride}")
        question, context = item["question"], item["context"]
        if max_question_len is not None:
            offsets = self.tokenizer(question, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
            question = question[: offsets[:max_question_len][-1][1]]
        try:
            (windows,) = encode_windows(self.tokenizer, [question], [context], max_length=length, stride=stride)
            kept = kept_tokens([windows], [item["passages"]])[0] if "passages" in item else None
            hidden = hidden_tokens([windows], [context], [item["hidden"]])[0] if "hidden" in item else None
        except ValueError as error:
            raise PipelineInputError(f"{item['name']}: {error}") from error
        for number, window in enumerate(windows):
            names = {"input_ids", "passage_ids", "token_type_ids", "offsets"} & window.keys()
            yield {
                **{name: torch.tensor(window[name])[None] for name in sorted(names)},
                "attention_mask": torch.ones(1, len(window["input_ids"]), dtype=torch.int64),
                "is_last": number == len(windows) - 1,
                "context": context,
                "kept": None if kept is None else kept[number],
                "hidden": None if hidden is None else hidden[number],
            }

    def _forward(
        self,
        batch: Mapping[str, Any],
        top_k: int = 1,
        max_answer_len: int = ANSWER_TOKENS,
        handle_impossible_answer: bool | None = None,
    ) -> dict[str, Any]:
        """The best spans of each window of a batch."""
        is_alone = not isinstance(batch["context"], list)
        kept, hidden, contexts = ([batch[name]] if is_alone else batch[name] for name in ("kept", "hidden", "context"))
        taken = inspect.signature(self.model.forward).parameters.keys()
        inputs = {name: value for name, value in batch.items() if name in taken}
        if "passage_ids" in inputs:  # -1 in padding, which the loader fills with 0
            inputs["passage_ids"] = inputs["passage_ids"].masked_fill(batch["attention_mask"] == 0, -1)
        lengths = batch["attention_mask"].sum(-1).tolist()
        rules = []
        for rule, rows in ((keep, kept), (blind, hidden)):
            if any(row is not None for row in rows):
                without = [((0, length),) if rule is keep else () for length in lengths]
                examples = (none if row is None else row for none, row in zip(without, rows, strict=True))
                rules.append(rule(examples=tuple(examples)))
        if rules:
            inputs["cross_mask"] = reduce(and_, rules)
        outputs = self.model(**inputs)
        if handle_impossible_answer and getattr(outputs, "no_answer_logits", None) is None:
            if self._takes_masks:
                raise PipelineInputError(
                    "handle_impossible_answer must not be True for a model with no_answer=False, which always has an "
                    "answer; leave it out"
                )
            # As SQuAD 2's baselines say it: the first token scores that there is no answer.
            outputs.no_answer_logits = outputs.start_logits[:, 0] + outputs.end_logits[:, 0]
        spans = spans_of_windows(outputs, batch, max(top_k, 2), max_answer_len)
        return {"spans": spans, "context": contexts, "is_last": batch["is_last"]}

    def postprocess(
        self,
        windows: Sequence[Mapping[str, Any]],
        top_k: int = 1,
        handle_impossible_answer: bool | None = None,
        align_to_words: bool = False,
    ) -> Any:
        """The best answers over the windows of a context."""
        # The loader gives a batch of one as it is, and takes the names from tuples.
        is_alone = isinstance(windows[0]["context"], list)
        spans = [WindowSpans(*(window["spans"][0] if is_alone else window["spans"])) for window in windows]
        context = windows[0]["context"][0] if is_alone else windows[0]["context"]
        answers = best_answers(context, spans, n_best=top_k + 1)
        if handle_impossible_answer is False:
            answers = [answer for answer in answers if answer.text] or answers
        found = []
        for answer in answers[:top_k]:
            start, end, text = answer.start, answer.end, answer.text
            if align_to_words and start is not None and end is not None:
                start, end = _words_around(context, start, end)
                text = context[start:end]
            found.append({"score": answer.score, "start": start, "end": end, "answer": text})
        return found[0] if top_k == 1 else found


def _words_around(text: str, start: int, end: int) -> tuple[int, int]:
    """A span extended to whole words, which are between spaces."""
    while start > 0 and not text[start - 1].isspace():
        start -= 1
    while end < len(text) and not text[end].isspace():
        end += 1
    return start, end
