"""The two tokenizers of a bridge as one processor: the encoder's for sources, the decoder's for targets."""

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from transformers import AutoTokenizer, BatchEncoding, PreTrainedTokenizerBase, ProcessorMixin
from transformers.dynamic_module_utils import custom_object_save
from transformers.utils import logging

from ..seq2seq.decoder_inputs import IGNORED, pad_targets

logger = logging.get_logger(__name__)

Conversation = Sequence[Mapping[str, Any]]
_PROCESSOR_FILE = "processor_config.json"
_DECODER_FOLDER = "decoder_tokenizer"


class CrossMaskBridgeProcessor(ProcessorMixin):
    """Tokenizes sources and targets, each by its own tokenizer.

    ```python
    >>> processor = CrossMaskBridgeProcessor(encoder_tokenizer, decoder_tokenizer)
    >>> inputs = processor(text=["a dog"], text_target=["ein Hund"], padding=True, return_tensors="pt")
    >>> loss = model(**inputs).loss
    >>> texts = processor.batch_decode(model.generate(inputs["input_ids"]), skip_special_tokens=True)
    ```

    A target is the text's tokens and the end token, without a leading beginning token: the decoder begins with
    `decoder_start_token_id`. Padding of labels is -100, found by length, since padding and end are one token in some
    vocabularies. Saved, the encoder's tokenizer is in the folder itself and the decoder's in `decoder_tokenizer/`.

    Args:
        encoder_tokenizer: for sources, as it is.
        decoder_tokenizer: for targets; the encoder's by default, where both parts share a vocabulary. One without
            a padding token pads with the end token, which is not set in it.

    Attributes:
        tokenizer: the decoder's, of which Transformers takes a model's special tokens, as in `Trainer`.

    Raises:
        TypeError: a tokenizer that is none.
        ValueError: an encoder's without padding token, a decoder's without end token.
    """

    code_classes: ClassVar[Mapping[str, str]] = {"AutoProcessor": "modeling_crossmask.CrossMaskBridgeProcessor"}
    code_writer: ClassVar[Callable[[str | os.PathLike[str]], None] | None] = None

    encoder_tokenizer: PreTrainedTokenizerBase
    decoder_tokenizer: PreTrainedTokenizerBase

    def __init__(
        self, encoder_tokenizer: PreTrainedTokenizerBase, decoder_tokenizer: PreTrainedTokenizerBase | None = None
    ):
        if decoder_tokenizer is None:
            decoder_tokenizer = encoder_tokenizer
        super().__init__(encoder_tokenizer, decoder_tokenizer)
        if encoder_tokenizer.pad_token_id is None:
            raise ValueError(
                "encoder_tokenizer must have a padding token, got none; set encoder_tokenizer.pad_token to the one "
                "that the encoder was trained with"
            )
        if decoder_tokenizer.eos_token_id is None:
            raise ValueError(
                "decoder_tokenizer must have an end token, got none; set decoder_tokenizer.eos_token to the one that "
                "the decoder was trained with"
            )
        if decoder_tokenizer.pad_token_id is None:
            logger.warning(
                f"decoder_tokenizer has no padding token: targets are padded with {decoder_tokenizer.eos_token!r}, "
                "its end token, and the loss ignores padding by length"
            )

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        return self.decoder_tokenizer

    @property
    def shared(self) -> bool:
        """Whether one tokenizer serves both sides."""
        return self.encoder_tokenizer is self.decoder_tokenizer

    @property
    def pad_token_id(self) -> int:
        """What targets are padded with."""
        token: int | None = self.decoder_tokenizer.pad_token_id
        return self.eos_token_id if token is None else token

    @property
    def eos_token_id(self) -> int:
        token: int = self.decoder_tokenizer.eos_token_id
        return token

    @property
    def decoder_start_token_id(self) -> int:
        """What the decoder begins with: the beginning token, or else the end token."""
        token: int | None = self.decoder_tokenizer.bos_token_id
        return self.eos_token_id if token is None else token

    @property
    def special_token_ids(self) -> dict[str, int | None]:
        """The target's special tokens, by the names of their fields in [`CrossMaskBridgeConfig`].

        `from_encoder_decoder_pretrained(encoder, decoder, **processor.special_token_ids)` has the model agree with
        the tokenizer where the decoder's config does not.
        """
        return {
            "pad_token_id": self.pad_token_id,
            "bos_token_id": self.decoder_tokenizer.bos_token_id,
            "eos_token_id": self.eos_token_id,
            "decoder_start_token_id": self.decoder_start_token_id,
        }

    @property
    def model_input_names(self) -> list[str]:
        return ["input_ids", "attention_mask"]

    def __call__(
        self,
        text: str | Sequence[str] | None = None,
        text_target: str | Sequence[str] | None = None,
        *,
        decoder_prefix: str | Conversation | Sequence[str | Conversation] | None = None,
        max_length: int | None = None,
        max_target_length: int | None = None,
        padding: bool = False,
        return_tensors: str | None = None,
    ) -> BatchEncoding:
        """Texts to what the model reads.

        Args:
            text: sources, one text or a list of B.
            text_target: targets, of the same number.
            decoder_prefix: what the decoder reads before the target, and the loss ignores: a text, or a conversation
                (a list of messages) that the decoder's chat template renders, up to where the answer begins. One for
                all examples, or a list of B.
            max_length, max_target_length: the most tokens of a source and of a target, both with their special
                tokens; longer ones are cut, and keep these.
            padding: to the longest of the batch, sources on the side of their tokenizer.
            return_tensors: `"pt"` for tensors, lists by default.

        Returns:
            `input_ids`, `attention_mask` (B, S) of sources, `labels` (B, T) of targets. With `decoder_prefix` and
            padding also `decoder_input_ids` and `decoder_attention_mask` (B, T): with targets those that `labels`
            are aligned to, without those that `generate()` continues, padded on the left. With `decoder_prefix`, not
            padded, `decoder_prefix_ids`, for `Seq2SeqCollator`. One text that is not padded gives lists of its own.

        Raises:
            ValueError: texts of different numbers, no text, or lengths and formats that do not exist.
            TypeError: something that is not a text.
        """
        sources, targets = _as_texts(text, "text"), _as_texts(text_target, "text_target")
        if sources is None and targets is None:
            raise ValueError("text or text_target must be given, got neither")
        count = len(targets if sources is None else sources)  # type: ignore[arg-type]
        if targets is not None and len(targets) != count:
            raise ValueError(f"text_target must have one text for each of text's {count}, got {len(targets)}")
        for name, value in (("max_length", max_length), ("max_target_length", max_target_length)):
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if return_tensors not in (None, "pt"):
            raise ValueError(f'return_tensors must be "pt" or None, got {return_tensors!r}')
        if return_tensors is not None and not padding and count > 1:
            raise ValueError('padding must be True where return_tensors is "pt" and there are several texts')
        prefixes = None if decoder_prefix is None else self._prefix_ids(decoder_prefix, count)
        labels = None if targets is None else [self._target_ids(target, max_target_length) for target in targets]
        data: dict[str, Any] = {}
        if sources is not None:
            data |= self._source_ids(sources, max_length)
        if not padding and return_tensors is None:
            data |= {} if labels is None else {"labels": labels}
            data |= {} if prefixes is None else {"decoder_prefix_ids": prefixes}
            single = isinstance(text_target if sources is None else text, str)
            return BatchEncoding({name: rows[0] for name, rows in data.items()} if single else data)
        if sources is not None:
            data = dict(self.encoder_tokenizer.pad(data, padding=True, return_tensors="pt"))
        if labels is not None:
            data |= self._padded_targets(labels, prefixes)
        elif prefixes is not None:
            data |= self._padded_prefixes(prefixes)
        return BatchEncoding(data if return_tensors else {name: rows.tolist() for name, rows in data.items()})

    def _source_ids(self, sources: list[str], max_length: int | None) -> dict[str, list[list[int]]]:
        options = {"return_token_type_ids": False, "return_attention_mask": True, "verbose": False}
        return dict(
            self.encoder_tokenizer(sources, truncation=max_length is not None, max_length=max_length, **options)
        )

    def _target_ids(self, target: str, max_length: int | None) -> list[int]:
        tokens = self._without_start(self._plain_ids(target))
        if tokens and tokens[-1] == self.eos_token_id:
            tokens = tokens[:-1]
        return [*tokens[: None if max_length is None else max_length - 1], self.eos_token_id]

    def _prefix_ids(self, prefix: str | Conversation | Sequence[str | Conversation], count: int) -> list[list[int]]:
        one_for_all = isinstance(prefix, str) or (len(prefix) > 0 and isinstance(prefix[0], Mapping))
        prefixes: Sequence[Any] = [prefix] * count if one_for_all else prefix
        if len(prefixes) != count:
            raise ValueError(
                f"decoder_prefix must be one for all, or one for each of {count} texts, got {len(prefixes)}"
            )
        return [
            self._without_start(self._plain_ids(each) if isinstance(each, str) else self._rendered_ids(each))
            for each in prefixes
        ]

    def _plain_ids(self, text: str) -> list[int]:
        return list(self.decoder_tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])

    def _rendered_ids(self, conversation: Conversation) -> list[int]:
        tokens: Any = self.decoder_tokenizer.apply_chat_template(
            [dict(message) for message in conversation], add_generation_prompt=True, return_dict=False
        )
        return list(tokens)

    def _without_start(self, tokens: list[int]) -> list[int]:
        """Without the beginning token, which the decoder's inputs begin with already."""
        beginning = self.decoder_tokenizer.bos_token_id
        return tokens[1:] if beginning is not None and tokens[:1] == [beginning] else tokens

    def _padded_targets(self, labels: list[list[int]], prefixes: list[list[int]] | None) -> dict[str, torch.Tensor]:
        before = [[]] * len(labels) if prefixes is None else prefixes
        rows = [(prefix + target, len(prefix)) for prefix, target in zip(before, labels, strict=True)]
        padded = pad_targets(rows, self.decoder_start_token_id, self.pad_token_id)
        # Without a prefix, the model makes the decoder's inputs of the labels.
        return padded if prefixes is not None else {"labels": padded["labels"]}

    def _padded_prefixes(self, prefixes: list[list[int]]) -> dict[str, torch.Tensor]:
        rows = [torch.tensor([self.decoder_start_token_id, *prefix]) for prefix in prefixes]
        pad = torch.nn.utils.rnn.pad_sequence
        return {
            "decoder_input_ids": pad(rows, True, self.pad_token_id, "left"),
            "decoder_attention_mask": pad([torch.ones_like(row) for row in rows], True, 0, "left"),
        }

    def batch_decode(self, token_ids: Any, **options: Any) -> list[str]:
        """Texts of targets, (B, T) ids or labels; -100 counts as padding. Options as those of a tokenizer's."""
        return [self.decode(row, **options) for row in token_ids]

    def decode(self, token_ids: Any, **options: Any) -> str:
        """The text of one target, (T,) ids or labels; -100 counts as padding. Options as those of a tokenizer's."""
        tokens = torch.as_tensor(token_ids)
        tokens = tokens.masked_fill(tokens == IGNORED, self.pad_token_id)
        return str(self.decoder_tokenizer.decode(tokens, **options))

    def apply_chat_template(self, conversation: Any, *args: Any, **kwargs: Any) -> Any:
        """As the decoder's tokenizer does."""
        return self.decoder_tokenizer.apply_chat_template(conversation, *args, **kwargs)

    def to_dict(self) -> dict[str, Any]:
        return {**super().to_dict(), "shared": self.shared}

    def save_pretrained(
        self, save_directory: str | os.PathLike[str], push_to_hub: bool = False, **kwargs: Any
    ) -> list[str]:
        """Save both tokenizers, and the code files that `trust_remote_code=True` needs beside them.

        Args:
            push_to_hub, kwargs: upload to the Hub too, as [`~PushToHubMixin.push_to_hub`] does.
        """
        os.makedirs(save_directory, exist_ok=True)
        if (write := type(self).code_writer) is not None:
            write(save_directory)
            self.auto_map = dict(type(self).code_classes)
        elif self._auto_class is not None:  # loaded from code files
            custom_object_save(self, save_directory, config=[self])  # type: ignore[arg-type]
        self.encoder_tokenizer.save_pretrained(save_directory)
        if not self.shared:
            self.decoder_tokenizer.save_pretrained(os.path.join(save_directory, _DECODER_FOLDER))
        path = os.path.join(save_directory, _PROCESSOR_FILE)
        self.to_json_file(path)
        if push_to_hub:
            self.push_to_hub(kwargs.pop("repo_id", os.path.basename(os.path.normpath(save_directory))), **kwargs)
        return [path]

    @classmethod
    def from_pretrained(  # type: ignore[override]  # with the same meaning
        cls, pretrained_model_name_or_path: str | os.PathLike[str], **kwargs: Any
    ) -> "CrossMaskBridgeProcessor":
        """Load what `save_pretrained` saved, from a folder or the Hub; arguments as those of a tokenizer's.

        Raises:
            OSError: there is no such folder or file.
            ValueError: no processor of a bridge was saved there.
        """
        saved, _ = cls.get_processor_dict(pretrained_model_name_or_path, **kwargs)
        if "shared" not in saved:
            raise ValueError(
                f"{pretrained_model_name_or_path} must have a {_PROCESSOR_FILE} of a bridge's processor, got none; "
                "build CrossMaskBridgeProcessor(encoder_tokenizer, decoder_tokenizer) and save it there"
            )
        encoder_tokenizer = AutoTokenizer.from_pretrained(pretrained_model_name_or_path, **kwargs)
        if saved["shared"]:
            return cls(encoder_tokenizer)
        kwargs["subfolder"] = os.path.join(kwargs.get("subfolder") or "", _DECODER_FOLDER)
        return cls(encoder_tokenizer, AutoTokenizer.from_pretrained(pretrained_model_name_or_path, **kwargs))


def _as_texts(text: str | Sequence[str] | None, name: str) -> list[str] | None:
    if text is None:
        return None
    texts = [text] if isinstance(text, str) else list(text)
    if not texts:
        raise ValueError(f"{name} must have at least one text, got an empty list")
    if wrong := [type(each).__name__ for each in texts if not isinstance(each, str)]:
        raise TypeError(f"{name} must be a text or a list of texts, got {wrong[0]}")
    return texts
