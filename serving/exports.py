"""Export a trained model to the folder of another engine."""

import os
import shutil
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.constants import REPOCARD_NAME
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from .. import __version__
from ..inference.loading import load_model_and_tokenizer
from ..utils.disk import naming_full_disks
from ..utils.errors import InputError, InputTypeError
from ..utils.type_checks import check_choice
from .ctranslate2_spec import check_expressible, save_ctranslate2
from .generation import exported_generation, longest_output
from .libraries import require
from .manifest import DTYPES, Manifest
from .model_checks import check_tokenizer
from .onnx_export import check_exportable, mask_inputs, save_onnx
from .web import ALL, SUFFIXES, save_web


@dataclass(frozen=True)
class _Target:
    """What a model can be exported to.

    Attributes:
        extra: of this package, which installs the libraries. libraries: that are needed, and whose versions are noted.
        check: refuses a model that it cannot express.
        write: the files but for the tokenizer's, into a folder that exists, in one of the dtypes.
        masks: the masks that a call may give as tensors, by the config.
    """

    extra: str
    libraries: tuple[str, ...]
    check: Callable[[Any], None]
    write: Callable[[Any, PreTrainedTokenizerBase, Path, str], None]
    masks: Callable[[Any], tuple[str, ...]] = lambda config: ()


def _write_ctranslate2(model: Any, tokenizer: PreTrainedTokenizerBase, folder: Path, dtype: str) -> None:
    save_ctranslate2(model, tokenizer, folder, dtype)
    generation: Any = exported_generation(model)
    # CTranslate2 has no defaults: every option has a value, and the length is one of new tokens.
    generation.update(**generation._get_default_generation_params(), defaults_only=True)
    generation.max_new_tokens, generation.max_length = longest_output(model) - 1, None
    generation.save_pretrained(folder)


def _write_onnx(model: Any, tokenizer: PreTrainedTokenizerBase, folder: Path, dtype: str) -> None:
    exported_generation(model).save_pretrained(folder)
    (folder / "config.json").write_text(model.config.to_json_string())
    save_onnx(model, folder, {dtype: ""})


def _write_web(model: Any, tokenizer: PreTrainedTokenizerBase, folder: Path, dtype: str) -> None:
    save_web(model, folder, SUFFIXES if dtype == ALL else (dtype,))


_ONNX = ("onnx", "onnxscript", "onnxruntime")
_TARGETS = {
    "ctranslate2": _Target("ctranslate2", ("ctranslate2",), check_expressible, _write_ctranslate2),
    "onnx": _Target("onnx", _ONNX, check_exportable, _write_onnx, mask_inputs),
    "web": _Target("onnx", _ONNX, check_exportable, _write_web, mask_inputs),
}


@dataclass(frozen=True)
class Export:
    """A folder that was written.

    Attributes:
        folder: where. engine: what runs it. dtype: of its weights.
        sizes: bytes of each file, by its path in the folder.
    """

    folder: Path
    engine: str
    dtype: str
    sizes: dict[str, int] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.folder}: {self.engine}, {self.dtype}, {sum(self.sizes.values()) / 2**20:.1f} MiB"


def export(
    model: str | os.PathLike[str] | PreTrainedModel,
    to: str,
    output: str | os.PathLike[str],
    *,
    tokenizer: PreTrainedTokenizerBase | None = None,
    dtype: str | None = None,
) -> Export:
    """Write a trained model as another engine loads it, with its tokenizer and its settings of generation.

    A model in memory stays as it is. The model card of a folder comes along, by which `crossmask serve` knows what the
    model is for. The output appears when it is complete. `load_translator(output)` runs it.

    ```python
    >>> export("runs/multi30k-en-de", "ctranslate2", "multi30k-int8", dtype="int8")
    ```

    Args:
        model: a folder, a name on the Hub, or a model, which needs `tokenizer` beside it.
        to: `ctranslate2`, which is fastest and has few masks; `onnx`, which has all of them; or `web`, the same for
            transformers.js in a browser.
        output: a folder that does not exist yet.
        dtype: one of `DTYPES[to]`: what the weights are stored in; the first of them by default.

    Raises:
        InputError: a model that the engine cannot express, with all reasons, or one without a language-model head; a
            tokenizer with more tokens than the model; an output that exists.
        MissingLibraryError: the engine is not installed.
        OSError: a model that does not exist, or an output that cannot be written.
    """
    check_choice("to", to, sorted(DTYPES))
    dtype = DTYPES[to][0] if dtype is None else dtype
    check_choice("dtype", dtype, DTYPES[to])
    for library in _TARGETS[to].libraries:
        require(library, _TARGETS[to].extra, f"export to {to}")
    folder = Path(output)
    if folder.exists():
        raise InputError(f"{folder} must not exist yet; delete it, or choose another output")
    network, tokenizer = _load(model, tokenizer)
    _TARGETS[to].check(network)
    check_tokenizer(tokenizer, network.config.vocab_size)
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    try:
        with naming_full_disks(folder.parent):
            temporary.mkdir(parents=True)
            manifest = _write(network, tokenizer, to, temporary, dtype)
            manifest.write(temporary)
            if (card := _card_of(model)) is not None:
                shutil.copyfile(card, temporary / REPOCARD_NAME)
            os.replace(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    sizes = {str(path.relative_to(folder)): path.stat().st_size for path in files}
    return Export(folder, to, manifest.dtype, sizes)


def _card_of(model: Any) -> Path | None:
    card = Path(model, REPOCARD_NAME) if isinstance(model, str | os.PathLike) else None
    return card if card is not None and card.is_file() else None


def _load(
    model: str | os.PathLike[str] | PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None
) -> tuple[Any, PreTrainedTokenizerBase]:
    if isinstance(model, str | os.PathLike):
        if tokenizer is not None:
            raise InputTypeError("tokenizer must be left out where model is a folder or a name: it has its own")
        return load_model_and_tokenizer(os.fspath(model), torch.float32)
    if not isinstance(model, PreTrainedModel) or tokenizer is None:
        raise InputTypeError(
            f"model must be a folder, a name on the Hub, or a model with its tokenizer, got {type(model).__name__}"
            f"{'' if tokenizer is not None else ' without a tokenizer'}; give both"
        )
    return model, tokenizer


def _save_tokenizer(tokenizer: Any, folder: Path) -> None:
    """Without the padding and truncation of its last call, which the library `tokenizers` would take from the file."""
    saved = deepcopy(tokenizer)
    if saved.is_fast:
        saved.backend_tokenizer.no_padding()
        saved.backend_tokenizer.no_truncation()
    saved.save_pretrained(folder)


def _write(model: Any, tokenizer: PreTrainedTokenizerBase, to: str, folder: Path, dtype: str) -> Manifest:
    target = _TARGETS[to]
    target.write(model, tokenizer, folder, dtype)
    _save_tokenizer(tokenizer, folder)
    versions = {
        "crossmask": __version__,
        **{name: version(name) for name in ("torch", "transformers", *target.libraries)},
    }
    return Manifest(to, dtype, model.config.to_dict(), versions, target.masks(model.config))
