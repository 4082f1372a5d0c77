"""From a folder to the engine that runs it."""

import os
from pathlib import Path
from typing import Any

import torch

from ..inference.generate_translator import GenerateTranslator
from ..inference.loading import choose_dtype, load_model_and_tokenizer, load_tokenizer
from ..inference.translator import Translator
from ..pipelines.registration import attach_saved_masks
from ..utils.errors import InputError
from ..utils.hardware import device_named
from ..utils.type_checks import check_choice
from .ctranslate2_translator import CTranslate2Translator
from .generation import read_generation
from .manifest import Manifest, read_manifest
from .onnx_model import OnnxModel
from .web import GRAPHS, SUFFIXES

ENGINES = ("torch", "ctranslate2", "onnx")


def load_translator(
    model: str | os.PathLike[str],
    engine: str = "auto",
    *,
    device: str | None = None,
    dtype: str = "auto",
    threads: int | None = None,
) -> Translator:
    """The engine that a folder is for: a saved model runs on PyTorch, an exported one on what it was exported to.

    ```python
    >>> load_translator("multi30k-int8").translate(["A dog barks."])
    ['Ein Hund bellt.']
    ```

    Args:
        model: a folder, or the name of a model on the Hub, which PyTorch runs.
        engine: what the folder must be for: `auto` for any, or one of `ENGINES`.
        device: an accelerator where there is one by default, and with CTranslate2 the processor.
        dtype: what to compute in. On PyTorch `auto` is bfloat16 where the device multiplies in it natively, else
            float32; on CTranslate2 it is that of the weights where the machine has it; on ONNX it is that of the
            graphs, and no other can be given. `saved` is what the model was saved in, or exported in.
        threads: of the processor; the library's choice by default. With PyTorch they are the whole process's.

    Raises:
        OSError: the model does not exist, or cannot be fetched.
        InputError: a folder that cannot be read, or that is for another engine.
        MissingLibraryError: the engine is not installed.
    """
    check_choice("engine", engine, ("auto", *ENGINES))
    if threads is not None and threads < 1:
        raise InputError(f"threads must be at least 1, got {threads}; leave it out for the library's choice")
    folder = Path(model)
    manifest = read_manifest(folder)
    made_for = "torch" if manifest is None else manifest.engine.replace("web", "onnx")
    if engine not in ("auto", made_for):
        fix = f'export it with export({str(folder)!r}, "{engine}", ...)' if manifest is None else 'give engine="auto"'
        raise InputError(f"{folder} must be a folder for {engine}, got one for {made_for}; {fix}")
    if manifest is not None and made_for == "onnx":
        return _onnx_translator(folder, manifest, device, dtype, threads)
    if manifest is not None:
        compute_type = "default" if dtype in ("auto", "saved") else dtype
        return CTranslate2Translator(
            folder, manifest, device=device or "cpu", compute_type=compute_type, threads=threads or 0
        )
    if threads is not None:
        torch.set_num_threads(threads)
    place = device_named(device)
    loaded: tuple[Any, Any] = load_model_and_tokenizer(os.fspath(model), choose_dtype(dtype, place))
    network, tokenizer = loaded
    return GenerateTranslator(attach_saved_masks(network).to(place), tokenizer)


def _onnx_translator(
    folder: Path, manifest: Manifest, device: str | None, dtype: str, threads: int | None
) -> GenerateTranslator:
    dtypes = manifest.dtype.split(",")
    dtype = "auto" if dtype == "saved" else dtype
    if dtype not in ("auto", *dtypes) or device not in (None, "cpu"):
        raise InputError(
            f'device and dtype of these ONNX graphs must be "cpu" and one of auto, {", ".join(dtypes)}, got '
            f"{device!r} and {dtype!r}; leave them out, or export in another dtype"
        )
    dtype = dtypes[0] if dtype == "auto" else dtype
    is_web = manifest.engine == "web"
    graphs, suffix = (folder / GRAPHS, SUFFIXES[dtype]) if is_web else (folder, "")
    generation: Any = read_generation(folder)
    if is_web:  # transformers.js reads max_length, which counts the start token
        generation.max_new_tokens, generation.max_length = generation.max_length - 1, None
    model = OnnxModel(graphs, manifest.model_config, generation, threads=threads, suffix=suffix)
    files = tuple(graphs.glob(f"*model*{suffix}.onnx*"))
    translator = GenerateTranslator(model, load_tokenizer(str(folder)), "onnx", files)
    translator.dtype = dtype
    return translator
