"""What each test on a GPU begins with."""

import pytest
import torch


@pytest.fixture(autouse=True)
def fresh_device():
    """Nothing compiled for another test, and full precision, which a training run may have given up."""
    torch.compiler.reset()
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
