"""Tasks of models with a head on an encoder: what such models are built from, and what they are given."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch.nn.functional import cross_entropy
from transformers import CONFIG_MAPPING, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from ..configuration.crossmask import CrossMaskConfig
from ..heads.base import EncoderHeadModel
from ..seq2seq.decoder_inputs import IGNORED
from ..utils.errors import InputError
from ..utils.type_checks import check_choice
from .base import Example, LengthLimits, Task
from .vocabulary import check_vocabulary


class EncoderHead(Task):
    """A kind of tasks: an encoder reads a text, and a head on it answers with classes, tags or spans.

    Models are those of `auto_class`: one of crossmask on a pretrained encoder (a recipe's `encoder_name_or_path`) or
    on a new one, by default the encoder of crossmask's own network, or a model of Transformers to fine-tune
    (`model_name_or_path`).

    Attributes:
        head_class: the class of crossmask. model_mapping: the configs that `auto_class` knows.
        class_names: the classes in the order of their numbers; None where the head has none.
    """

    head_class: ClassVar[type[EncoderHeadModel]]
    model_mapping: ClassVar[Any]
    length_fields = ("max_source_length",)
    adds_head = True
    unused_fields = {
        **dict.fromkeys(
            ("max_target_length", "target_row_length", "source_row_length"), "there is a source alone to read"
        ),
        **dict.fromkeys(("generation", "generation_num_beams"), "nothing is generated"),
        "multipath_k": "nothing is translated",
        **dict.fromkeys(("source_language", "target_language"), "nothing is translated"),
    }

    @property
    def class_names(self) -> tuple[str, ...] | None:
        return None

    @property
    def class_fields(self) -> dict[str, Any]:
        """The fields of a config that name the classes."""
        if (names := self.class_names) is None:
            return {}
        return {"id2label": dict(enumerate(names)), "label2id": {name: at for at, name in enumerate(names)}}

    @property
    def new_fields(self) -> dict[str, Any]:
        """The fields of a new model's config that follow from the task."""
        return self.class_fields

    @property
    def head_config_class(self) -> Any:
        """Of the models of crossmask."""
        return self.head_class.config_class

    def config_class(self, fields: Mapping[str, Any]) -> type[PreTrainedConfig]:
        known = self.head_config_class.model_type
        if (given := fields.get("model_type", known)) != known:
            raise InputError(
                f"model.model_type must be {known}, got {given!r}; leave it out, and give encoder_name_or_path or "
                "model.encoder"
            )
        return self.head_config_class

    def check_config(self, config: PreTrainedConfig) -> None:
        if type(config) not in self.model_mapping:
            raise InputError(f"it is a {config.model_type} model; give one that {self.auto_class.__name__} loads")

    def changes_of_saved(self, config: PreTrainedConfig) -> dict[str, Any]:
        names, saved = self.class_names, classes_of(config)
        if names is None or saved == list(names):
            return {}
        if self.has_head(config) and not is_unnamed(saved, len(names)):
            raise self._other_classes(saved, "change the task options, or build a new head by encoder_name_or_path")
        return self.class_fields

    def check_trained(self, config: PreTrainedConfig) -> None:
        self.class_order(config)

    @classmethod
    def has_head(cls, config: PreTrainedConfig) -> bool:
        """Whether a saved model has a head of the kind already, by its config."""
        head = cls.auto_class.__name__.removeprefix("AutoModel")
        return any(name.endswith(head) for name in config.architectures or ())

    def class_order(self, config: PreTrainedConfig) -> list[int] | None:
        """Which class of a model each class of the task is, None where they have the same numbers.

        Raises:
            InputError: the model has other classes.
        """
        names, saved = self.class_names, classes_of(config)
        if names is None or saved == list(names) or is_unnamed(saved, len(names)):
            return None
        if sorted(saved) != sorted(names):
            raise self._other_classes(saved, "change the task options")
        return [saved.index(name) for name in names]

    def _other_classes(self, saved: Sequence[str], fix: str) -> InputError:
        names = self.class_names or ()
        return InputError(
            f"it has a head of {len(saved)} classes ({', '.join(saved[:8])}), which must be the {len(names)} of the "
            f"task ({', '.join(names[:8])}); {fix}"
        )

    def new_config(
        self, config_class: type[PreTrainedConfig], sizes: Mapping[str, Any], fields: Mapping[str, Any]
    ) -> PreTrainedConfig:
        given = fields.get("encoder") or {}
        if not isinstance(given, Mapping):
            raise InputError(f"model.encoder must be a mapping of the encoder's fields, got {given!r}")
        model_type = given.get("model_type", CrossMaskConfig.model_type)
        if model_type != CrossMaskConfig.model_type:
            check_choice("model.encoder.model_type", model_type, sorted([CrossMaskConfig.model_type, *CONFIG_MAPPING]))
        own = dict(sizes)
        if model_type == CrossMaskConfig.model_type and own.get("bos_token_id") is not None:
            own["decoder_start_token_id"] = own["bos_token_id"]
        encoder = {**own, **given, "model_type": model_type}
        return config_class(**{**self.new_fields, **fields, "encoder": encoder})

    def config_on_encoder(self, encoder: PreTrainedConfig, fields: Mapping[str, Any]) -> PreTrainedConfig:
        return self.head_config_class(encoder=encoder, **self._fields_on_encoder(fields))

    def from_encoder(self, name: str, fields: Mapping[str, Any], options: Mapping[str, Any]) -> PreTrainedModel:
        return self.head_class.from_encoder_pretrained(
            name, encoder_kwargs=dict(options), **self._fields_on_encoder(fields)
        )

    def _fields_on_encoder(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        """The fields of a config but for its encoder and type. Raises InputError where they have an encoder."""
        if "encoder" in fields:
            raise InputError("model.encoder must be left out beside encoder_name_or_path, which gives it")
        return {**self.new_fields, **{key: value for key, value in fields.items() if key != "model_type"}}

    def check_tokenizer(self, tokenizer: PreTrainedTokenizerBase, config: PreTrainedConfig) -> None:
        if not tokenizer.is_fast:
            raise InputError("the tokenizer must tell from which characters a token is; give a fast one")
        if tokenizer.pad_token_id is None:
            raise InputError("the tokenizer must have a pad_token; set it and save it")
        check_vocabulary(tokenizer, config)

    def default_generation(self, limits: LengthLimits) -> dict[str, int]:
        return {}

    def texts(self, example: Example) -> tuple[str, ...]:
        return (example.source,)

    def check_overlong(self, limits: LengthLimits, choices: Sequence[str], reason: str) -> None:
        """Refuse what the kind cannot do with a text over the limit. Raises InputError."""
        if limits.overlong not in choices:
            known = ", ".join(choices[:-1])
            raise InputError(
                f"overlong must be {known} or {choices[-1]} for task {self.name}, got {limits.overlong}{reason}"
            )

    def fits(self, what: str, length: int, limits: LengthLimits) -> bool:
        """Whether a text of that many tokens is kept; `what` is what errors call it.

        Raises:
            InputError: it is too long, and `overlong` is `"error"`.
        """
        if length > limits.max_source_length and limits.overlong == "error":
            raise InputError(
                f"{what} has {length} tokens and max_source_length is {limits.max_source_length}: raise it, or set "
                "overlong to truncate or drop"
            )
        return length <= limits.max_source_length

    def scores_and_loss(
        self, model: PreTrainedModel, batch: Mapping[str, torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """The scores of the task's classes, (B, C) or (B, S, C) float32, and the loss as `BatchResult` has it."""
        taken = inspect.signature(model.forward).parameters.keys() - {"labels"}
        logits = model(**{name: batch[name] for name in taken & batch.keys()}).logits.float()
        if (order := self.class_order(model.config)) is not None:
            logits = logits[..., order]
        if (labels := batch.get("labels")) is None:
            return logits, None
        summed = cross_entropy(logits.flatten(0, -2), labels.flatten(), ignore_index=IGNORED, reduction="sum")
        return logits, torch.stack([summed.double(), (labels != IGNORED).sum().double()])


def classes_of(config: PreTrainedConfig) -> list[str]:
    """The names of a model's classes, in the order of their numbers."""
    names: dict[Any, Any] = dict(config.id2label or {})
    return [str(names[at]) for at in sorted(names)]


def is_unnamed(saved: Sequence[str], number: int) -> bool:
    """Whether classes have the names that Transformers gives them by itself, and there are `number` of them."""
    return list(saved) == [f"LABEL_{at}" for at in range(number)]
