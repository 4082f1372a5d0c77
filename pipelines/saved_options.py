"""What a saved model's config says of how it is used for a task."""

from collections.abc import Iterable, Mapping
from typing import Any

from transformers import PreTrainedConfig


def saved_options(config: PreTrainedConfig, task: str, known: Iterable[str]) -> dict[str, Any]:
    """The options among `known` that a config has for a task in `task_specific_params`, as T5's has a prefix for some.

    Args:
        task: a pipeline's, with or without `crossmask-` before it.
    """
    saved: Mapping[str, Mapping[str, Any]] = getattr(config, "task_specific_params", None) or {}
    found = saved.get(task.removeprefix("crossmask-")) or {}
    return {name: found[name] for name in known if name in found}
