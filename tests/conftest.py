"""One thread: on tensors as small as the tests', threads mostly wait for each other."""

import torch

torch.set_num_threads(1)
