"""The device of the tests in gpu/, and what a model computes on one."""

import os
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from transformers.utils import ModelOutput

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what cuBLAS needs to be deterministic
DEVICE = torch.device(os.environ.get("CROSSMASK_TEST_DEVICE", "cuda"))
"""Another accelerator can be named, or `cpu`, to try the tests themselves."""
on_gpu = [
    pytest.mark.gpu,
    pytest.mark.skipif(DEVICE.type == "cuda" and not torch.cuda.is_available(), reason="needs a CUDA device"),
]


def to_device(value: Any) -> Any:
    """Tensors of a mapping, a list or an output on the device; all else as it is."""
    if isinstance(value, torch.Tensor):
        return value.to(DEVICE)
    if isinstance(value, ModelOutput):
        return value
    if isinstance(value, Mapping):
        return {name: to_device(part) for name, part in value.items()}
    return value


def logits_and_gradients(model: torch.nn.Module, batch: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """What a training step computes, on CPU and in float32."""
    outputs = model(**batch)
    parameters = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    gradients = torch.autograd.grad(outputs.loss, list(parameters.values()), allow_unused=True)
    results = {"logits": outputs.logits.detach()}
    results |= {name: grad for name, grad in zip(parameters, gradients, strict=True) if grad is not None}
    return {name: value.cpu().float() for name, value in results.items()}


def assert_near(got: Mapping[str, torch.Tensor], wanted: Mapping[str, torch.Tensor], tolerance: float = 1e-3) -> None:
    """The same tensors, each up to a share of its largest number, or of a thousandth of the largest of all."""
    assert got.keys() == wanted.keys()
    least = 1e-3 * max(float(value.abs().max()) for value in wanted.values())
    for name, value in wanted.items():
        assert got[name].isfinite().all(), name
        error = float((got[name] - value).abs().max()) / max(float(value.abs().max()), least)
        assert error <= tolerance, f"{name} differs by {error:.1e} of its scale"
