"""Text to text: what translation, summarization and other tasks of encoder-decoders have in common."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, Literal, get_args

import torch
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from ..seq2seq.lengths import longest_target
from .alignment import align, read_again, target_offsets
from .inputs import (
    GENERATION,
    BasePipeline,
    PipelineInputError,
    check_head,
    check_inputs,
    check_length,
    check_text,
    longest_text,
)
from .item_masks import MASKS, call_masks, check_keys_and_masks, group_by_masks, masks_of, rows_of_batch
from .pieces import Piece, Splitter, join, sentences, whole
from .saved_options import saved_options

Overlong = Literal["error", "split", "truncate"]
NEW_TOKENS = 256
"""How long a text is generated where neither the model nor the call says so."""


class TextToTextPipeline(BasePipeline):
    """Generates a text for each text, with any encoder-decoder.

    ```python
    >>> generate = pipeline("crossmask-text2text-generation", model=folder)
    >>> generate("A dog barks.", num_beams=5)
    [{'generated_text': 'Ein Hund bellt.'}]
    >>> generate(["A dog barks.", {"text": "Two cats sleep.", "cross_mask": "wait_k(3)"}], batch_size=2)
    [{'generated_text': 'Ein Hund bellt.'}, {'generated_text': 'Zwei Katzen schlafen.'}]
    ```

    An input is a text, or a mapping with `text` and masks of its own (`encoder_mask`, `decoder_mask`, `cross_mask`).
    One input gives a list of its texts, a list gives one for each. A dataset and a generator give an iterator of
    lists.

    The options of a call may also be given to `pipeline(...)`, for all calls. A saved model may have some of its own,
    in its config's `task_specific_params`.

    Args:
        batch_size, num_workers: of the loader, 1 and 0 by default.
        num_return_sequences: texts for each input, which are then always in a list.
        return_alignment: whether to add `alignment`, a list of word pairs with weights (`align`).
        return_scores: whether to add `score`, the mean log-probability of the text's tokens, its end token included.
        return_tensors: whether to add the token ids, under the same key with `token_ids` for `text`.
        return_text: False leaves the text out where token ids are returned.
        overlong: what is done with a text that is longer than the model takes: `error`; `split` generates for each of
            its sentences, and joins the outputs with the whitespace that stood between these; `truncate` cuts the end.
            `truncation=True`, Transformers' own name, is `truncate`.
        splitter: gives the sentences of a text; by default those that end with `.`, `!` or `?` before whitespace, and
            lines. `partial(sentencex.segment, "en")` knows abbreviations.
        max_source_length: the most tokens of a text, prefix and end token included (what the model takes).
        prefix: goes before every text, such as `"translate English to German: "`.
        encoder_mask, decoder_mask, cross_mask: rules for every text, besides those of the model's config.
        clean_up_tokenization_spaces: as of `tokenizer.decode`.
        options: all others are those of `model.generate`, among them `streamer`, for one text and one beam.

    Raises:
        PipelineInputError: an input that is no text, empty or too long, or that has both masks of its own and the
            call's; the message says which.
    """

    tokenizer: Any
    processor: Any
    _load_processor = None  # of a bridge
    _pipeline_calls_generate = True

    return_name: ClassVar[str] = "generated"
    """What the keys of outputs begin with."""
    saved_options: ClassVar[tuple[str, ...]] = ("prefix",)
    """The options that a config may have in `task_specific_params`, besides those of `generate`."""
    attach_masks: ClassVar[Callable[[PreTrainedModel], PreTrainedModel] | None] = None
    """Puts the masks of its config on a model of Transformers; set where the whole package is at hand."""

    def __init__(self, model: PreTrainedModel, **options: Any) -> None:
        check_head(model, GENERATION)
        if (attach := type(self).attach_masks) is not None:
            model = attach(model)
        known = dict.fromkeys([*vars(GenerationConfig()), *self.saved_options])
        options = {**saved_options(model.config, options.get("task", ""), known), **options}
        super().__init__(model=model.eval(), **options)
        if self.tokenizer is None:
            raise PipelineInputError("tokenizer must be given with a model that is not a folder or a name; pass it")
        if self.processor is None and hasattr(self.tokenizer, "encoder_tokenizer"):  # a bridge's, given as tokenizer
            self.processor, self.tokenizer = self.tokenizer, self.tokenizer.encoder_tokenizer
        if self.processor is not None:
            self._generation_defaults.pop("pad_token_id", None)  # the source's
        limit = longest_target(self.model)
        self._generation_defaults["max_new_tokens"] = NEW_TOKENS if limit is None else min(NEW_TOKENS, limit)

    def save_pretrained(self, save_directory: str | os.PathLike[str], **options: Any) -> None:
        """Save the model and its tokenizer, or its processor."""
        super().save_pretrained(save_directory, **options)
        if self.processor is not None:
            self.processor.save_pretrained(save_directory, **options)

    @property
    def target_tokenizer(self) -> PreTrainedTokenizerBase:
        """The tokenizer of what is generated; that of a bridge's decoder."""
        return self.tokenizer if self.processor is None else self.processor.decoder_tokenizer

    def __call__(self, *inputs: Any, **options: Any) -> Any:
        """Generate for one input, or for several: a list, a dataset, a column, a generator."""
        given = inputs[0] if len(inputs) == 1 else list(inputs)
        checked = check_inputs(given, self.check_input)
        if isinstance(checked, list) and not checked:
            return []
        results = super().__call__(checked, **options)
        if isinstance(checked, list) and all(len(texts) == 1 for texts in results):
            return [text for texts in results for text in texts]
        return results

    def check_input(self, item: Any, name: str) -> dict[str, Any]:
        """An input as a mapping with its name, its text and its masks."""
        if not isinstance(item, Mapping):
            return {"name": name, "text": check_text(item, name), "masks": {}}
        check_keys_and_masks(self.model, item, name, ("text",))
        return {"name": name, "text": check_text(item["text"], f"{name}: 'text'"), "masks": masks_of(item)}

    def _sanitize_parameters(
        self,
        return_alignment: bool | None = None,
        return_scores: bool | None = None,
        return_tensors: bool | None = None,
        return_text: bool | None = None,
        overlong: Overlong | None = None,
        truncation: bool | None = None,
        splitter: Splitter | None = None,
        max_source_length: int | None = None,
        prefix: str | None = None,
        clean_up_tokenization_spaces: bool | None = None,
        **generate_options: Any,
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        if truncation is not None:
            if overlong is not None:
                raise PipelineInputError(f"truncation must be left out beside overlong={overlong!r}; give one of them")
            overlong = "truncate" if truncation else "error"
        if overlong is not None and overlong not in get_args(Overlong):
            raise PipelineInputError(f"overlong must be one of {', '.join(get_args(Overlong))}, got {overlong!r}")
        if return_text is False and not return_tensors:
            raise PipelineInputError("return_text=False must come with return_tensors=True; else nothing is returned")
        if splitter is not None and overlong != "split":
            raise PipelineInputError("splitter must come with overlong='split', without which it does nothing")
        preparing = {
            "overlong": overlong,
            "splitter": splitter,
            "max_source_length": max_source_length,
            "prefix": prefix,
            "return_alignment": return_alignment,
        }
        generating = {"return_alignment": return_alignment, "return_scores": return_scores}
        finishing = {
            "return_tensors": return_tensors,
            "return_text": return_text,
            "clean_up_tokenization_spaces": clean_up_tokenization_spaces,
        }
        if return_alignment and getattr(self.model.config, "memory_length", None) is not None:
            raise PipelineInputError(
                "return_alignment must be left out for a model with memory_length, whose decoder looks into a memory "
                "and not at words"
            )
        call_masks(self.model, **{mask: generate_options[mask] for mask in MASKS if mask in generate_options})
        given = ({k: v for k, v in options.items() if v is not None} for options in (preparing, generating, finishing))
        first, second, third = given
        return first, {**second, **generate_options}, third

    def preprocess(
        self,
        item: Mapping[str, Any],
        overlong: Overlong = "error",
        splitter: Splitter | None = None,
        max_source_length: int | None = None,
        prefix: str = "",
        return_alignment: bool = False,
    ) -> Iterator[dict[str, Any]]:
        """The pieces of an input, each with its ids, (1, S)."""
        name, limit = item["name"], max_source_length or longest_text(self.model, self.tokenizer)
        cut = {"truncation": True, "max_length": limit} if overlong == "truncate" and limit is not None else {}
        encode = partial(
            self.tokenizer, return_tensors="pt", return_offsets_mapping=return_alignment, verbose=False, **cut
        )
        if return_alignment and not self.tokenizer.is_fast:
            raise PipelineInputError(
                f"return_alignment must be left out with {type(self.tokenizer).__name__}, which does not tell from "
                "which characters a token is; load a fast tokenizer"
            )
        pieces, carried = whole(item["text"]), self.carried(item)
        encoded = [encode(prefix + item["text"])]
        if overlong == "split" and limit is not None and encoded[0]["input_ids"].shape[1] > limit:
            if item["masks"]:
                raise PipelineInputError(
                    f"{name} must have no masks where its text is to be split, got {', '.join(item['masks'])}; split "
                    "the text, and give each part its own"
                )
            pieces = sentences(item["text"], splitter, name)
            encoded = [encode(prefix + piece.text) for piece in pieces]
        for piece, ids in zip(pieces, encoded, strict=True):
            self._check_length(ids["input_ids"].shape[1], limit, piece, name, overlong)
        for number, (piece, ids) in enumerate(zip(pieces, encoded, strict=True), start=1):
            yield {
                "input_ids": ids["input_ids"],
                "attention_mask": ids["attention_mask"],
                "is_last": number == len(pieces),
                "piece": {"text": piece.text, "start": piece.start, "separator": piece.separator},
                "prefix_length": len(prefix),
                "offsets": ids["offset_mapping"][0].tolist() if return_alignment else [],
                "masks": item["masks"],
                "name": name,
                **carried,
            }

    @staticmethod
    def _check_length(length: int, limit: int | None, piece: Piece, name: str, overlong: Overlong) -> None:
        if overlong == "error":
            check_length(length, limit, name, "shorten it, or give overlong='split' or 'truncate'")
        else:
            check_length(length, limit, f"{name}: the sentence {piece.text[:40]!r}...", "shorten it")

    def _forward(
        self,
        batch: Mapping[str, Any],
        return_alignment: bool = False,
        return_scores: bool = False,
        **options: Any,
    ) -> dict[str, list[Any]]:
        """The generated sequences of each piece of a batch; pieces under the same masks are generated together."""
        rows = _rows_of(batch)
        masks_of_call = {name: options.pop(name) for name in MASKS if options.get(name) is not None}
        if "max_length" in options and self.model.generation_config.max_new_tokens is not None:
            # `generate` would go by the model's `max_new_tokens`; `max_length` counts the start token.
            options.setdefault("max_new_tokens", options.pop("max_length") - 1)
        generated: list[Any] = [None] * len(rows)
        for members, masks in group_by_masks(rows, masks_of_call):
            inputs = rows_of_batch({name: batch[name] for name in ("input_ids", "attention_mask")}, members)
            own_options = self.constrained([rows[member] for member in members], options)
            sequences = self.model.generate(**inputs, **masks, **self._prepare_generate_kwargs(own_options))
            if not isinstance(sequences, torch.Tensor):
                sequences = sequences.sequences
            sequences = sequences.reshape(len(members), -1, sequences.shape[-1])
            for index, row in enumerate(members):
                own = {name: tensor[index : index + 1] for name, tensor in inputs.items()}
                result: dict[str, Any] = {"sequences": sequences[index]}
                if return_alignment or return_scores:
                    ends = self._ends(sequences[index])
                    logs, weights = read_again(self.model, own, sequences[index], masks, return_alignment)
                    if return_scores:
                        result["logs"] = [row[:end].tolist() for row, end in zip(logs, ends, strict=True)]
                    if weights is not None:
                        seen = own["attention_mask"][0].bool()
                        result["weights"] = [row[:end, seen] for row, end in zip(weights, ends, strict=True)]
                generated[row] = result
        kept = {key: [row[key] for row in rows] for key in ("piece", "offsets", "prefix_length")}
        return {"generated": generated, **kept, "is_last": batch["is_last"]}

    def carried(self, item: Mapping[str, Any]) -> dict[str, Any]:
        """What `constrained` needs of an input, without tensors."""
        return {}

    def constrained(self, rows: Sequence[Mapping[str, Any]], options: Mapping[str, Any]) -> dict[str, Any]:
        """Options of `generate` for some pieces of a batch, by what is carried with each."""
        return dict(options)

    def _ends(self, sequences: torch.Tensor) -> list[int]:
        """How many tokens of each sequence count, the end token included, the start token not."""
        ends = self.model.generation_config.eos_token_id
        eos = torch.tensor([] if ends is None else ends, device=sequences.device).reshape(-1)
        is_end = torch.isin(sequences[:, 1:], eos)
        length = is_end.shape[1]
        return [int(row.int().argmax()) + 1 if row.any() else length for row in is_end]

    def postprocess(
        self,
        parts: Sequence[Mapping[str, Any]],
        return_tensors: bool = False,
        return_text: bool = True,
        clean_up_tokenization_spaces: bool | None = None,
    ) -> list[dict[str, Any]]:
        """The outputs of an input's pieces, joined, one for each of the returned sequences."""
        rows = [_alone(part) for part in parts]
        decode = partial(
            self.target_tokenizer.decode,
            skip_special_tokens=True,
            clean_up_tokenization_spaces=clean_up_tokenization_spaces,
        )
        results = []
        for number in range(len(rows[0]["generated"]["sequences"])):
            texts = [str(decode(row["generated"]["sequences"][number])) for row in rows]
            separators = [row["piece"]["separator"] for row in rows]
            result = self.result(join(texts, separators)) if return_text else {}
            if return_tensors:
                tokens = [row["generated"]["sequences"][number] for row in rows]
                result[f"{self.return_name}_token_ids"] = torch.cat(tokens)
            if "logs" in rows[0]["generated"]:
                logs = [value for row in rows for value in row["generated"]["logs"][number]]
                result["score"] = sum(logs) / len(logs)
            if "weights" in rows[0]["generated"]:
                result["alignment"] = self._alignment(rows, number, texts)
            results.append(result)
        return results

    def result(self, text: str) -> dict[str, Any]:
        """What is returned for a generated text."""
        return {f"{self.return_name}_text": text}

    def _alignment(self, rows: Sequence[Mapping[str, Any]], number: int, texts: Sequence[str]) -> list[dict[str, Any]]:
        pairs, written = [], 0
        for row, text in zip(rows, texts, strict=True):
            weights = row["generated"]["weights"][number]
            ids = row["generated"]["sequences"][number, 1 : 1 + len(weights)].tolist()
            piece, shift = row["piece"], row["prefix_length"]
            offsets = [(first - shift, last - shift) for first, last in row["offsets"]]
            spans = target_offsets(self.target_tokenizer, ids)
            for pair in align(weights, piece["text"], offsets, text, spans):
                for side, by in (("source_span", piece["start"]), ("target_span", written)):
                    pair[side] = tuple(place + by for place in pair[side])
                pairs.append(pair)
            written += len(text) + len(piece["separator"])
        return pairs


def _rows_of(batch: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What a batch has of each row besides tensors; a batch of one, which is not collated, has it as it is."""
    names = [name for name, value in batch.items() if not isinstance(value, torch.Tensor)]
    if not isinstance(batch["piece"], list):
        return [{name: batch[name] for name in names}]
    return [{name: batch[name][row] for name in names} for row in range(len(batch["piece"]))]


def _alone(part: Mapping[str, Any]) -> dict[str, Any]:
    """A piece's output, which the loader gives as a batch of one or, of a larger batch, by itself."""
    is_batch = isinstance(part["generated"], list)
    return {name: value[0] if is_batch else value for name, value in part.items()}
