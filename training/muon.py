"""Muon for the matrices inside layers, AdamW for the rest: `optim: muon`.

Muon (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/) replaces the momentum of a matrix by the nearest
matrix whose singular values are all 1. With the factor of Liu et al. 2025 (https://arxiv.org/abs/2502.16982) its steps
are as large as AdamW's, so that one learning rate serves both. `torch.optim.Muon` takes the matrices one by one, and
computes in bfloat16 everywhere. Here matrices of one shape are computed together, in the precision of the run.
"""

from collections.abc import Container, Iterable, Mapping
from enum import StrEnum
from typing import Any

import torch
from torch import nn
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from ..utils.errors import InputError
from .validation import check_names


class OwnOptimizer(StrEnum):
    """Optimizers that Transformers does not have."""

    MUON = "muon"


# Coefficients of odd polynomials of degree 5, one for each step, which together bring singular values from 0.001 to 1
# close to 1 ("The Polar Express", Amsel et al. 2025, https://arxiv.org/abs/2505.16932). The last is for further steps.
COEFFICIENTS = (
    (8.28721201814563, -23.595886519098837, 17.300387312530933),
    (4.107059111542203, -2.9478499167379106, 0.5448431082926601),
    (3.9486908534822946, -2.908902115962949, 0.5518191394370137),
    (3.3184196573706015, -2.488488024314874, 0.51004894012372),
    (2.300652019954817, -1.6689039845747493, 0.4188073119525673),
    (1.891301407787398, -1.2679958271945868, 0.37680408948524835),
    (1.8750014808534479, -1.2500016453999487, 0.3750001645474248),
)
SAFETY = 1.01  # the polynomials diverge beyond 1, where rounding may lead


def orthogonalize(matrices: torch.Tensor, steps: int = 5) -> torch.Tensor:
    """Nearly the U V^T of each matrix U S V^T, by Newton-Schulz iterations.

    Args:
        matrices: (N, rows, columns), in the dtype to compute in.

    Returns:
        The same shape. Singular values from a thousandth of the matrix's Frobenius norm on come to 0.87 to 1.13 in 5
        steps, and 0.43 to 1.57 in 4; smaller ones to less.
    """
    is_tall = matrices.shape[-2] > matrices.shape[-1]
    result = matrices.mT if is_tall else matrices
    result = result / (torch.linalg.matrix_norm(result, keepdim=True) * SAFETY + 1e-7)
    for step in range(steps):
        a, b, c = COEFFICIENTS[min(step, len(COEFFICIENTS) - 1)]
        gram = result @ result.mT
        result = torch.baddbmm(result, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), result, beta=a)
    return result.mT if is_tall else result


DEFAULTS: dict[str, Any] = {"momentum": 0.95, "nesterov": True, "ns_steps": 5}


class Muon(torch.optim.AdamW):
    """AdamW, but for the groups that have `matrices=True`, whose matrices are trained by Muon.

    Args:
        groups: parameter groups. options: of `torch.optim.AdamW`.
        momentum, nesterov: of Muon. ns_steps: its Newton-Schulz iterations.
        dtype: in which they are computed.
    """

    def __init__(
        self,
        groups: Iterable[dict[str, Any]],
        *,
        momentum: float = DEFAULTS["momentum"],
        nesterov: bool = DEFAULTS["nesterov"],
        ns_steps: int = DEFAULTS["ns_steps"],
        dtype: torch.dtype = torch.float32,
        **options: Any,
    ):
        own = {"momentum": momentum, "nesterov": nesterov, "ns_steps": ns_steps, "dtype": dtype}
        super().__init__(
            [{"matrices": False, **group, **(own if group.get("matrices") else {})} for group in groups], **options
        )

    def __setstate__(self, state: dict[str, Any]) -> None:
        groups = state["param_groups"]
        # AdamW looks at the state of its own parameters.
        super().__setstate__({**state, "param_groups": [group for group in groups if not group["matrices"]]})
        self.param_groups = groups

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        groups = self.param_groups
        self.param_groups = [group for group in groups if not group["matrices"]]
        try:
            super().step()
        finally:
            self.param_groups = groups
        for group in groups:
            if group["matrices"]:
                self._step_matrices(group)
        return loss

    def _step_matrices(self, group: Mapping[str, Any]) -> None:
        by_shape: dict[tuple[torch.Size, torch.device], list[Any]] = {}
        for parameter in group["params"]:
            if parameter.grad is not None:
                by_shape.setdefault((parameter.shape, parameter.device), []).append(parameter)
        for (shape, _), parameters in by_shape.items():
            ahead = []
            for parameter in parameters:
                gradient, state = parameter.grad, self.state[parameter]
                if "momentum_buffer" not in state:
                    state["momentum_buffer"] = torch.zeros_like(parameter)
                buffer = state["momentum_buffer"].lerp_(gradient, 1 - group["momentum"])
                ahead.append(torch.lerp(gradient, buffer, group["momentum"]) if group["nesterov"] else buffer)
            updates = orthogonalize(torch.stack(ahead).to(group["dtype"]), group["ns_steps"])
            factor = 0.2 * max(shape) ** 0.5  # the root mean square of AdamW's steps
            for parameter, update in zip(parameters, updates.to(ahead[0].dtype), strict=True):
                parameter.mul_(1 - group["lr"] * group["weight_decay"]).add_(update, alpha=-group["lr"] * factor)


