"""From a config's mask, one text or a mapping from layers to texts, to one mask per layer."""

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

from ..masks.equivalence import check_possible
from ..masks.expressions import Mask, MaskError, once
from ..masks.foreign import is_foreign
from ..masks.limits import LAYERS_LIMIT, RULES_LIMIT, TEXT_LIMIT, brief
from ..masks.rules import heads, parse, random
from ..masks.rules import layers as layers_rule
from ..masks.rules.per_head_and_layer import REST, Runs, missing_numbers, read_runs

LayerTexts = str | dict[Any, Any]
"""A mask's text for all layers, or a mapping from layers to texts, with the keys as JSON or a user has them."""


def masks_of_layers(text: LayerTexts, layers: int, name: str) -> tuple[Mask, ...]:
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
        MaskError: a text that cannot be read, a layer that does not exist, is named twice, or has no mask, a mask
            that never allows anything, or more layers or rules than a model may have.
    """
    if layers > LAYERS_LIMIT:
        raise MaskError(f"{name}: there must be at most {LAYERS_LIMIT:,} layers, got {brief(layers)}")
    runs = _read(text, layers, name)
    try:
        masks = tuple(_resolve(runs, layers))
    except MaskError as error:
        raise MaskError(f"{name}: {error}") from error
    check_possible(masks, name)
    return masks


def check_heads(masks: Sequence[Mask], count: int, name: str) -> None:
    """Check that the heads that the masks of layers name are those of `count` heads.

    Raises:
        MaskError: a head does not exist, or has no mask; the message starts with `name`.
    """
    for rule in (rule for mask in once(masks) for rule in mask.rules() if isinstance(rule, heads)):
        try:
            rule.check_count(count)
        except MaskError as error:
            raise MaskError(f"{name}: {error}") from error


def check_lasting(masks: Sequence[Mask], name: str) -> None:
    """Check that no mask of a config draws by chance: its one seed would draw the same at every step.

    Raises:
        MaskError: one does; the message starts with `name`.
    """
    for rule in (rule for mask in once(masks) for rule in mask.rules() if isinstance(rule, random)):
        raise MaskError(
            f"{name}: {rule} in a config would forbid the same pairs at every step; give it in the call, with a new "
            f"seed each time: model(..., {name}=masks.random(p={rule.p}, seed=step))"
        )


def as_text(given: Any, name: str) -> LayerTexts:
    """A config's mask as JSON can hold it: values, in a mapping from layers too, become their text.

    Raises:
        MaskError: it is neither a mask, nor a text, nor a mapping, or its text would be longer than can be read back.
    """
    if isinstance(given, dict):
        return {key: as_text(mask, f"{name}[{key!r}]") for key, mask in given.items()}
    if isinstance(given, Mask) or is_foreign(given, Mask):
        return str(given)
    if not isinstance(given, str):
        raise MaskError(f"{name} must be a mask or its text, or a mapping from layers to them, got {brief(given)}")
    return given


def _read(text: LayerTexts, layers: int, name: str) -> Runs:
    """First and last layer, and their mask, for all layers."""
    if isinstance(text, str):
        return ((0, layers - 1, _parse(text, name)),)
    size = sum(len(value) for value in text.values() if isinstance(value, str))
    if size > TEXT_LIMIT:
        raise MaskError(f"{name}: the masks of all layers must have at most {TEXT_LIMIT:,} characters, got {size:,}")
    named = read_runs({key: key for key in text}, "layer", name)
    for _, last, key in named:
        if last >= layers:
            raise MaskError(f"{name}: {key!r} names layer {last}, but there are {layers} layers, counted from 0")
    masks = {key: _parse(value, f"{name}[{key!r}]") for key, value in text.items()}
    missing = missing_numbers(named, layers)
    if missing and REST not in text:
        raise MaskError(f'{name}: no mask for layers {brief(missing)}; name them or add "rest"')
    runs, after = [], 0
    for first, last, key in (*named, (layers, layers, None)):
        if first > after:
            runs.append((after, first - 1, masks[REST]))
        if key is not None:
            runs.append((first, last, masks[key]))
        after = last + 1
    return tuple(runs)


def _resolve(runs: Runs, layers: int) -> Iterable[Mask]:
    """The mask of every layer; layers among which no rule tells share one value.

    Raises:
        MaskError: a mask names layers that are not there, or too many rules would be looked at.
    """
    size = 0
    for first, last, mask in runs:
        rules = [rule for rule in mask.rules() if isinstance(rule, layers_rule)]
        ends = {end for rule in rules for begin, last_named, _ in rule.runs for end in (begin, last_named + 1)}
        borders = [first, *sorted(end for end in ends if first < end <= last), last + 1]
        outside = mask.extent.rules - sum(rule.extent.rules for rule in rules)
        for begin, end in pairwise(borders):
            resolved = mask.for_layer(begin, layers)
            size += max(resolved.extent.rules, outside)
            if size > RULES_LIMIT:
                raise MaskError(
                    f"the masks of all layers must have at most {RULES_LIMIT:,} rules together; let neighbours have "
                    "the same mask, or join fewer rules"
                )
            yield from (resolved,) * (end - begin)


def _parse(text: str, name: str) -> Mask:
    try:
        return parse(text)
    except MaskError as error:
        raise MaskError(f"{name}: {error}") from error
