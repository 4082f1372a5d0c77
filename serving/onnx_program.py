"""From a module of PyTorch to an ONNX graph."""

import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn

OPSET = 18
# What PyTorch and onnxruntime log about themselves in every export, by logger.
_LOGGED = {
    "torch.onnx._internal.exporter._registration": "torchvision is not installed",
    "root": "Please consider to run pre-processing before quantization",
}


@contextmanager
def without_known_warnings() -> Iterator[None]:
    """Hide what every export warns of: deprecations inside of PyTorch, and axes that have one name on purpose."""
    with ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        for category in (DeprecationWarning, PendingDeprecationWarning, FutureWarning):
            warnings.simplefilter("ignore", category)
        warnings.filterwarnings("ignore", r"# The axis name: \w+ will not be used, since it shares the same shape")
        for name, start in _LOGGED.items():
            logger = logging.getLogger(name)
            known = _Known(start)
            logger.addFilter(known)
            stack.callback(logger.removeFilter, known)
        yield


class _Known(logging.Filter):
    def __init__(self, start: str):
        super().__init__()
        self.start = start

    def filter(self, record: logging.LogRecord) -> bool:
        return not record.getMessage().startswith(self.start)


@torch.no_grad()
def make_graph(
    module: nn.Module,
    inputs: Mapping[str, tuple[Any, Any]],
    outputs: Sequence[str],
    several: Mapping[str, Sequence[str]] | None = None,
) -> Any:
    """A module's forward pass in evaluation as `onnx.ModelProto`.

    Args:
        inputs: of `forward`, in its order: an example, and its axes that vary. outputs: their names.
        several: the names of an input that is a list.
    """
    with without_known_warnings():
        program: Any = torch.onnx.export(
            module.eval(),
            tuple(example for example, _ in inputs.values()),
            dynamo=True,
            verbose=False,
            opset_version=OPSET,
            input_names=[given for name in inputs for given in (several or {}).get(name, [name])],
            output_names=list(outputs),
            dynamic_shapes=tuple(axes for _, axes in inputs.values()),
        )
    return program.model_proto
