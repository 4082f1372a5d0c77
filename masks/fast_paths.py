"""The one place that decides whether a fast path may be taken.

A fast path is anything but a plain sequence of torch operations: a custom gradient, another kernel for the same
product, a branch on the values of a tensor. It must not be taken while something records or transforms what is
computed, or with tensors of another kind. Then plain operations run instead, and give the same numbers.

Whether a gradient will itself be differentiated (`create_graph`) is not known when a result is computed. So custom
gradients are written in operations that can be differentiated.
"""

import torch
from torch import nn
from torch.autograd import forward_ad
from torch.fx._symbolic_trace import is_fx_symbolic_tracing
from torch.utils._python_dispatch import is_in_torch_dispatch_mode


def is_observed() -> bool:
    """Whether operations are being recorded or transformed, not only computed.

    True under `torch.compile`, `torch.export`, `torch.jit.trace`, `torch.jit.script`, `torch.fx` tracing, the
    transforms of `torch.func` (`vmap`, `grad`, `jvp`, ...), forward-mode differentiation, and dispatch modes such as
    those of fake tensors and of flop counters.
    """
    if torch.compiler.is_compiling():  # first, since torch.compile cannot follow the rest
        return True
    return (
        torch.jit.is_tracing()
        or torch.jit.is_scripting()
        or is_fx_symbolic_tracing()
        or torch._C._are_functorch_transforms_active()
        or forward_ad._current_level >= 0
        or is_in_torch_dispatch_mode()
    )


def fast_path_allowed(
    *tensors: torch.Tensor | None,
    devices: tuple[str, ...] | None = ("cpu",),
    dtypes: tuple[torch.dtype, ...] | None = None,
) -> bool:
    """Whether a fast path over these tensors may be taken, or their values may be read on the host.

    Nothing may observe the computation (see `is_observed`), and each tensor must be an ordinary one: dense, with
    values, and not of a subclass (quantised by torchao, distributed, fake, functional).

    Args:
        tensors: what the path reads. None is skipped.
        devices: the types of devices on which the path is faster; None for all. On an accelerator the host has to wait
            for a value.
        dtypes: the dtypes that the path is written for; None for all.
    """
    if is_observed():
        return False
    for tensor in tensors:
        if tensor is None:
            continue
        if type(tensor) not in (torch.Tensor, nn.Parameter) or tensor.layout is not torch.strided:
            return False
        device = tensor.device.type
        if device == "meta" or tensor.is_nested or tensor.is_quantized:
            return False
        if (devices is not None and device not in devices) or (dtypes is not None and tensor.dtype not in dtypes):
            return False
    return True
