"""Digests that tell whether a model, its tokenizer or a text is the same as before."""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import nn

SIZE = 16  # bytes


def digest(value: Any) -> str:
    """Of a value that JSON has; equal values have equal digests."""
    return hashlib.blake2b(json.dumps(value, sort_keys=True).encode(), digest_size=SIZE).hexdigest()


def digest_of_weights(model: nn.Module) -> str:
    """Of the names and the bytes of all weights."""
    state = hashlib.blake2b(digest_size=SIZE)
    for name, weight in model.state_dict().items():
        state.update(name.encode())
        state.update(weight.cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return state.hexdigest()


def digest_of_files(paths: Iterable[Path]) -> str:
    """Of the names and the bytes of files. Raises OSError."""
    found = []
    for path in sorted(paths):
        with path.open("rb") as file:
            found.append([path.name, hashlib.file_digest(file, "sha256").hexdigest()])
    return digest(found)
