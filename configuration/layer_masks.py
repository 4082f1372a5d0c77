"""From a config's mask, one text or a mapping from layers to texts, to one mask per layer."""

import re
from typing import Any

from ..masks.algebra import check_possible
from ..masks.base import Mask, MaskError
from ..masks.foreign import is_foreign
from ..masks.parse import parse


def masks_of_layers(text: str | dict, layers: int, name: str) -> tuple[Mask, ...]:
    """One mask for each of `layers` layers.

    ```python
    >>> masks_of_layers({"0-1": "window(8)", "rest": "full()"}, 3, "encoder_mask")
    (window(left=8), window(left=8), full())
    ```

    Args:
        text: a mask's text for all layers, or a mapping whose keys are a layer (`"0"`), an inclusive range (`"0-3"`)
            or `"rest"`.
        name: the field's name, for errors.

    Raises:
        MaskError: a text that cannot be read, a layer that does not exist, is named twice, or has no mask, or a mask
            that never allows anything.
    """
    masks = _read(text, layers, name)
    try:
        masks = tuple(mask.resolve(layer, layers) for layer, mask in enumerate(masks))
    except MaskError as error:
        raise MaskError(f"{name}: {error}") from error
    check_possible(masks, name)
    return masks


def as_text(given: Any, name: str) -> str | dict:
    """A config's mask as JSON can hold it: values, in a mapping from layers too, become their text.

    Raises:
        MaskError: it is neither a mask, nor a text, nor a mapping.
    """
    if isinstance(given, dict):
        return {key: as_text(mask, f"{name}[{key!r}]") for key, mask in given.items()}
    if isinstance(given, Mask) or is_foreign(given, Mask):
        return str(given)
    if not isinstance(given, str):
        raise MaskError(f"{name} must be a mask or its text, or a mapping from layers to them, got {given!r}")
    return given


def _read(text: str | dict, layers: int, name: str) -> tuple[Mask, ...]:
    if isinstance(text, str):
        return (_parse(text, name),) * layers
    rest = _parse(text["rest"], f"{name}['rest']") if "rest" in text else None
    chosen: dict[int, Mask] = {}
    for key, value in text.items():
        if key == "rest":
            continue
        for layer in _layers_of(str(key), layers, name):
            if layer in chosen:
                raise MaskError(f"{name}: layer {layer} is named twice; name every layer once")
            chosen[layer] = _parse(value, f"{name}[{key!r}]")
    missing = [layer for layer in range(layers) if layer not in chosen]
    if missing and rest is None:
        raise MaskError(f'{name}: no mask for layers {missing}; name them or add "rest"')
    chosen.update(dict.fromkeys(missing, rest))
    return tuple(chosen[layer] for layer in range(layers))


def _layers_of(key: str, layers: int, name: str) -> range:
    match = re.fullmatch(r"(\d+)(?:-(\d+))?", key)
    first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, -1)
    if not match or first > last:
        raise MaskError(f'{name}: {key!r} names no layers; write "0", "0-3" or "rest"')
    if last >= layers:
        raise MaskError(f"{name}: {key!r} names layer {last}, but there are {layers} layers, counted from 0")
    return range(first, last + 1)


def _parse(text: str, name: str) -> Mask:
    try:
        return parse(text)
    except MaskError as error:
        raise MaskError(f"{name}: {error}") from error
