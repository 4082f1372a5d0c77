"""R-Drop: two passes over a batch under different dropout, which must agree.

Liang et al. 2021, "R-Drop: Regularized Dropout for Neural Networks", https://arxiv.org/abs/2106.14448.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from ..seq2seq.agreement import agreeing_cross_entropy
from ..utils.errors import InputError


def check_r_drop(alpha: float, model: nn.Module) -> None:
    """Refuse a weight that is not one, and a model whose passes would be the same. Raises InputError."""
    if not 0 < alpha < float("inf"):
        raise InputError(f"r_drop must be a finite number above 0, got {alpha}; leave it out to train without")
    if not any(_drops(module) for module in model.modules()):
        raise InputError(f"r_drop must be left out for a model without dropout, got {alpha}; set model.dropout")


def _drops(module: nn.Module) -> bool:
    rates = [value for name, value in vars(module).items() if "drop" in name]
    rates += [module.p] if isinstance(module, nn.Dropout) else []
    return any(isinstance(rate, int | float) and rate > 0 for rate in rates)


def twice(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Inputs of a batch of B examples as those of 2B, all of them a second time behind the first."""

    def doubled(value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(doubled(one) for one in value)
        return torch.cat([value, value]) if torch.is_tensor(value) else value

    return {name: doubled(value) for name, value in inputs.items()}


def r_drop_loss(alpha: float, label_smoothing: float) -> Callable[..., torch.Tensor]:
    """The loss by the logits of a batch of `twice`, as Trainer takes it."""

    def loss(
        outputs: Mapping[str, Any], labels: torch.Tensor, num_items_in_batch: torch.Tensor | int | None = None
    ) -> torch.Tensor:
        return agreeing_cross_entropy(
            outputs["logits"], labels.chunk(2)[0], num_items_in_batch, label_smoothing, alpha
        )

    return loss
