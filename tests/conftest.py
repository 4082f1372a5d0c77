"""One thread: on tensors as small as the tests', threads mostly wait for each other. And kernels that no CPU has."""

import pytest
import torch
from flash_reference import flash_attn_func, flash_attn_varlen_func
from torch.nn.attention import flex_attention as flex
from transformers import modeling_flash_attention_utils as flash_utils

torch.set_num_threads(1)


@pytest.fixture
def without_kernels(monkeypatch):
    """FlexAttention without its kernel, which takes minutes to build; FlashAttention's functions in plain torch."""
    monkeypatch.setattr(flex, "_FLEX_ATTENTION_DISABLE_COMPILE_DEBUG", True)
    functions = (flash_attn_func, flash_attn_varlen_func, None, None, None)
    monkeypatch.setattr(flash_utils, "_lazy_imports", lambda *args, **kwargs: functions)
    monkeypatch.setattr(flash_utils, "_loaded_implementation", None)
    torch.compiler.set_stance("force_eager")
    yield
    torch.compiler.set_stance("default")
