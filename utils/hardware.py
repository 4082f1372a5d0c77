"""The devices of this machine, and what they can compute."""

import functools
import platform
from pathlib import Path

import torch

from .type_checks import check_choice


def accelerator_or_cpu() -> torch.device:
    """The device that a model trains and runs on by default."""
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    return torch.device("cpu") if accelerator is None else accelerator


def device_named(name: str | None) -> torch.device:
    """The device of this name, such as `cuda:1`; for None, `accelerator_or_cpu`.

    Raises:
        InputError: this machine has no such device.
    """
    default = accelerator_or_cpu()
    if name is None:
        return default
    names = ["cpu"]
    if default.type != "cpu":
        names += [default.type, *(f"{default.type}:{i}" for i in range(torch.accelerator.device_count()))]
    check_choice("device", name, names)
    return torch.device(name)


@functools.cache
def multiplies_bfloat16(device: torch.device | str) -> bool:
    """Whether a device multiplies bfloat16 natively.

    Where it only emulates this, as most processors without AVX-512 BF16 and AMX do, matrix products in bfloat16 take
    two to four times as long as in float32.

    Args:
        device: only its type counts; for `cuda` the current device is asked.
    """
    type_ = torch.device(device).type
    if type_ == "cpu":
        return _processor_multiplies_bfloat16()
    if type_ in ("cuda", "xpu"):
        return bool(getattr(torch, type_).is_bf16_supported(including_emulation=False))
    if type_ == "mps":
        return bool(torch.backends.mps.is_macos_or_newer(14, 0))
    return False


def _processor_multiplies_bfloat16() -> bool:
    if platform.machine().lower() in ("aarch64", "arm64"):
        return _arm_multiplies_bfloat16()
    # torch has no public function for this before 2.11; these two are in every version since 2.5.
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def _arm_multiplies_bfloat16() -> bool:
    if hasattr(torch.cpu, "get_capabilities"):
        return bool(torch.cpu.get_capabilities().get("bf16", False))
    cpuinfo = Path("/proc/cpuinfo")
    if not cpuinfo.exists():
        return False
    lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    return any("bf16" in line.split() for line in lines if line.startswith("Features"))
