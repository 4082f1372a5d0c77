"""What a run needs of this machine and its libraries, asked for before anything is read."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import torch
from transformers.integrations import (
    INTEGRATION_TO_CALLBACK,
    get_available_reporting_integrations,
    is_deepspeed_available,
)
from transformers.integrations.integration_utils import is_flytekit_available
from transformers.utils import (
    is_flash_attn_2_available,
    is_flash_attn_3_available,
    is_flash_attn_4_available,
    is_kernels_available,
    is_psutil_available,
)

from ..utils.errors import InputError
from ..utils.type_checks import check_choice
from .schedule import check_scheduler

if TYPE_CHECKING:
    from transformers import TrainingArguments

    from .run_arguments import RunArguments

# Where the package has another name than the logger.
PACKAGES = {"comet_ml": "comet-ml", "azure_ml": "azureml-mlflow", "flyte": "flytekit flytekitplugins-deck-standard"}
FLASH = {
    "flash_attention_2": (is_flash_attn_2_available, "flash-attn"),
    "flash_attention_3": (is_flash_attn_3_available, "flash_attn_3"),
    "flash_attention_4": (is_flash_attn_4_available, "flash-attn-4"),
}


def check_requirements(attn_implementation: str | None, arguments: RunArguments) -> None:
    """Refuse what is not installed or not possible on this machine.

    Args:
        attn_implementation: of the recipe.

    Raises:
        InputError: with the field, and the command that installs what is missing.
        MissingLibraryError: matplotlib, which every report draws with, is not there.
    """
    from .. import plotting  # noqa: F401 - refuses where matplotlib is missing

    check_loggers(arguments)
    check_attention_runs(attn_implementation)
    check_compiler(arguments)
    check_scheduler(arguments)
    if not arguments.skip_memory_metrics and not is_psutil_available():
        raise InputError(missing("skip_memory_metrics", "false", "psutil"))


def spread_by(arguments: TrainingArguments) -> str | None:
    """What spreads the weights over processes, so that none has all of them; None where nothing does."""
    for name in ("fsdp", "deepspeed"):
        if getattr(arguments, name, None) or os.environ.get(f"ACCELERATE_USE_{name.upper()}", "").lower() == "true":
            return name
    return None


def missing(field: str, value: object, package: str, instead: str = "leave it out") -> str:
    """The line that says what to install."""
    return f"{field} is {value}, which needs a package that is not installed: pip install {package}, or {instead}"


def check_loggers(arguments: RunArguments) -> None:
    """Refuse loggers that do not exist or are not installed."""
    installed = {*get_available_reporting_integrations(), *(["flyte"] if is_flytekit_available() else [])}
    for name in arguments.report_to:
        if name in ("none", "all"):
            raise InputError(f"report_to must have {name} alone, got {arguments.report_to}; leave the others out")
        check_choice("report_to", name, ["none", "all", *INTEGRATION_TO_CALLBACK])
        if name not in installed:
            raise InputError(missing("report_to", name, PACKAGES.get(name, name), "set report_to to none"))


def check_attention_runs(name: str | None) -> None:
    """Refuse an attention implementation whose package or device is not there."""
    if name in FLASH:
        is_available, package = FLASH[name]
        if not torch.accelerator.is_available():
            raise InputError(
                f"attn_implementation must be blockwise, eager or sdpa without a GPU, got {name}; use one of them"
            )
        if not is_available():
            raise InputError(missing("attn_implementation", name, package, "set it to blockwise, eager or sdpa"))
    if name is not None and "/" in name and not is_kernels_available():
        raise InputError(missing("attn_implementation", name, "kernels", "set it to blockwise, eager or sdpa"))


def check_deepspeed(given: object) -> None:
    """Refuse DeepSpeed where it is not installed: Transformers fails on it as it reads its arguments."""
    if given and not is_deepspeed_available():
        raise InputError(missing("deepspeed", repr(given), "deepspeed"))


def check_compiler(arguments: RunArguments) -> None:
    """Refuse backends of `torch.compile` that are unknown, and one that has no compiler to call."""
    if not arguments.torch_compile:
        return
    from torch import _dynamo, _inductor
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler
    from torch.utils._triton import has_triton

    check_choice("torch_compile_backend", arguments.torch_compile_backend, _dynamo.list_backends(exclude_tags=()))
    if arguments.torch_compile_mode is not None:
        check_choice("torch_compile_mode", arguments.torch_compile_mode, ["default", *_inductor.list_mode_options()])
    if arguments.torch_compile_backend != "inductor":
        return
    if arguments.device.type == "cuda" and not has_triton():
        raise InputError(missing("torch_compile", "true", "triton"))
    if arguments.device.type == "cpu":
        try:
            get_cpp_compiler()
        except InvalidCxxCompiler as error:
            raise InputError(
                "torch_compile must be false on a processor without a C++ compiler, got true; install g++"
            ) from error
