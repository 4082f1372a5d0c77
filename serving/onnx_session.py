"""One ONNX graph under onnxruntime, with tensors of PyTorch."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ..utils.errors import InputError
from .libraries import require

_PURPOSE = "run ONNX graphs"


def open_session(path: Path, threads: int | None) -> Any:
    """An `onnxruntime.InferenceSession` on the processor.

    Args:
        threads: of one call, onnxruntime's own choice by default.

    Raises:
        InputError: the file is not a complete graph. MissingLibraryError: onnxruntime is not installed.
    """
    library = require("onnxruntime", "onnx", _PURPOSE)
    errors = require("onnxruntime.capi.onnxruntime_pybind11_state", "onnx", _PURPOSE)
    options = library.SessionOptions()
    options.log_severity_level = 3
    if threads is not None:
        options.intra_op_num_threads = threads
    try:
        return library.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except (errors.Fail, errors.InvalidProtobuf, errors.InvalidGraph, errors.NoSuchFile) as error:
        raise InputError(f"{path} must be a complete ONNX graph: {error}; export the model again") from error


def run_session(session: Any, feed: Mapping[str, torch.Tensor]) -> list[torch.Tensor]:
    """All outputs of a graph, by its inputs; no tensor is copied."""
    outputs = session.run(None, {name: tensor.contiguous().numpy() for name, tensor in feed.items()})
    return [torch.from_numpy(output) for output in outputs]
