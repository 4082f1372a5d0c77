"""What the configs of all models have: three masks as text, checked when they are set, and code files beside them."""

import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

from huggingface_hub.errors import StrictDataclassFieldValidationError
from transformers import PreTrainedConfig
from transformers.utils.hub import cached_file

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
        code_pipelines: what `custom_pipelines` says when it is saved; set likewise.
    """

    code_classes: ClassVar[Mapping[str, str]] = {}
    code_writer: ClassVar[Callable[[str | os.PathLike[str]], None] | None] = None
    code_pipelines: ClassVar[Mapping[str, Mapping[str, Any]]] = {}

    def __setattr__(self, key: str, value: Any) -> None:
        if key in MASK_FIELDS:
            try:
                value = as_text(value, key)
            except MaskError as error:
                raise StrictDataclassFieldValidationError(field=key, cause=error) from error
        if key == "custom_pipelines":
            # The package's own pipelines are registered under the same names, and need no code files.
            value = {task: info for task, info in value.items() if task not in type(self).code_pipelines}
        super().__setattr__(key, value)  # type: ignore[no-untyped-call]

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls, pretrained_model_name_or_path: str | os.PathLike[str], **kwargs: Any
    ) -> Any:
        """As Transformers does, but of another type of model neither a part nor fields of the same name are taken.

        Raises:
            ValueError: the config is of another type.
        """
        values, unused = cls.get_config_dict(pretrained_model_name_or_path, **kwargs)
        if (found := values.get("model_type", cls.model_type)) != cls.model_type:
            classes = " or ".join(values.get("architectures") or ["AutoModel"])
            raise ValueError(
                f"{pretrained_model_name_or_path} must be a model of type {cls.model_type}, got {found}; load it by "
                f"{classes}.from_pretrained, or by an Auto class"
            )
        return cls.from_dict(values, **unused)

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
        if write is None:  # the class is one of the code files
            self._copy_pipelines(save_directory)
            super().save_pretrained(save_directory, push_to_hub=push_to_hub, **kwargs)
            return
        write(save_directory)
        self.auto_map = dict(type(self).code_classes)
        others = getattr(self, "custom_pipelines", {})
        vars(self)["custom_pipelines"] = {**others, **type(self).code_pipelines}
        try:
            super().save_pretrained(save_directory, push_to_hub=push_to_hub, **kwargs)
        finally:
            vars(self)["custom_pipelines"] = others

    def _copy_pipelines(self, folder: str | os.PathLike[str]) -> None:
        """Copy the code files of the pipelines from the folder or the repository that the model was loaded from.

        Transformers copies what a model's code imports, and nothing imports the pipelines. Where a file cannot be had,
        the config goes on naming the repository that has it.
        """
        pipelines = {}
        for task, info in getattr(self, "custom_pipelines", {}).items():
            repository, _, reference = info["impl"].rpartition("--")
            file = f"{reference.partition('.')[0]}.py"
            try:
                source = str(cached_file(repository or str(self.name_or_path), file))
            except OSError:
                pipelines[task] = info
                continue
            target = Path(folder, file)
            if not (target.is_file() and target.samefile(source)):
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source, target)
            pipelines[task] = {**info, "impl": reference}
        if pipelines:
            self.custom_pipelines = pipelines
