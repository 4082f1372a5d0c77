"""What the configs of all models have: three masks as text, checked when they are set, and code files beside them."""

import os
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from huggingface_hub.errors import StrictDataclassFieldValidationError
from transformers import PreTrainedConfig

from ..masks.expressions import Mask, MaskError
from ..masks.scope import Scope
from .layer_masks import as_text, check_heads, check_lasting, masks_of_layers

MASK_FIELDS = ("encoder_mask", "decoder_mask", "cross_mask")


class MaskedConfig(PreTrainedConfig):
    """A config with `encoder_mask`, `decoder_mask` and `cross_mask`; a mask value is kept as its text.

    Attributes:
        code_classes: what `auto_map` says when it is saved: the Auto classes, and the classes in the code files.
        code_writer: writes the code files that `trust_remote_code` needs into a folder; set where the whole package is
            at hand.
    """

    code_classes: ClassVar[Mapping[str, str]] = {}
    code_writer: ClassVar[Callable[[str | os.PathLike[str]], None] | None] = None

    def __setattr__(self, key: str, value: Any) -> None:
        if key in MASK_FIELDS:
            try:
                value = as_text(value, key)
            except MaskError as error:
                raise StrictDataclassFieldValidationError(field=key, cause=error) from error
        super().__setattr__(key, value)  # type: ignore[no-untyped-call]

    def mask_sizes(self) -> Mapping[Scope, tuple[int, int]]:
        """For each scope, how many layers and heads attend under its mask."""
        raise NotImplementedError

    def layer_masks(self, scope: Scope) -> tuple[Mask, ...]:
        """The mask of each layer in a scope.

        Raises:
            MaskError: the scope's mask cannot be read, or names a layer that does not exist.
        """
        layers, _ = self.mask_sizes()[scope]
        return masks_of_layers(getattr(self, f"{scope}_mask"), layers, f"{scope}_mask")

    def check_masks(self) -> None:
        """Check all three masks against the layers and heads that there are.

        Raises:
            MaskError: one cannot be read, names what is not there, or draws by chance.
        """
        for scope, (_, count) in self.mask_sizes().items():
            rules = self.layer_masks(scope)
            check_heads(rules, count, f"{scope}_mask")
            check_lasting(rules, f"{scope}_mask")

    def save_pretrained(
        self, save_directory: str | os.PathLike[str], push_to_hub: bool = False, **kwargs: Any
    ) -> None:
        """Save as Transformers does, with the code files that `trust_remote_code=True` needs beside `config.json`."""
        write = type(self).code_writer
        if write is not None:
            write(save_directory)
            self.auto_map = dict(type(self).code_classes)
        super().save_pretrained(save_directory, push_to_hub=push_to_hub, **kwargs)
