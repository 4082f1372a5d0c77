"""What the machine can do."""

import pytest
import torch

from crossmask.utils import hardware


@pytest.fixture(autouse=True)
def asked_anew():
    hardware.multiplies_bfloat16.cache_clear()
    yield
    hardware.multiplies_bfloat16.cache_clear()


@pytest.mark.parametrize(("avx512", "amx", "expected"), [(0, 0, False), (1, 0, True), (0, 1, True)])
def test_a_processor_multiplies_bfloat16_by_avx512_or_amx(monkeypatch, avx512, amx, expected):
    monkeypatch.setattr(hardware.platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: bool(avx512))
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: bool(amx))
    assert hardware.multiplies_bfloat16("cpu") is expected


@pytest.mark.parametrize(("features", "expected"), [("fp asimd bf16", True), ("fp asimd sve", False)])
def test_an_arm_processor_says_so(monkeypatch, tmp_path, features, expected):
    monkeypatch.setattr(hardware.platform, "machine", lambda: "aarch64")
    has = {"bf16": "bf16" in features}
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: has, raising=False)
    assert hardware.multiplies_bfloat16(torch.device("cpu")) is expected
    hardware.multiplies_bfloat16.cache_clear()
    monkeypatch.delattr(torch.cpu, "get_capabilities")  # of older versions of torch
    described = tmp_path / "cpuinfo"
    described.write_text(f"processor: 0\nFeatures\t: {features}\n")
    monkeypatch.setattr(hardware, "Path", lambda _: described)
    assert hardware.multiplies_bfloat16("cpu") is expected


@pytest.mark.parametrize("expected", [True, False])
def test_a_gpu_that_emulates_it_does_not(monkeypatch, expected):
    asked = {}
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **options: asked.update(options) or expected)
    assert hardware.multiplies_bfloat16("cuda:0") is expected
    assert asked == {"including_emulation": False}


def test_a_device_of_another_kind_does_not():
    assert not hardware.multiplies_bfloat16("meta")
    assert hardware.accelerator_or_cpu().type in ("cpu", "cuda", "mps", "xpu")
