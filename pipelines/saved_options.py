"""What a saved model's config says of how it is used for a task."""

from collections.abc import Iterable, Mapping
from typing import Any

from transformers import PreTrainedConfig

from .inputs import PipelineInputError

_TEXTS = {"prefix", "source_template", "no_answer", "quote"}


def saved_options(config: PreTrainedConfig, task: str, known: Iterable[str]) -> dict[str, Any]:
    """The options among `known` that a config has for a task in `task_specific_params`, as T5's has a prefix for some.

    Args:
        task: a pipeline's, with or without `crossmask-` before it.

    Raises:
        PipelineInputError: what the config has is no such option.
    """
    task = task.removeprefix("crossmask-")
    saved = getattr(config, "task_specific_params", None) or {}
    found = _mapping(_mapping(saved, "task_specific_params").get(task) or {}, f"task_specific_params.{task}")
    options = {name: found[name] for name in known if found.get(name) is not None}
    for name, value in options.items():
        if name in _TEXTS and not isinstance(value, str):
            raise PipelineInputError(
                f"task_specific_params.{task}.{name} of the model's config must be a text, got {value!r}; correct it"
            )
    return options


def saved_prefix(config: PreTrainedConfig, task: str) -> str:
    """What the config has before every source text of a task, `""` where it has nothing. Raises as `saved_options`."""
    return str(saved_options(config, task, ["prefix"]).get("prefix", ""))


def _mapping(value: Any, name: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise PipelineInputError(f"{name} of the model's config must be a mapping, got {value!r}; correct it")
    return value
