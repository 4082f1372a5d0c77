"""Norm and dropout as torch has them, faster where a model trains on CPU: there they cost as much as attention."""

import torch
from torch import nn
from torch.autograd.function import once_differentiable


class RMSNorm(nn.RMSNorm):
    """`nn.RMSNorm` (Zhang and Sennrich 2019, https://arxiv.org/abs/1910.07467), its gradient in half the time on CPU.

    Under autocast the result is in half precision: every linear layer that reads it would make a copy of its own.
    """

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        device = hidden_states.device.type
        own = device == "cpu" and not torch.compiler.is_compiling()
        if own and hidden_states.dtype == self.weight.dtype == torch.float32:
            # A first pass without gradients, as checkpointing makes it, has to give the same numbers.
            arguments = hidden_states, self.weight, self.eps
            normed = (_RMSNorm.apply if torch.is_grad_enabled() else _rms_norm)(*arguments)[0]
        else:
            normed = super().forward(hidden_states)
        return normed.to(torch.get_autocast_dtype(device)) if torch.is_autocast_enabled(device) else normed


def _rms_norm(states: torch.Tensor, weight: torch.Tensor, eps: float) -> tuple[torch.Tensor, ...]:
    """The result, the same before the weight, and what the states were multiplied by."""
    scale = (torch.linalg.vector_norm(states, dim=-1, keepdim=True).square() / states.shape[-1] + eps).rsqrt()
    normed = states * scale
    return normed * weight, normed, scale


class _RMSNorm(torch.autograd.Function):
    """`_rms_norm`, in the form that torch.func takes."""

    generate_vmap_rule = True

    @staticmethod
    def forward(states: torch.Tensor, weight: torch.Tensor, eps: float) -> tuple[torch.Tensor, ...]:
        return _rms_norm(states, weight, eps)

    @staticmethod
    def setup_context(ctx, inputs: tuple, output: tuple[torch.Tensor, ...]) -> None:
        _, normed, scale = output
        ctx.mark_non_differentiable(normed, scale)
        ctx.save_for_backward(normed, scale, inputs[1])

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: torch.Tensor, *_):
        normed, scale, weight = ctx.saved_tensors
        product = (grad * normed).flatten(0, -2)
        shift = (product @ weight).view_as(scale) / -normed.shape[-1]
        return torch.addcmul(grad * weight, normed, shift).mul_(scale), product.sum(0), None


class Dropout(nn.Dropout):
    """`nn.Dropout`, which on CPU draws 16 bits for each number, not 64: the probability is rounded to 2**-16.

    Measured: a fifth of the time.
    """

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        dropped = round(self.p * 2**16)
        if (
            not self.training
            or not 0 < dropped < 2**16
            or hidden_states.device.type != "cpu"
            or torch.compiler.is_compiling()
        ):
            return super().forward(hidden_states)
        words = torch.empty(-(-hidden_states.numel() // 4), dtype=torch.int64, device="cpu").random_(-(2**63), None)
        kept = words.view(torch.int16)[: hidden_states.numel()].ge_(dropped - 2**15)
        return hidden_states * kept.view_as(hidden_states).to(hidden_states.dtype).mul_(2**16 / (2**16 - dropped))
