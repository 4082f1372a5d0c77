"""Every encoder-decoder of Transformers for text and for speech, tiny: masks are put on it and measured.

`python tests/attached_walk.py whisper` prints one row. No list of classes says what is supported: models are built
from the fields of their configs, and the shape of a speech model's features is the one that it takes.
"""

import copy
import json
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from inspect import signature
from typing import Any

import torch
from attached_families import ids, sharpen
from family_walk import apart, first_line, isolated, outcome, same, tiny_values, without_chance
from torch import nn
from transformers import AttentionInterface, PreTrainedConfig, PreTrainedModel
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING,
    MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING,
)

from crossmask import attach
from crossmask.attached.attention_sites import SITE, layers_of

MAPPINGS = {"text": MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING, "speech": MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING}
IMPLEMENTATIONS = ("sdpa", "eager")
PARTS = {
    "encoder-decoder": [("bert", "bert"), ("roberta", "roberta"), ("bert", "gpt2")],
    "speech-encoder-decoder": [("wav2vec2", "bert"), ("wav2vec2-conformer", "bert")],
}
"""Classes that are made of two models, and of which ones here."""
TARGET, ROUNDING = 6, 1e-5
OPTIONS = {"max_new_tokens": 6, "eos_token_id": None, "do_sample": False}


def families(kind: str) -> list[str]:
    """The families of a mapping, with the models that a combined one is made of: `encoder-decoder (bert, gpt2)`."""
    configs = [config for config in MAPPINGS[kind] if config.__module__.startswith("transformers.")]
    names = sorted({config.model_type for config in configs})
    return [f"{name} ({', '.join(parts)})" if parts else name for name in names for parts in PARTS.get(name, [()])]


def build(kind: str, family: str) -> PreTrainedModel:
    name, _, parts = family.partition(" (")
    config_class = CONFIG_MAPPING[name]
    torch.manual_seed(0)
    if parts:
        sides = [_config(part) for part in parts.removesuffix(")").split(", ")]
        config = without_chance(config_class.from_encoder_decoder_configs(*sides))
        config.pad_token_id = 0
    else:
        config = _config(name)
    config.decoder_start_token_id = 3
    return sharpen(MAPPINGS[kind][config_class](config))


def build_in_full_size(kind: str, family: str) -> PreTrainedModel:
    """A model of a family whose fields do not fit each other where they are tiny. It cannot run."""
    config_class = CONFIG_MAPPING[family]
    with torch.device("meta"):
        return MAPPINGS[kind][config_class](config_class())


def _config(name: str) -> PreTrainedConfig:
    config_class = CONFIG_MAPPING[name]
    values = tiny_values(config_class)
    if "max_source_positions" in config_class.__dataclass_fields__:
        values["max_source_positions"] = 16
    return without_chance(config_class(**values))


class Case:
    """A model of a family, new each time, and a batch that it takes."""

    def __init__(self, kind: str, family: str):
        self.built = build(kind, family)
        parameters = signature(self.built.generate).parameters
        self.input_name = "input_features" if "input_features" in parameters else self.built.main_input_name
        self.target = ids(2, TARGET, seed=1)
        self.source = self._source()
        self.implementations = list(self._implementations())
        self.encoder_masks = True

    def _source(self) -> dict[str, torch.Tensor]:
        """What the untouched model takes.

        Raises:
            ValueError: it takes nothing that is tried.
        """
        errors = []
        for source in [{"input_ids": ids(2, 9)}] if self.input_name == "input_ids" else self._features():
            try:
                self.built(**source, decoder_input_ids=self.target)
            except Exception as error:  # the next may fit
                errors.append(first_line(error))
                continue
            return source
        raise ValueError(errors[0])

    def _features(self) -> Iterator[dict[str, torch.Tensor]]:
        parts = [part.config for part in self.built.modules() if isinstance(part, PreTrainedModel)]
        words = ("bins", "feat", "d_model", "hidden_size")
        sizes = {
            value
            for config in parts
            for name, value in config.to_dict().items()
            if type(value) is int and 1 < value < 1024 and any(word in name for word in words)
        }
        frames = {2 * getattr(config, "max_source_positions", 16) for config in parts}
        generator = torch.Generator().manual_seed(0)
        shapes: list[tuple[int, ...]] = [(2, 4000)]
        for size in sorted(sizes, reverse=True):
            shapes += [shape for count in sorted(frames) for shape in ((2, size, count), (2, count, size))]
        for shape in shapes:
            yield {self.input_name: torch.randn(shape, generator=generator)}

    def _implementations(self) -> Iterator[str]:
        for name in IMPLEMENTATIONS:
            model = copy.deepcopy(self.built)
            try:
                model.set_attn_implementation(name)
            except ValueError:
                continue
            if {name} == {part.config._attn_implementation for part in (model.get_encoder(), model.get_decoder())}:
                yield name

    def plain(self, implementation: str) -> PreTrainedModel:
        model = copy.deepcopy(self.built)
        model.set_attn_implementation(implementation)
        return model

    def attached(self, implementation: str, **masks: Any) -> PreTrainedModel:
        return attach(self.plain(implementation), **masks)

    def logits(self, model: PreTrainedModel, target: torch.Tensor | None = None, **call: Any) -> torch.Tensor:
        target = self.target if target is None else target
        return model(**{**self.source, **call}, decoder_input_ids=target).logits

    def generates(self) -> None:
        """Raises whatever the untouched model raises."""
        self.built.generate(**self.source, **OPTIONS)

    @property
    def masks(self) -> dict[str, str]:
        return {"cross_mask": "wait_k(2)", **({"encoder_mask": "causal()"} if self.encoder_masks else {})}


