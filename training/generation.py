"""How a trained model generates: a recipe's `generation`, checked before anything is trained."""

import copy
from collections.abc import Mapping
from typing import Any

from transformers import GenerationConfig, PreTrainedConfig, PreTrainedModel
from transformers.generation import GenerationMode

from ..utils.errors import InputError
from .validation import one_line

GENERATION_MODES = {
    GenerationMode.GREEDY_SEARCH,
    GenerationMode.SAMPLE,
    GenerationMode.BEAM_SEARCH,
    GenerationMode.BEAM_SAMPLE,
}


def beams_of(model: PreTrainedModel) -> int:
    """The beams that the model generates with; 1 for one that does not generate."""
    return getattr(getattr(model, "generation_config", None), "num_beams", None) or 1


def generation_config(
    given: Mapping[str, Any],
    default_length: Mapping[str, int],
    config: PreTrainedConfig,
    saved: GenerationConfig | None = None,
) -> GenerationConfig:
    """How the model generates, for the test and for its users.

    Args:
        given: the fields that the recipe sets.
        default_length: `max_length` or `max_new_tokens`, where the recipe sets neither.
        saved: what the model was saved with, whose other fields stay.

    Raises:
        InputError: settings that do not fit one another, or that `generate` has no method for.
    """
    length = {} if given.keys() & {"max_length", "max_new_tokens"} else default_length
    try:
        made = GenerationConfig.from_model_config(config) if saved is None else copy.deepcopy(saved)
        made.update(max_length=None, max_new_tokens=None)
        # A config that was trained says false, as Trainer sets it; generating without a cache is much slower.
        made.update(**{"use_cache": True, **length, **given})
        made.validate(strict=True)
        mode = made.get_generation_mode()
    except (ValueError, TypeError, AttributeError) as error:
        raise InputError(f"generation: {one_line(error)}") from error
    if mode not in GENERATION_MODES:
        raise InputError(
            f"generation asks for {mode.value.replace('_', ' ')}, which Transformers has only as code on the Hub: "
            "leave its settings out, and use greedy search, sampling or beams"
        )
    return made


def check_generated_length(given: Mapping[str, Any], positions: int) -> None:
    """Refuse more tokens to generate than a model has positions. Raises InputError."""
    # The start token has a position, the last token needs none; `max_length` counts both.
    for name, most in {"max_new_tokens": positions, "max_length": positions + 1}.items():
        if (length := given.get(name)) is not None and length > most:
            raise InputError(
                f"generation.{name} must be at most {most} with max_position_embeddings={positions}, got {length}"
            )
