"""What CTranslate2 cannot express: every reason at once, each with how to fix it."""

from collections.abc import Iterator, Mapping
from typing import Any

from transformers import GenerationConfig, PreTrainedConfig

from ..configuration.crossmask import CrossMaskConfig
from ..masks.expressions import Mask
from ..masks.rules import causal, full, window
from ..utils.errors import InputError
from .generation import end_tokens, start_token

# By the names of Transformers, the member of CTranslate2's `Activation`.
ACTIVATIONS = {
    "gelu": "GELU",
    "gelu_fast": "GELUTanh",
    "gelu_new": "GELUTanh",
    "gelu_python": "GELU",
    "gelu_pytorch_tanh": "GELUTanh",
    "quick_gelu": "GELUSigmoid",
    "relu": "RELU",
    "sigmoid": "Sigmoid",
    "silu": "SWISH",
    "swish": "SWISH",
    "tanh": "Tanh",
}
ROPE_TYPES = ("default", "linear")
# Settings of generation that are done as by `generate()`; the model itself checks their values.
_DONE = (
    *("num_beams", "length_penalty", "early_stopping", "max_new_tokens", "max_length"),
    *("pad_token_id", "bos_token_id", "eos_token_id", "decoder_start_token_id"),
)
# `generate()` reads them only where it samples.
_OF_SAMPLING = ("temperature", "top_k", "top_p", "min_p", "top_h", "typical_p", "epsilon_cutoff", "eta_cutoff")
_DEFAULTS: Mapping[str, Any] = GenerationConfig._get_default_generation_params()
# The values that change nothing, besides None and Transformers' defaults. All other settings are refused, those too
# that a later Transformers has.
_NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    "guidance_scale": (1,),
    "min_new_tokens": (0,),
    **dict.fromkeys(
        (
            *("output_attentions", "output_hidden_states", "output_logits", "renormalize_logits", "token_healing"),
            *("disable_compile", "is_assistant", "low_memory", "use_mtp"),
        ),
        (False,),
    ),
}
FIX = 'export to "onnx", or generate with the model in PyTorch'
_TO_ONNX = 'export to "onnx", which has it'


def refusals(config: PreTrainedConfig, generation: GenerationConfig | None = None) -> list[str]:
    """Why CTranslate2 cannot run a model: one line for each reason, with how to fix it; none if it can.

    Masks are compared by what they allow in generation, so that rules for training alone do not matter.

    ```python
    >>> refusals(CrossMaskConfig(cross_mask="wait_k(3)", memory_length=None))
    ['cross_mask must be full() in every layer, got wait_k(3) in layers 0 to 5; export to "onnx", which has it']
    ```

    Args:
        config: of the model. generation: its settings of generation, if they are to be checked too.
    """
    if not isinstance(config, CrossMaskConfig):
        return [
            f"the model must be a CrossMaskForConditionalGeneration, got a model of {type(config).__name__}; use "
            "CTranslate2's own converter, which has no masks"
        ]
    reasons = [*_of_masks(config), *_of_network(config)]
    if generation is None:
        return [*reasons, *_of_ends("", config)]
    # `generate()` does not ask the config for the end.
    return [*reasons, *_of_ends("generation_config.", generation), *generation_refusals(generation)]


def read_window(rule: Mask) -> int:
    """How many earlier tokens a decoder's rule leaves to each token beside itself, -1 for all of them.

    Args:
        rule: of one layer, without rules for other layers or for training.

    Raises:
        InputError: it is neither `causal()` nor `causal() & window(W)`.
    """
    if rule == causal():
        return -1
    windows = [part for part in rule.rules() if isinstance(part, window)]
    if windows:
        joined: Mask = causal()
        for part in windows:
            joined = joined & part
        if rule == joined:
            return min(part.left for part in windows)
    raise InputError(f"the rule must be causal() or causal() & window(W), got {rule}")


def generation_rules(config: CrossMaskConfig, scope: str) -> tuple[Mask, ...]:
    """The rule of each layer as it holds in generation."""
    rules = config.layer_masks(scope)  # type: ignore[arg-type]  # one of the three scopes
    return tuple(rule.for_layer(layer, len(rules), training=False) for layer, rule in enumerate(rules))


def _of_masks(config: CrossMaskConfig) -> Iterator[str]:
    for scope in ("encoder", "cross"):
        rules = generation_rules(config, scope)
        if wrong := [layer for layer, rule in enumerate(rules) if rule != full()]:
            yield (
                f"{scope}_mask must be full() in every layer, got {rules[wrong[0]].brief_text()} in "
                f"{_layers(wrong)}; {_TO_ONNX}"
            )
    rules = generation_rules(config, "decoder")
    wrong = [layer for layer, rule in enumerate(rules) if not _has_window(rule)]
    if wrong:
        yield (
            "decoder_mask must be causal() or causal() & window(W) in every layer, got "
            f"{rules[wrong[0]].brief_text()} in {_layers(wrong)}; {_TO_ONNX}"
        )


def _has_window(rule: Mask) -> bool:
    try:
        read_window(rule)
    except InputError:
        return False
    return True


def _layers(numbers: list[int]) -> str:
    if len(numbers) == 1:
        return f"layer {numbers[0]}"
    if numbers == list(range(numbers[0], numbers[-1] + 1)):
        return f"layers {numbers[0]} to {numbers[-1]}"
    return f"layers {', '.join(map(str, numbers))}"


def _of_network(config: CrossMaskConfig) -> Iterator[str]:
    if config.memory_length is not None:
        yield f"memory_length must be None, got {config.memory_length}; {_TO_ONNX}"
    if config.cross_attention_score != "dot":
        yield f'cross_attention_score must be "dot", got {config.cross_attention_score!r}; {_TO_ONNX}'
    if config.hidden_act not in ACTIVATIONS:
        yield f"hidden_act must be one of {', '.join(sorted(ACTIVATIONS))}, got {config.hidden_act!r}; {_TO_ONNX}"
    kind = (config.rope_parameters or {}).get("rope_type", "default")
    if kind not in ROPE_TYPES:
        yield f"rope_parameters: rope_type must be one of {', '.join(ROPE_TYPES)}, got {kind!r}; {_TO_ONNX}"


def _of_ends(prefix: str, settings: Any) -> Iterator[str]:
    if len(end_tokens(settings)) != 1:
        yield f"{prefix}eos_token_id must be one token, got {settings.eos_token_id}; set it to the tokenizer's"


def generation_refusals(generation: GenerationConfig) -> Iterator[str]:
    """Why CTranslate2 cannot decode under these settings, as `refusals`."""
    if type(start := start_token(generation)) is not int:
        yield f"generation_config.decoder_start_token_id must be one token, got {start}; set it to the tokenizer's"
    for name, value in vars(generation).items():
        if name.startswith("_") or name in ("transformers_version", *_DONE, *_OF_SAMPLING):
            continue
        default = _DEFAULTS.get(name)
        if value is not None and value != default and value not in _NEUTRAL.get(name, ()):
            fix = "leave it out" if default is None else f"set it to {default}"
            yield f"generation_config.{name} must have no effect, got {value}; {fix}, or {FIX}"
    if generation.early_stopping == "never" and generation.length_penalty not in (0, None):
        yield (
            'generation_config.early_stopping must not be "never", since CTranslate2 stops at num_beams finished '
            f"hypotheses; set it to True, or {_TO_ONNX}"
        )
