"""Parts of a model that are trained otherwise than the rest: frozen, or at a learning rate of their own.

A part is named by the beginning of its parameters' names, in whole components: `encoder`, `decoder.layers.0`, or
`lm_head`. The prefix of the base model (`model.` in most classes of Transformers) may be left out. Of two parts that a
parameter is in, the longer name counts. The same names fit a bridge (`encoder`, `decoder`, `bridge`), a model of
Transformers and our own network.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import nn
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from ..utils.errors import InputError
from ..utils.type_checks import did_you_mean
from .adapters import is_of_adapter
from .arguments import OptimizationArguments


def part_of(name: str, parts: Iterable[str], prefix: str = "") -> str | None:
    """The longest of the parts that a parameter of this name is in; None where it is in none.

    ```python
    >>> part_of("model.encoder.layers.0.norm.weight", ["encoder", "encoder.layers.0", "decoder"], prefix="model")
    'encoder.layers.0'
    ```

    Args:
        prefix: of the base model, which the parts may leave out.
    """
    names = {name, name.removeprefix(f"{prefix}.")} if prefix else {name}
    matching = [part for part in parts if any(f"{known}.".startswith(f"{part}.") for known in names)]
    return max(matching, key=len, default=None)


def parameters_by_part(model: PreTrainedModel, parts: Sequence[str]) -> dict[str | None, list[nn.Parameter]]:
    """The parameters of every part, and under None those of no part.

    Raises:
        InputError: a part without parameters, or a tied parameter that has names in several parts.
    """
    prefix = model.base_model_prefix
    names: dict[int, list[str]] = {}
    by_id: dict[int, nn.Parameter] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
        by_id[id(parameter)] = parameter
    found: dict[str | None, list[nn.Parameter]] = {part: [] for part in (*parts, None)}
    for key, own in names.items():
        of_names = {name: part_of(name, parts, prefix) for name in own}
        if len(set(of_names.values())) > 1:
            first, second = list(of_names)[:2]
            raise InputError(
                f"a tied weight must be in one part, got {first} in {of_names[first] or 'none'} and {second} in "
                f"{of_names[second] or 'none'}; name smaller parts, for instance their layers"
            )
        found[of_names[own[0]]].append(by_id[key])
    for part in parts:
        if not found[part]:
            raise InputError(_unknown(part, model, parts))
    return found


def _unknown(part: str, model: PreTrainedModel, parts: Sequence[str]) -> str:
    prefix = model.base_model_prefix
    names = [name.removeprefix(f"{prefix}.") for name, _ in model.named_parameters()]
    known = list(dict.fromkeys(name.split(".")[0] for name in names))
    if any(f"{name}.".startswith(f"{part}.") for name in names):
        return f"{part} must hold a parameter that is in no longer part, got parts {', '.join(parts)}; leave it out"
    near = did_you_mean(part, known)
    return f"{part!r} must be a part of the {model.config.model_type} model, which has {', '.join(known)}" + (
        f"; {near}" if near else "; give the beginning of parameters' names"
    )


def freeze_parts(model: PreTrainedModel, arguments: OptimizationArguments) -> None:
    """Exclude the frozen parts from training, except for adapters in them.

    Raises:
        InputError: a part that the model does not have, nothing that is left to train, or a learning rate of what is
            not trained.
    """
    freeze, parts = arguments.freeze or [], [*(arguments.freeze or ()), *(arguments.learning_rates or {})]
    if not parts:
        return
    found = parameters_by_part(model, list(dict.fromkeys(parts)))
    adapters = {id(parameter) for name, parameter in model.named_parameters() if is_of_adapter(name)}
    for part in freeze:
        for parameter in found[part]:
            parameter.requires_grad_(id(parameter) in adapters)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise InputError(f"freeze must leave something to train, got {list(freeze)}; leave a part out")
    for part, rate in (arguments.learning_rates or {}).items():
        if not any(parameter.requires_grad for parameter in found[part]):
            raise InputError(f"learning_rates.{part} must be of a part that is trained, got {rate:g}; leave it out")


def frozen_modules(model: nn.Module) -> list[nn.Module]:
    """The largest modules that have parameters, none of which is trained."""
    parameters = list(model.parameters())
    if parameters and not any(parameter.requires_grad for parameter in parameters):
        return [model]
    return [module for child in model.children() for module in frozen_modules(child)]


def keep_recomputing(frozen: Iterable[nn.Module]) -> list[GradientCheckpointingLayer]:
    """The layers in frozen modules that gradient checkpointing recomputes, which they do in training mode alone.

    Their own rates of dropout become 0, so that in that mode too they compute what they do afterwards. Modules inside
    them stay in evaluation mode.
    """
    layers = [one for module in frozen for one in module.modules() if isinstance(one, GradientCheckpointingLayer)]
    for layer in layers:
        for name, value in vars(layer).items():
            if "drop" in name and isinstance(value, float):
                setattr(layer, name, 0.0)
    return layers


def split_groups(
    groups: Sequence[Mapping[str, Any]], model: PreTrainedModel, learning_rates: Mapping[str, float]
) -> list[dict[str, Any]]:
    """An optimizer's parameter groups, divided further by learning rate, in the order of the parts."""
    rates: dict[int, float | None] = {}
    for part, parameters in parameters_by_part(model, list(learning_rates)).items():
        rates |= {id(parameter): learning_rates.get(part) for parameter in parameters}  # type: ignore[arg-type]
    divided = []
    for group in groups:
        for rate in (None, *dict.fromkeys(learning_rates.values())):
            members = [parameter for parameter in group["params"] if rates[id(parameter)] == rate]
            if members:
                divided.append({**group, "params": members, **({} if rate is None else {"lr": rate})})
    return divided


def trained_parameters(model: nn.Module) -> int:
    """The number of parameters that are trained."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