def unchanged(found: torch.Tensor, before: torch.Tensor, what: str) -> str | None:
    """Equal to the bit; experts multiply other rows together, which rounds differently."""
    if torch.equal(found, before):
        return None
    return None if apart(found, before) < ROUNDING else f"WRONG: {what} changes by {apart(found, before):.1g}"


def influence(after: torch.Tensor, before: torch.Tensor, may: torch.Tensor, what: str) -> str | None:
    """Outputs (B, T, C) change only where they may, (B, T) bool, and somewhere they do."""
    if wrong := unchanged(after[~may], before[~may], f"what cannot see {what}"):
        return wrong
    return "WRONG: nothing changes" if may.any() and torch.equal(after, before) else None


class Shift:
    """A hook that changes one state, after the encoder or before its first layer."""

    def __init__(self, position: int):
        self.position = position

    def shifted(self, states: torch.Tensor) -> torch.Tensor:
        states = states.clone()
        states[:, self.position] += 3 * torch.linspace(-1, 1, states.shape[-1])
        return states

    def after(self, module: nn.Module, args: tuple, output: Any) -> Any:
        if isinstance(output, tuple):
            return (self.shifted(output[0]), *output[1:])
        output.last_hidden_state = self.shifted(output.last_hidden_state)
        return output

    def before(self, module: nn.Module, args: tuple, kwargs: dict) -> Any:
        if args:
            return (self.shifted(args[0]), *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": self.shifted(kwargs["hidden_states"])}


def untouched(case: Case, implementation: str) -> str | None:
    model = case.plain(implementation)
    before = case.logits(model)
    attach(model)
    after = [case.logits(model), case.logits(model, cross_mask="full()", decoder_mask="causal()")]
    return None if all(torch.equal(each, before) for each in after) else "WRONG: not the untouched model's outputs"


def cross_mask(case: Case, implementation: str) -> str | None:
    model = case.attached(implementation)
    encoder = model.get_encoder()
    states = encoded(case, model)
    allowed = torch.rand(2, TARGET, states.shape[1], generator=torch.Generator().manual_seed(2)) > 0.6
    allowed[:, 0, 0] = True
    before = case.logits(model, cross_mask=allowed)
    may = allowed.cummax(1).values  # what an earlier token saw, a later one has from it
    for position in range(0, min(states.shape[1], 12), 2):
        handle = encoder.register_forward_hook(Shift(position).after)
        after = case.logits(model, cross_mask=allowed)
        handle.remove()
        if wrong := influence(after, before, may[:, :, position], "a source state"):
            return wrong
    return None


def encoded(case: Case, model: PreTrainedModel) -> torch.Tensor:
    """(B, S, C) what the encoder gives the decoder."""
    found: list[torch.Tensor] = []
    handle = model.get_encoder().register_forward_hook(lambda module, args, output: found.append(output[0]))
    case.logits(model)
    handle.remove()
    return found[0]


def encoder_mask(case: Case, implementation: str) -> str | None:
    """A state that is changed before the first layer reaches those that attention passes it on to, layer by layer."""
    model = case.attached(implementation)
    encoder, states = model.get_encoder(), encoded(case, model)
    size = states.shape[1]
    allowed = torch.rand(size, size, generator=torch.Generator().manual_seed(2)) > 0.8
    layers = layers_of(encoder)
    reach = torch.eye(size, dtype=torch.bool)
    for _ in layers:
        reach = (reach.float() @ (allowed | torch.eye(size, dtype=torch.bool)).float()) > 0
    results: list[torch.Tensor] = []
    encoder.register_forward_hook(lambda module, args, output: results.append(output[0]))
    call = {"encoder_mask": allowed.expand(2, -1, -1)}
    case.logits(model, **call)
    for position in range(0, min(size, 12), 2):
        handle = layers[0].register_forward_pre_hook(Shift(position).before, with_kwargs=True)
        case.logits(model, **call)
        handle.remove()
        before, after = results[0], results[-1]
        if wrong := influence(after, before, reach[:, position].expand(2, -1), "a state"):
            return wrong
    return None


def decoder_mask(case: Case, implementation: str) -> str | None:
    model = case.attached(implementation)
    allowed = torch.rand(TARGET, TARGET, generator=torch.Generator().manual_seed(2)).tril() > 0.5
    eye = torch.eye(TARGET, dtype=torch.bool)
    reach = eye
    for _ in model.attachment.attentions.decoder:
        reach = (reach.float() @ (allowed | eye).float()) > 0
    call = {"decoder_mask": allowed.expand(2, -1, -1)}
    before = case.logits(model, **call)
    for position in range(TARGET):
        changed = case.target.clone()
        changed[:, position] = 3
        after = case.logits(model, changed, **call)
        if wrong := influence(after, before, reach[:, position].expand(2, -1), "a target token"):
            return wrong
    return None


def scores_of(model: PreTrainedModel, source: dict, **options: Any) -> torch.Tensor:
    options = {**OPTIONS, **options, "output_logits": True, "return_dict_in_generate": True}
    return torch.stack(model.generate(**source, **options).logits)


def cached(case: Case, implementation: str) -> str | None:
    model = case.attached(implementation)
    size = encoded(case, model).shape[1]
    tensor = torch.rand(2, TARGET + 1, size, generator=torch.Generator().manual_seed(3)) > 0.5
    for call in (case.masks, {"cross_mask": tensor}, {"decoder_mask": "window(1)"}):
        if torch.equal(case.logits(model, **without_last(call)), case.logits(model)):
            return f"WRONG: {next(iter(call))} changes nothing"
        results = [scores_of(model, case.source, **call, use_cache=use_cache) for use_cache in (True, False)]
        if wrong := same(*results):
            return wrong
    return None


def without_last(call: dict) -> dict:
    """A call whose tensors have a row for each token of the target."""
    return {name: mask[:, :TARGET] if isinstance(mask, torch.Tensor) else mask for name, mask in call.items()}


def beams(case: Case, implementation: str) -> str | None:
    model = case.attached(implementation)
    if not torch.equal(*(m.generate(**case.source, **OPTIONS) for m in (case.plain(implementation), model))):
        return "WRONG: without masks, another text than the untouched model's"
    for call in (case.masks, {"decoder_mask": "window(1)", "cross_mask": "window(2)"}):
        options = {**OPTIONS, **call, "num_beams": 3}
        results = [model.generate(**case.source, **options, use_cache=use_cache) for use_cache in (True, False)]
        if not torch.equal(*results):
            return "WRONG: another text without a cache"
    return None


def blind(case: Case, implementation: str) -> str | None:
    model, source = case.attached(implementation), case.source.get("input_ids")
    call = {"encoder_mask": "blind((2, 5))", "cross_mask": "blind((2, 5))"}
    if source is None:
        return "does not apply"
    changed = source.clone()
    changed[:, 2:5] = torch.tensor([model.config.pad_token_id or 0, 3, 4])
    padding = torch.ones_like(source)
    results = [case.logits(model, input_ids=each, attention_mask=padding, **call) for each in (source, changed)]
    if torch.equal(results[0], case.logits(model)):
        return "WRONG: nothing is hidden"
    return None if torch.equal(*results) else "WRONG: a hidden token shows"


def zero(case: Case, implementation: str) -> str | None:
    """The output of interactive attention for a query with nothing to see, before it is projected."""
    model = case.attached(implementation)
    if model.attachment.attentions.merged:
        return "does not apply"
    allowed = torch.ones(2, TARGET, encoded(case, model).shape[1], dtype=torch.bool)
    allowed[:, 3] = False
    outputs: list[torch.Tensor] = []
    name = f"crossmask_{implementation}"
    function = ALL_ATTENTION_FUNCTIONS[name]
    AttentionInterface.register(name, partial(_recorded, function, outputs))
    try:
        logits = case.logits(model, cross_mask=allowed)
    finally:
        AttentionInterface.register(name, function)
    if len(outputs) != len(model.attachment.attentions.cross):
        return f"WRONG: {len(outputs)} of the layers attend"
    right = all((output[:, 3] == 0).all() and (output[:, 2] != 0).any() for output in outputs)
    return None if right and logits.isfinite().all() else "WRONG: not zero"


def _recorded(function: Callable, outputs: list, module: nn.Module, *args: Any, **kwargs: Any) -> Any:
    found = function(module, *args, **kwargs)
    if getattr(module, SITE, None) is not None and getattr(module, SITE).scope == "cross":
        outputs.append(found[0])
    return found


def trains(case: Case, implementation: str) -> str | None:
    """No gradient where nothing is read, the same gradients with checkpointing."""
    model = case.attached(
        implementation, cross_mask="drop((0, 2))", **({"encoder_mask": "window(0)"} if case.encoder_masks else {})
    )
    states: list[torch.Tensor] = []
    model.get_encoder().register_forward_hook(lambda module, args, output: states.append(output[0]))

    def gradients() -> torch.Tensor:
        model.zero_grad()
        states.clear()
        logits = case.logits(model)
        states[0].retain_grad()
        logits.log_softmax(-1)[..., 5].sum().backward()
        found = [p.grad.flatten() for p in model.parameters() if p.grad is not None]
        return torch.cat(found)

    with torch.enable_grad():
        model.train()
        plain = gradients()
        of_states = states[0].grad
        if not (of_states[:, :2] == 0).all() or not (of_states[:, 2:] != 0).any():
            return "WRONG: gradients of states that are not read"
        if not model.supports_gradient_checkpointing:
            return None
        model.gradient_checkpointing_enable()
        return same(gradients(), plain, " (checkpointing)")


def saved(case: Case, implementation: str) -> str | None:
    """Saved with masks and attached by its config, a model is the one that was saved without and attached by hand."""
    results = []
    for model, masks in ((case.plain(implementation), case.masks), (case.attached(implementation, **case.masks), {})):
        with tempfile.TemporaryDirectory() as folder:
            model.save_pretrained(folder)
            loaded = type(case.built).from_pretrained(folder, attn_implementation=implementation)
        without = case.logits(loaded)
        results.append(case.logits(attach(loaded, **masks)))
        if torch.equal(without, results[-1]):
            return "WRONG: the masks change nothing"
    return None if torch.equal(*results) else "WRONG: not the saved model's outputs"


CHECKS: dict[str, Callable[[Case, str], str | None]] = {
    "untouched": untouched,
    "encoder_mask": encoder_mask,
    "decoder_mask": decoder_mask,
    "cross_mask": cross_mask,
    "cached": cached,
    "beams": beams,
    "blind": blind,
    "zero": zero,
    "trains": trains,
    "saved": saved,
}


GENERATION = ("cached", "beams")


def under_each(check: Callable[[Case, str], str | None], case: Case) -> str | None:
    """What a check finds under the first implementation where it does not pass."""
    for implementation in case.implementations:
        with torch.no_grad():
            found = check(case, implementation)
        if found is not None:
            return f"{found} ({implementation})" if found.startswith("WRONG") else found
    return None


def row_of(kind: str, family: str) -> dict[str, str]:
    """What a family does, by the name of the check."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    try:
        built = build(kind, family)
    except Exception as error:  # the table says which
        refused = outcome(lambda: attach(build_in_full_size(kind, family)) and None)
        if refused.startswith("refused"):
            return {"attached": refused}
        where = traceback.extract_tb(error.__traceback__)[-1].filename.split("/")[-1]
        return {"built": f"ERROR {first_line(error)} at {where}"}
    row = {"class": type(built).__name__}
    row["attached"] = outcome(lambda: attach(built) and None)
    if row["attached"] != "yes":
        return row
    try:
        with torch.no_grad():
            case = Case(kind, family)
    except Exception as error:
        return row | {"built": f"ERROR {first_line(error)}, alone"}
    row["attention"] = ", ".join(case.implementations)
    alone = outcome(case.generates)
    for name, check in CHECKS.items():
        row[name] = "not run" if name in GENERATION and alone != "yes" else outcome(under_each, check, case)
        if name == "encoder_mask":
            case.encoder_masks = row[name] == "yes"
    return row


if __name__ == "__main__":
    for kind in MAPPINGS:
        for family in families(kind):
            if not sys.argv[1:] or any(family.startswith(name) for name in sys.argv[1:]):
                began = time.time()
                row = isolated(row_of, kind, family)
                print(
                    json.dumps({"kind": kind, "family": family, **row, "s": round(time.time() - began, 1)}), flush=True
                )
