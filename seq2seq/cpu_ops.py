"""Norm and dropout as torch has them, faster where a model trains on CPU: there they cost as much as attention."""

import torch
from torch import nn

from ..masks.fast_paths import fast_path_allowed


class RMSNorm(nn.RMSNorm):
    """`nn.RMSNorm` (Zhang and Sennrich 2019, https://arxiv.org/abs/1910.07467), its gradient in half the time on CPU.

    Under autocast the result is in half precision: every linear layer that reads it would make a copy of its own.
    """

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        device = hidden_states.device.type
        if fast_path_allowed(hidden_states, self.weight, dtypes=(torch.float32,)) and hidden_states.ndim > 1:
            # A first pass without gradients, as checkpointing makes it, has to give the same numbers.
            arguments = hidden_states, self.weight, self.eps
            normed = _RMSNorm.apply(*arguments) if torch.is_grad_enabled() else _rms_norm(*arguments)[0]
        else:
            normed = super().forward(hidden_states)
        return normed.to(torch.get_autocast_dtype(device)) if torch.is_autocast_enabled(device) else normed


def _rms_norm(states: torch.Tensor, weight: torch.Tensor, eps: float | None) -> tuple[torch.Tensor, torch.Tensor]:
    """The norm of (..., width), and what the states were multiplied by before the weight."""
    eps = torch.finfo(states.dtype).eps if eps is None else eps
    scale = (torch.linalg.vector_norm(states, dim=-1, keepdim=True).square() / states.shape[-1] + eps).rsqrt()
    return (states * scale).mul_(weight), scale


class _RMSNorm(torch.autograd.Function):
    """`_rms_norm`, with a gradient that can be differentiated again."""

    @staticmethod
    def forward(ctx, states: torch.Tensor, weight: torch.Tensor, eps: float | None) -> torch.Tensor:
        ctx.eps = torch.finfo(states.dtype).eps if eps is None else eps
        normed, scale = _rms_norm(states, weight, ctx.eps)
        ctx.save_for_backward(states, weight, scale)
        return normed

    @staticmethod
    def backward(ctx, grad: torch.Tensor):
        states, weight, scale = ctx.saved_tensors
        if torch.is_grad_enabled():  # under create_graph: the scale depends on the states
            scale = (states.square().mean(-1, keepdim=True) + ctx.eps).rsqrt()
        normed = states * scale
        product = (grad * normed).flatten(0, -2)
        grad_states = grad_weight = None
        if ctx.needs_input_grad[0]:
            shift = (product @ weight).view_as(scale) / -normed.shape[-1]
            grad_states = torch.addcmul(grad * weight, normed, shift).mul_(scale)
        if ctx.needs_input_grad[1]:
            grad_weight = product.sum(0)
        return grad_states, grad_weight, None


class Dropout(nn.Dropout):
    """`nn.Dropout`, which on CPU draws 16 bits for each number, not 64: the probability is rounded to 2**-16.

    Measured: a fifth of the time.
    """

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        dropped = round(self.p * 2**16)
        if (
            not self.training
            or self.inplace
            or not 0 < dropped < 2**16
            or not fast_path_allowed(hidden_states)
            or not hidden_states.is_floating_point()
        ):
            return super().forward(hidden_states)
        words = torch.empty(-(-hidden_states.numel() // 4), dtype=torch.int64, device="cpu").random_(-(2**63), None)
        kept = words.view(torch.int16)[: hidden_states.numel()].ge_(dropped - 2**15)
        return hidden_states * kept.view_as(hidden_states).to(hidden_states.dtype).mul_(2**16 / (2**16 - dropped))
