"""What the machine can do."""

import functools
import platform
from pathlib import Path

import torch


def accelerator_or_cpu() -> torch.device:
    """The device that a model trains and runs on unless something else is asked for."""
    found = torch.accelerator.current_accelerator(check_available=True)
    return torch.device("cpu") if found is None else found


@functools.cache
def multiplies_bfloat16(device: torch.device | str) -> bool:
    """Whether a device multiplies bfloat16 natively.

    Where it only emulates this, as most processors without AVX-512 BF16 and AMX do, matrix products in bfloat16 take
    two to four times as long as in float32.

    Args:
        device: of any index; its type is what counts, and of a CUDA device the current one.
    """
    kind = torch.device(device).type
    if kind == "cpu":
        return _processor_multiplies_bfloat16()
    if kind in ("cuda", "xpu"):
        return bool(getattr(torch, kind).is_bf16_supported(including_emulation=False))
    if kind == "mps":
        return bool(torch.backends.mps.is_macos_or_newer(14, 0))
    return False


def _processor_multiplies_bfloat16() -> bool:
    if platform.machine().lower() in ("aarch64", "arm64"):
        return _arm_multiplies_bfloat16()
    # torch has no public question for this before 2.11; these two are in every version since 2.5.
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def _arm_multiplies_bfloat16() -> bool:
    if hasattr(torch.cpu, "get_capabilities"):
        return bool(torch.cpu.get_capabilities().get("bf16", False))
    described = Path("/proc/cpuinfo")
    if not described.exists():
        return False
    lines = described.read_text(encoding="utf-8", errors="replace").splitlines()
    return any("bf16" in line.split() for line in lines if line.startswith("Features"))
