"""Semantic role labeling: the arguments of a predicate, as spans of the words of its sentence."""

import inspect
from collections.abc import Iterator, Mapping, Sequence
from numbers import Integral
from typing import Any

import torch
from transformers import PreTrainedModel

from ..heads.bio import BioDecoder, bracketed, spans_of_tags
from ..heads.words import encode_words, marks_of, word_scores
from .alignment import word_spans
from .inputs import (
    TAGS,
    BasePipeline,
    PipelineInputError,
    check_head,
    check_inputs,
    check_length,
    check_text,
    longest_text,
    refuse_options,
)
from .item_masks import call_masks, check_keys_and_masks, group_by_masks, masks_of, rows_of_batch


class SemanticRoleLabelingPipeline(BasePipeline):
    """Labels the arguments of a predicate, with any model that `AutoModelForTokenClassification` loads.

    ```python
    >>> label = pipeline("crossmask-semantic-role-labeling", model=folder)
    >>> label({"text": "Ann sees him.", "predicate": "sees"})
    {'predicate': 'sees', 'tags': ['B-ARG0', 'B-V', 'B-ARG1', 'O'], 'text': '[ARG0 Ann ] [V sees ] [ARG1 him ] .',
     'arguments': [{'label': 'ARG0', 'score': 0.99, 'word': 'Ann', 'start': 0, 'end': 3}, ...]}
    ```

    An input has `text`, or `words`, a list that is joined by spaces, and `predicate`: the number of its word, from 0,
    or the word, if it is there once. Punctuation marks of a text are words of their own. With a model of crossmask an
    input may have an `encoder_mask` too, or the call has one for all. One input gives one result, several give a list.

    The classes of the model are BIO tags, and those of an output are well-formed. `start` and `end` are characters,
    first and one past the last, and `score` is the mean probability of the tags. The predicate is marked as in
    training: by `marker_ids` in a model of crossmask, by token type 1 in others.

    Raises:
        PipelineInputError: an input without words or predicate, or too long; a model of other classes.
    """

    tokenizer: Any

    def __init__(self, model: PreTrainedModel, **options: Any) -> None:
        check_head(model, TAGS)
        super().__init__(model=model.eval(), **options)
        self._longest = longest_text(model, self.tokenizer)
        names = self.model.config.id2label
        try:
            self._decoder = BioDecoder([names[index] for index in range(self.model.config.num_labels)])
        except ValueError as error:
            raise PipelineInputError(f"the model must have BIO tags as its classes: {error}") from error
        taken = inspect.signature(self.model.forward).parameters
        self._marks = "marker_ids" if "marker_ids" in taken else "token_type_ids"
        sizes = {"marker_ids": "marker_vocab_size", "token_type_ids": "type_vocab_size"}
        fewest = {"marker_ids": 1, "token_type_ids": 2}[self._marks]
        if self._marks not in taken or (getattr(self.model.config, sizes[self._marks], None) or 0) < fewest:
            raise PipelineInputError(
                f"the model must have marks or token types for the predicate, got {type(self.model).__name__} without "
                "either; take another"
            )

    def __call__(self, inputs: Any, **options: Any) -> Any:
        """Label one sentence, or several: a list, a dataset, a generator."""
        checked = check_inputs(inputs, self.check_input)
        return [] if checked == [] else super().__call__(checked, **options)

    def check_input(self, item: Any, name: str) -> dict[str, Any]:
        """An input as a mapping with its name, text, words, their characters, and the number of the predicate."""
        if not isinstance(item, Mapping):
            raise PipelineInputError(
                f"{name} must be {{'text': ..., 'predicate': ...}}, got {type(item).__name__}; put both into a mapping"
            )
        given = "words" if "words" in item else "text"
        check_keys_and_masks(self.model, item, name, (given, "predicate"))
        if given == "text":
            text = check_text(item["text"], f"{name}: 'text'")
            offsets = word_spans(text)
        else:
            words = item["words"]
            if isinstance(words, str | bytes) or not isinstance(words, Sequence) or not words:
                raise PipelineInputError(f"{name}: 'words' must be a list of words, got {words!r:.60}")
            for number, word in enumerate(words):
                check_text(word, f"{name}: 'words'[{number}]")
            text, offsets = " ".join(words), []
            for word in words:
                start = offsets[-1][1] + 1 if offsets else 0
                offsets.append((start, start + len(word)))
        words = [text[start:end] for start, end in offsets]
        predicate = _number(item["predicate"], words, name)
        return {"name": name, "text": text, "offsets": offsets, "predicate": predicate, "masks": masks_of(item)}

    def _sanitize_parameters(
        self, encoder_mask: Any = None, **others: Any
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        refuse_options(others, ("encoder_mask",))
        return {}, call_masks(self.model, encoder_mask=encoder_mask), {}

    def preprocess(self, item: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """The tokens of a sentence, (1, S), and which of them stand for its words."""
        words = [item["text"][start:end] for start, end in item["offsets"]]
        (encoded,) = encode_words(self.tokenizer, [words])
        check_length(len(encoded.input_ids), self._longest, item["name"], "shorten it")
        yield {
            "input_ids": torch.tensor([encoded.input_ids]),
            "attention_mask": torch.ones(1, len(encoded.input_ids), dtype=torch.int64),
            self._marks: torch.tensor([marks_of(encoded, item["predicate"])]),
            "first_tokens": encoded.first_tokens,
            "item": dict(item),
            "is_last": True,
        }

    def _forward(self, batch: Mapping[str, Any], **masks: Any) -> dict[str, Any]:
        """The scores of the words of each sentence, (W, C); those under the same masks are read together."""
        is_alone = not isinstance(batch["item"], list)
        items, tokens = ([batch[name]] if is_alone else batch[name] for name in ("item", "first_tokens"))
        scores: list[Any] = [None] * len(items)
        for members, own in group_by_masks(items, masks):
            names = ("input_ids", "attention_mask", self._marks)
            inputs = rows_of_batch({name: batch[name] for name in names}, members)
            logits = self.model(**inputs, **own).logits
            for row, of_row, seen in zip(members, logits, inputs["attention_mask"].bool(), strict=True):
                first_tokens = torch.tensor([tokens[row]], device=logits.device)
                scores[row] = word_scores(of_row[seen][None], first_tokens)[0]
        return {"item": items, "scores": scores, "is_last": batch["is_last"]}

    def postprocess(self, parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """The likeliest well-formed tags, and their spans."""
        (part,) = parts
        is_alone = isinstance(part["item"], list)
        item = part["item"][0] if is_alone else part["item"]
        scores, text, offsets = part["scores"][0], item["text"], item["offsets"]  # a batch's loses its first axis
        words = [text[start:end] for start, end in offsets]
        (tags,) = self._decoder(scores[None], [len(words)])
        classes = torch.tensor([self._decoder.tags.index(tag) for tag in tags])
        shares = scores.float().softmax(-1).gather(1, classes[:, None])[:, 0]
        arguments = [
            {
                "label": label,
                "score": float(shares[first : last + 1].mean()),
                "word": text[offsets[first][0] : offsets[last][1]],
                "start": offsets[first][0],
                "end": offsets[last][1],
            }
            for label, first, last in spans_of_tags(tags)
        ]
        shown = bracketed(words, tags)
        return {"predicate": words[item["predicate"]], "tags": tags, "text": shown, "arguments": arguments}


def _number(predicate: Any, words: Sequence[str], name: str) -> int:
    """The number of the predicate's word. Raises PipelineInputError."""
    if isinstance(predicate, str):
        if (count := words.count(predicate)) != 1:
            raise PipelineInputError(
                f"{name}: 'predicate' must be a word that is there once, got {predicate!r}, which is there {count} "
                "times; give its number, from 0"
            )
        return words.index(predicate)
    if isinstance(predicate, bool) or not isinstance(predicate, Integral) or not 0 <= int(predicate) < len(words):
        raise PipelineInputError(
            f"{name}: 'predicate' must be a word or the number of one, 0 to {len(words) - 1}, got {predicate!r}"
        )
    return int(predicate)
