"""A model as the page asks it: tokens, an output with attention weights, a stream of words, an audit."""

import hashlib
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import asdict
from functools import cached_property
from random import Random
from typing import Any

import torch

from ..auditing import audit
from ..auditing.expected_masks import actual_masks
from ..inference.texts import tokenizers_of
from ..masks.scope import SCOPES
from ..pipelines.saved_options import saved_prefix
from ..seq2seq.attention_weights import attending_eagerly
from ..seq2seq.lengths import longest_source, longest_target
from ..streaming.text import TextStream
from ..utils.errors import InputError
from ..utils.text import is_blank
from .question import TEXT_LIMIT, TOKENS_LIMIT, Question
from .words import show_tokens, source_tokens

_REPLACEMENTS = 500
"""How many tokens stand in for hidden ones."""

_EXAMPLES = ("Two men are at work.", "A small dog barks loudly at two cats.", "The old man reads on the train.")
_SIGNED_EXAMPLES = (
    "<2de> 27 light years; 24 g; Yoruba or Uzbek",
    "<2fr> 7 decades; Esperanto and Kannada",
    "<2zh> Mon, Sep 27 – Fri, Oct 1, 1993",
)


class ExploredModel:
    """A model and its tokenizer; one thread calls it at a time.

    Args:
        model: an encoder-decoder that takes masks. name: shown in the page.
    """

    def __init__(self, model: Any, tokenizer: Any, name: str):
        self.model, self.tokenizer, self.name = model.eval(), tokenizer, name
        tokenizers: tuple[Any, Any] = tokenizers_of(tokenizer)
        self.source_tokenizer, self.target_tokenizer = tokenizers
        self.prefix = saved_prefix(model.config, "translation")
        self.longest_source = min(longest_source(model) or TOKENS_LIMIT, TOKENS_LIMIT)
        # One position is the start token's.
        positions = (longest_target(model) or TOKENS_LIMIT + 1) - 1
        self.longest_target = min(positions, model.generation_config.max_new_tokens or TOKENS_LIMIT, TOKENS_LIMIT)

    @cached_property
    def facts(self) -> dict[str, Any]:
        """What the page knows of the model: its own masks, the numbers of layers and heads by scope, and limits."""
        ids = torch.tensor([self.source_tokenizer("a").input_ids], device=self.model.device)
        start = torch.tensor([[self.model.generation_config.decoder_start_token_id or 0]], device=self.model.device)
        inputs = {"input_ids": ids, "decoder_input_ids": start}
        with torch.no_grad(), attending_eagerly(self.model):
            output = self.model(**inputs, output_attentions=True)
        masks = actual_masks(self.model, inputs, {"source": ids, "target": start})
        names = {"encoder": "encoder_attentions", "decoder": "decoder_attentions", "cross": "cross_attentions"}
        weights = {scope: _weights(getattr(output, name, None)) for scope, name in names.items()}
        return {
            "name": self.name,
            "kind": "server",
            "masks": {scope: str(getattr(masks, f"{scope}_mask")) for scope in SCOPES},
            "layers": {scope: len(of_layers) or 1 for scope, of_layers in weights.items()},
            "heads": {scope: of_layers[0].shape[1] if of_layers else 1 for scope, of_layers in weights.items()},
            "limits": {"characters": TEXT_LIMIT, "source": self.longest_source, "target": self.longest_target},
            "streams": hasattr(self.model, "open_stream"),
            "examples": self._examples(),
        }

    def _examples(self) -> list[str]:
        """Sentences to begin with, as the model reads them: with a sign of a language, or with its saved prefix."""
        known = self.source_tokenizer.get_vocab()
        signed = [text for text in _SIGNED_EXAMPLES if text.partition(" ")[0] in known]
        if signed:
            return signed
        prefixed = [self.prefix + text for text in _EXAMPLES]
        return [text for text in prefixed if self._fits(text)] or list(_EXAMPLES)

    def _fits(self, text: str) -> bool:
        return len(text) <= TEXT_LIMIT and len(self.source_tokenizer(text).input_ids) <= self.longest_source

    def source(self, text: str) -> tuple[list[int], list[dict[str, Any]]]:
        """The token ids of a text, and each token as the page shows it.

        Raises:
            InputError: a text without tokens, or with more than the page shows.
        """
        ids, tokens = source_tokens(self.source_tokenizer, text) if not is_blank(text) else ([], [])
        if not ids:
            raise InputError("the sentence must have a word; write one")
        if len(ids) > self.longest_source:
            raise InputError(
                f"the sentence must have at most {self.longest_source} tokens, got {len(ids)}; shorten it"
            )
        return ids, [asdict(token) for token in tokens]

    def translate(self, question: Question) -> dict[str, Any]:
        """The greedy output under the masks, with the weights of interactive attention.

        Raises:
            InputError: a sentence that is too long, hidden tokens that do not exist.
            MaskError: masks that do not fit.
        """
        read, tokens = self.source(question.text)
        ids, masks = self._replaced(read, question), question.masks()
        source = torch.tensor([ids], device=self.model.device)
        inputs = {"input_ids": source, "attention_mask": torch.ones_like(source), **masks}
        with torch.no_grad(), attending_eagerly(self.model):
            target = self._generate(inputs)
            output = self.model(**inputs, decoder_input_ids=target[:, :-1], output_attentions=True)
        written = target[0, 1:].tolist()
        logits = output.logits.float().cpu().contiguous()
        return {
            "tokens": tokens,
            "read": show_tokens(self.source_tokenizer, ids),
            "target": show_tokens(self.target_tokenizer, written),
            "text": self.target_tokenizer.decode(written, skip_special_tokens=True),
            "attention": _packed(_weights(output.cross_attentions)),
            "digest": hashlib.sha256(logits.numpy().tobytes()).hexdigest()[:16],
        }

    def stream(self, question: Question) -> Iterator[dict[str, Any]]:
        """Source words pushed one by one: after each, how many were read, and the target words that it completed.

        Raises:
            InputError, MaskError: masks under which the model cannot stream.
        """
        self.source(question.text)
        words = question.text.split()
        options: dict[str, Any] = {**question.masks(), "max_new_tokens": self.longest_target}
        stream = TextStream(self.model, self.tokenizer, 1, num_beams=1, do_sample=False, **options)
        for number, word in enumerate(words, start=1):
            written = stream.push([[word]], ended=number == len(words))[0]
            yield {"read": number, "word": word, "written": written, "finished": stream.finished[0]}
            if stream.finished[0]:
                return

    def audit(self, question: Question) -> dict[str, Any]:
        """Whether the model reads only what the masks allow, measured on the sentence and its output.

        Raises:
            InputError, MaskError: as `translate`.
        """
        ids, masks = self._replaced(self.source(question.text)[0], question), question.masks()
        source = torch.tensor([ids], device=self.model.device)
        with torch.no_grad():
            target = self._generate({"input_ids": source, "attention_mask": torch.ones_like(source), **masks})
        batch = {"input_ids": source, "decoder_input_ids": target[:, :-1], **masks}
        report = audit(self.model, batch, tokenizer=self.target_tokenizer)
        return {"ok": report.ok, "report": str(report), "leaks": len(report.leaks)}

    def _generate(self, inputs: dict[str, Any]) -> torch.Tensor:
        generated = self.model.generate(**inputs, num_beams=1, do_sample=False, max_new_tokens=self.longest_target)
        result: torch.Tensor = generated if isinstance(generated, torch.Tensor) else generated.sequences
        return result

    def _replaced(self, ids: list[int], question: Question) -> list[int]:
        """The ids with the hidden tokens, or those named, replaced by others."""
        for name in ("hidden", "replaced"):
            if (positions := getattr(question, name)) and positions[-1] >= len(ids):
                raise InputError(f"{name} must name tokens from 0 to {len(ids) - 1}, got {positions[-1]}")
        if not question.replacement:
            return ids
        draw = Random(question.replacement)
        chosen = set(question.replaced or question.hidden)
        return [
            draw.choice([other for other in self.others if other != token]) if position in chosen else token
            for position, token in enumerate(ids)
        ]

    @cached_property
    def others(self) -> list[int]:
        """Tokens that read as words."""
        tokenizer = self.source_tokenizer
        special = {*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder}
        size = min(len(tokenizer), self.model.get_input_embeddings().num_embeddings)
        numbers = [number for number in range(size) if number not in special]
        sample = Random(0).sample(numbers, min(4 * _REPLACEMENTS, len(numbers)))
        words = [number for number in sample if len(tokenizer.decode([number]).strip()) > 1]
        return (words if len(words) > 1 else sample)[:_REPLACEMENTS]


def _weights(of_layers: Any) -> list[torch.Tensor]:
    return [weights for weights in of_layers or () if weights is not None]


def _packed(of_layers: list[torch.Tensor]) -> dict[str, Any]:
    """Weights of L layers, each (1, H, T, S), as bytes: 255 stands for 1, which is as fine as a page can show."""
    weights = torch.stack([weights[0].float() for weights in of_layers])
    data = (weights.clamp(0, 1) * 255).round().to(torch.uint8).cpu().contiguous()
    names = ("layers", "heads", "rows", "columns")
    return {**dict(zip(names, data.shape, strict=True)), "data": b64encode(data.numpy().tobytes()).decode()}
