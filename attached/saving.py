"""What is saved beside an attached model, so that its masks are not lost without a word.

`config.json` has the masks. A code file attaches them where a script can only call `from_pretrained(...,
trust_remote_code=True)`, and the model card says that they need crossmask. The architecture stays what it is.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import transformers
from transformers import PreTrainedModel
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING,
    MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING,
    MODEL_MAPPING,
)

from ..seq2seq.subclasses import parts_of
from ..utils.atomic_write import write_bytes, write_text
from .attachment import Attachment

MODULE = "attached_crossmask"
"""The code file's name, without `.py`."""
MAPPINGS: dict[str, Any] = {
    "AutoModel": MODEL_MAPPING,
    "AutoModelForSeq2SeqLM": MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING,
    "AutoModelForSpeechSeq2Seq": MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING,
}
"""The Auto classes that may load a model, and which class each takes for a config."""
CODE = '''"""With trust_remote_code=True this model is loaded with the masks of its config.json. Needs crossmask."""

from typing import Any

from transformers import {name} as Plain

import crossmask


class {name}(Plain):
    """Loads the class of Transformers, and attaches the masks."""

    @classmethod
    def from_pretrained(cls, *args: Any, **kwargs: Any) -> Any:
        loaded = Plain.from_pretrained(*args, **kwargs)
        crossmask.attach(loaded[0] if isinstance(loaded, tuple) else loaded)  # with output_loading_info a tuple
        return loaded
'''
CARD = """## Masks

The masks of this model need `crossmask`: loaded in another way than these, it runs without them.

```python
import crossmask
from transformers import {auto_class}

model = crossmask.attach({auto_class}.from_pretrained(name))
```
"""
BY_CODE_FILE = """
Where `crossmask` is installed, `{auto_class}.from_pretrained(name, trust_remote_code=True)` does the same.
"""
METADATA = "---\nlibrary_name: transformers\ntags:\n- crossmask\n---\n"
"""How a card begins where there was none."""
ATTACHES = b"crossmask.attach"
"""What a card has if it says how to load the model."""


class AttachedSavingMixin:
    """Saves a model as Transformers does, with what its masks need."""

    attachment: Attachment
    config: Any

    def save_pretrained(
        self, save_directory: str | os.PathLike[str], is_main_process: bool = True, *args: Any, **kwargs: Any
    ) -> None:
        """As Transformers does. Where the config has masks, a code file and lines in `README.md` are beside it.

        A `README.md` that speaks of `crossmask.attach` already stays as it is, another one gets the lines at its end.
        """
        plain: Any = super()
        if not self.attachment.has_masks(self.config):
            return plain.save_pretrained(save_directory, is_main_process, *args, **kwargs)
        with _naming_code_file(self):
            plain.save_pretrained(save_directory, is_main_process, *args, **kwargs)
        if is_main_process and os.path.isdir(save_directory):
            _write_beside(self, Path(save_directory))

    def _upload_modified_files(self, working_dir: str | os.PathLike[str], *args: Any, **kwargs: Any) -> Any:
        """As Transformers does, with what was not yet beside the model."""
        if self.attachment.has_masks(self.config):
            _write_beside(self, Path(working_dir))
        return super()._upload_modified_files(working_dir, *args, **kwargs)  # type: ignore[misc]  # the model's own


def auto_classes_of(plain: type[PreTrainedModel]) -> list[str]:
    """The names of the Auto classes that load a class of Transformers; none for a class from elsewhere."""
    if getattr(transformers, plain.__name__, None) is not plain:
        return []
    classes = {name: mapping.get(plain.config_class, None) for name, mapping in MAPPINGS.items()}
    return [
        name
        for name, of_config in classes.items()
        if plain in (of_config if isinstance(of_config, tuple) else (of_config,))
    ]


@contextmanager
def _naming_code_file(model: AttachedSavingMixin) -> Iterator[None]:
    """Inside, the config's `auto_map` names the code file."""
    config = model.config
    fields, plain = dict(vars(config)), parts_of(type(model))[1]
    if names := auto_classes_of(plain):
        config.auto_map = {**(fields.get("auto_map") or {}), **dict.fromkeys(names, f"{MODULE}.{plain.__name__}")}
    try:
        yield
    finally:
        if "auto_map" in fields:
            config.auto_map = fields["auto_map"]
        elif names:
            del config.auto_map


def _write_beside(model: AttachedSavingMixin, folder: Path) -> None:
    """Write the code file and the card's lines into a folder."""
    plain = parts_of(type(model))[1]
    names = auto_classes_of(plain)
    if names:
        write_text(folder / f"{MODULE}.py", CODE.format(name=plain.__name__))
    path = folder / "README.md"
    card = path.read_bytes() if path.is_file() else METADATA.encode()
    if ATTACHES not in card:
        lines = (CARD + (BY_CODE_FILE if names else "")).format(auto_class=names[-1] if names else plain.__name__)
        write_bytes(path, card.rstrip() + b"\n\n" + lines.encode())
