"""The one place that decides when a fast path may be taken.

A fast path is anything that is not the plain chain of torch operations: a gradient of our own, another kernel for the
same product, a branch on a tensor's values. It must step aside where somebody else records or transforms what is
computed, or brings tensors of another kind. Each fast path has a plain twin that runs then, with the same numbers.

What cannot be known when a result is computed is whether its gradient will be differentiated again (`create_graph`).
So the gradients of our own are written in operations that can be differentiated themselves.
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
    if torch.compiler.is_compiling():  # first and alone: a compiler reads no further
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
    """Whether a fast path over these tensors may be taken, or their values be looked at on the host.

    Nothing may observe the computation (see `is_observed`), and each tensor must be an ordinary one: no subclass
    (quantised by torchao, distributed, fake, functional), dense, and with numbers behind it.

    Args:
        tensors: what the path reads. None is skipped.
        devices: device types where the path pays; None for all. On an accelerator, looking at a value makes the host
            wait.
        dtypes: dtypes that the path is written for; None for all.
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