def matrices_of(model: PreTrainedModel) -> set[int]:
    """The ids of the parameters that Muon trains: weights of linear layers inside a list of layers."""
    head = model.get_output_embeddings()
    return {
        id(module.weight)
        for layers in model.modules()
        if isinstance(layers, nn.ModuleList)
        for module in layers.modules()
        if isinstance(module, nn.Linear | Conv1D) and module is not head and module.weight.ndim == 2
    }


def check_matrices(model: PreTrainedModel) -> None:
    """Refuse a model of which Muon would train nothing, or has pieces of matrices. Raises InputError."""
    matrices = matrices_of(model)
    if any(isinstance(parameter, DTensor) for parameter in model.parameters()):
        raise InputError(
            "optim must not be muon where the model is spread over processes, of which none has a whole matrix; set "
            "it to adamw_torch_fused"
        )
    if not any(parameter.requires_grad and id(parameter) in matrices for parameter in model.parameters()):
        raise InputError(
            "optim must not be muon where no weight of a linear layer inside the model's layers is trained; set it to "
            "adamw_torch_fused"
        )


def build_muon(model: PreTrainedModel, arguments: Any, decayed: Container[str]) -> Muon:
    """The optimizer of a run.

    Args:
        arguments: `RunArguments`.
        decayed: the names of the parameters that decay.

    Raises:
        InputError: `optim_args` that it does not have, or a model without a matrix for it.
    """
    check_matrices(model)
    rate, matrices = options_of(arguments.optim_args).get("learning_rate", arguments.learning_rate), matrices_of(model)
    members: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            members.setdefault((id(parameter) in matrices, name in decayed), []).append(parameter)
    groups = [
        {
            "params": parameters,
            "matrices": is_matrix,
            "lr": rate if is_matrix else arguments.learning_rate,
            "weight_decay": arguments.weight_decay if decays else 0.0,
        }
        for (is_matrix, decays), parameters in members.items()
    ]
    fused = not arguments.fp16  # whose scaler would leave it to a fused optimizer to divide the gradients
    # Schedules take their absolute rates, such as `min_lr`, as shares of `lr`.
    options = {**muon_options(arguments), **adamw_options(arguments), "lr": arguments.learning_rate, "fused": fused}
    return Muon(groups, **options)


def check_rate_is_read(optimizer: torch.optim.Optimizer, arguments: Any) -> None:
    """Refuse a learning rate in `optim_args` if every matrix is in a part of the model that has its own.

    Raises:
        InputError: with the rate.
    """
    if arguments.optim != OwnOptimizer.MUON or (rate := options_of(arguments.optim_args).get("learning_rate")) is None:
        return
    if not any(group["matrices"] and group["lr"] == rate for group in optimizer.param_groups):
        raise InputError(
            f"optim_args must be without learning_rate if learning_rates has those of all matrices, got {rate:g}; "
            "leave one of them out"
        )


def adamw_options(arguments: Any) -> dict[str, Any]:
    """The options of a run's AdamW."""
    return {"betas": (arguments.adam_beta1, arguments.adam_beta2), "eps": arguments.adam_epsilon}


def muon_options(arguments: Any) -> dict[str, Any]:
    """The options of a run's Muon, without the learning rate, in the precision of the run."""
    given = DEFAULTS | options_of(arguments.optim_args)
    given.pop("learning_rate", None)
    return {**given, "dtype": torch.bfloat16 if arguments.precision.bf16 else torch.float32}


def option_words(text: str | None) -> list[str]:
    """The `name=value` words of `optim_args`, without spaces."""
    return [word.replace(" ", "") for word in (text or "").split(",") if word.strip()]


def options_of(text: str | None) -> dict[str, Any]:
    """`optim_args` as Muon's options: `momentum=0.95, nesterov=true, ns_steps=5, learning_rate=0.002`.

    Raises:
        InputError: a name or a value that it does not have.
    """
    kinds = {"learning_rate": _rate, "momentum": _share, "nesterov": _switch, "ns_steps": _count}
    words = option_words(text)
    given = dict(word.partition("=")[::2] for word in words)
    if len(given) < len(words) or not all("=" in word for word in words):
        raise InputError(f"optim_args must be name=value, name=value, each name once, got {text!r}")
    check_names("optim_args", given, kinds)
    return {name: kinds[name](name, value) for name, value in given.items()}


def _number(name: str, value: str, expected: str) -> float:
    try:
        return float(value)
    except ValueError:
        raise InputError(f"optim_args {name} must be {expected}, got {value!r}") from None


def _rate(name: str, value: str) -> float:
    number = _number(name, value, "a finite number above 0")
    if not 0 < number <= torch.finfo(torch.float32).max:
        raise InputError(f"optim_args {name} must be a finite number above 0, got {value!r}")
    return number


def _share(name: str, value: str) -> float:
    number = _number(name, value, "from 0 to below 1")
    if not 0 <= number < 1:
        raise InputError(f"optim_args {name} must be from 0 to below 1, got {value!r}")
    return number


def _count(name: str, value: str) -> int:
    if not value.isdecimal() or not 1 <= int(value) <= 20:
        raise InputError(f"optim_args {name} must be a whole number from 1 to 20, got {value!r}")
    return int(value)


def _switch(name: str, value: str) -> bool:
    if value.lower() not in ("true", "false"):
        raise InputError(f"optim_args {name} must be true or false, got {value!r}")
    return value.lower() == "true"
