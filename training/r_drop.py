"""R-Drop: two passes over a batch under different dropout, which must agree (`seq2seq/agreement.py` has the loss)."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from ..utils.errors import InputError
from .parts import frozen_modules


def check_r_drop(alpha: float, model: PreTrainedModel) -> None:
    """Refuse a model whose two passes would be the same. Raises InputError."""
    frozen = {id(module) for part in frozen_modules(model) for module in part.modules()}  # they drop nothing
    if not any(_drops(module) for module in model.modules() if id(module) not in frozen):
        name = next((name for name in model.config.to_dict() if "dropout" in name), "dropout")
        raise InputError(
            f"r_drop must be left out where nothing that is trained has dropout, got {alpha:g}; set model.{name}"
        )


def _drops(module: nn.Module) -> bool:
    # Whole layers are dropped for both passes alike.
    rates = [value for name, value in vars(module).items() if "drop" in name and "layerdrop" not in name]
    rates += [module.p] if isinstance(module, nn.Dropout) else []
    return any(isinstance(rate, int | float) and rate > 0 for rate in rates)


def twice(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Inputs of a batch of B examples as those of 2B, all of them a second time behind the first."""

    def doubled(value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(doubled(one) for one in value)
        return torch.cat([value, value]) if torch.is_tensor(value) else value

    return {name: doubled(value) for name, value in inputs.items()}
