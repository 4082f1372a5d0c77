"""Any model that the explorer shows: our own, a bridge, or one of Transformers with masks attached."""

from pathlib import Path
from typing import Any

import torch

from ..attached import attach
from ..attached.attached_model import AttachedModel
from ..configuration.base import MaskedConfig
from ..inference.loading import load_model_and_tokenizer
from ..utils.errors import InputError
from ..utils.hardware import device_named
from .model import ExploredModel


def load_explored_model(name: str, device: str | None = None) -> ExploredModel:
    """A model in float32, from a folder or the Hub; masks are attached to one of Transformers.

    Args:
        device: an accelerator where there is one by default.

    Raises:
        OSError: it does not exist, or cannot be fetched.
        InputError: it cannot be read, or it is of a family that takes no masks.
        MaskError: a mask of the config that cannot be read.
    """
    place = device_named(device)
    loaded: tuple[Any, Any] = load_model_and_tokenizer(name, torch.float32)
    model, tokenizer = loaded
    if not isinstance(model, AttachedModel) and not isinstance(model.config, MaskedConfig):
        try:
            model = attach(model)
        except (TypeError, ValueError) as error:
            raise InputError(f"{name} must be of a family that takes masks: {error}") from error
    return ExploredModel(model.to(place), tokenizer, Path(name).name)
