"""Which embeddings are one weight: encoder embedding, decoder embedding and output head."""

from collections import OrderedDict
from collections.abc import Iterable, Mapping

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.integrations.accelerate import get_device
from transformers.utils import logging

logger = logging.get_logger(__name__)

# What `tie_word_embeddings` ties. The first of a group lends its weight to the others.
TIED = {
    True: ("encoder", "decoder", "head"),
    "embedding": ("encoder", "decoder"),
    "head": ("decoder", "head"),
    False: (),
}


def embedding_names(model: nn.Module) -> dict[str, str]:
    """The names of the embeddings' weights that a model has, by `"encoder"`, `"decoder"` and `"head"`."""
    prefix = "model." if hasattr(model, "lm_head") else ""
    names = {side: f"{prefix}{side}.embed_tokens.weight" for side in ("encoder", "decoder")}
    if prefix:
        names["head"] = "lm_head.weight"
    present = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    return {which: name for which, name in names.items() if name in present}


def names_of_one(model: nn.Module) -> list[list[str]]:
    """The names of each embedding weight that has more than one."""
    groups: dict[nn.Parameter, list[str]] = {}
    for name in embedding_names(model).values():
        groups.setdefault(model.get_parameter(name), []).append(name)
    return [names for names in groups.values() if len(names) > 1]


def present_ties(model: PreTrainedModel) -> bool | str:
    """What `tie_word_embeddings` must be for the weights that are one now; the config's own where it fits."""
    names, configured = embedding_names(model), model.config.tie_word_embeddings
    if not {"encoder", "decoder"} <= names.keys():
        return configured
    names_of: dict[nn.Parameter, set[str]] = {}
    for which, name in names.items():
        names_of.setdefault(model.get_parameter(name), set()).add(which)
    present = {frozenset(group) for group in names_of.values() if len(group) > 1}

    def fits(ties: bool | str) -> bool:
        tied = frozenset(which for which in TIED[ties] if which in names)
        return present == ({tied} if len(tied) > 1 else set())

    return next((ties for ties in (configured, True, "embedding", "head") if fits(ties)), False)


def complete(state_dict: Mapping[str, torch.Tensor], groups: Iterable[list[str]]) -> Mapping[str, torch.Tensor]:
    """A state dict with every name of a tied weight, where it has at least one."""
    missing: dict[str, torch.Tensor] = {}
    for names in groups:
        saved = [name for name in names if name in state_dict]
        missing |= {name: state_dict[saved[0]] for name in names if saved and name not in state_dict}
    if not missing:
        return state_dict
    completed = OrderedDict(state_dict, **missing)
    if hasattr(state_dict, "_metadata"):  # of the modules' versions
        completed._metadata = state_dict._metadata
    return completed


def differing(state_dict: Mapping[str, torch.Tensor], groups: Iterable[list[str]]) -> list[str]:
    """Names under which a state dict has other values than under the first of the same weight's names."""
    others_differ = []
    for names in groups:
        present = [name for name in names if name in state_dict]
        others_differ += [name for name in present[1:] if not _equal(state_dict[present[0]], state_dict[name])]
    return others_differ


def tie_again(model: nn.Module, groups: Iterable[list[str]], loaded: Iterable[str]) -> None:
    """Make one again of weights that were one, where those with a name in `loaded` have been replaced."""
    for names in groups:
        source = next((name for name in names if name in loaded), None)
        if source is not None:
            for name in names:
                replace_weight(model, name, model.get_parameter(source))


def replace_weight(model: nn.Module, name: str, weight: nn.Parameter) -> None:
    module, _, attribute = name.rpartition(".")
    setattr(model.get_submodule(module), attribute, weight)


def change_ties(
    model: PreTrainedModel, saved: bool | str, missing: set[str], mismatched: set[str], device_map: dict | None
) -> None:
    """Carry the embeddings of a checkpoint over to a model with other ties than those it was saved with.

    A weight that was tied and no longer is starts as a copy. Where weights become one, the first of the encoder's
    embedding, the decoder's and the head stays; the others are added to `missing`, so that tying replaces them. A
    warning names what is copied and what is dropped.

    Args:
        saved: `tie_word_embeddings` of the checkpoint.
        missing: names that the checkpoint lacks; changed in place. mismatched: those it has in another shape.
    """
    wanted, names = model.config.tie_word_embeddings, embedding_names(model)
    weights = {which: model.get_parameter(name) for which, name in names.items()}
    holders: dict[int, str] = {}
    for which, name in names.items():
        if name not in missing | mismatched:  # torch.save writes all names of a tied weight: one piece of memory
            holders.setdefault(weights[which].data_ptr(), which)
    loaded = list(holders.values())
    sources = {}  # which loaded weight has the value that each had in the saved model
    for which in names:
        same = (which, *TIED[saved]) if which in TIED[saved] else (which,)
        source = next((other for other in same if other in loaded), None)
        if source is not None:
            sources[which] = source
    tied = [which for which in TIED[wanted] if which in names]
    first = tied[0] if tied and tied[0] in sources else None
    changes = []
    for which, source in sources.items():
        if first is not None and which in tied[1:]:
            missing.add(names[which])
            if not _equal(weights[source], weights[sources[first]]):
                changes.append(f"{names[which]} is dropped, {names[first]} takes its place")
        elif which not in loaded:
            device = get_device(device_map, names[which], valid_torch_device=True)
            copy = nn.Parameter(weights[source].detach().to(device, copy=True))
            copy._is_hf_initialized = True  # or Transformers draws it anew
            replace_weight(model, names[which], copy)
            missing.discard(names[which])
            changes.append(f"{names[which]} starts as a copy of {names[source]}")
    if changes:
        logger.warning(f"tie_word_embeddings is {saved!r} in the checkpoint, {wanted!r} here: {'; '.join(changes)}")


def _equal(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether two tensors hold the same; taken for granted of meta tensors and subclasses."""
    if one.is_meta or other.is_meta or not {type(one), type(other)} <= {torch.Tensor, nn.Parameter}:
        return True
    return one.shape == other.shape and torch.equal(one, other.to(one.device))
