"""The masks of one scope, from config and call, to one compiled mask per layer."""

import torch

from ..attention.backends import CompiledMask, compile_as, mask_form
from ..configuration.crossmask import CrossMaskConfig
from ..masks.blind_check import check_blind_spans, kept_everywhere
from ..masks.equivalence import check_possible
from ..masks.expressions import And, Mask, MaskError
from ..masks.fast_paths import is_observed
from ..masks.layout import Layout
from ..masks.rules import blind, causal, full
from ..masks.tensor_mask import MaskLike, TensorMask, as_mask, check_fit, rows_for
from .beam_sharing import fold_mask


class LayerMasks:
    """Compiles the masks of one scope (`"encoder"`, `"decoder"`, `"cross"`): each distinct one once a pass."""

    def __init__(self, config: CrossMaskConfig, scope: str):
        self.config = config
        self.scope = scope
        self.text: str | dict | None = None
        self.rules()  # now: a compiled forward pass cannot parse

    def rules(self, given: Mask | None = None, training: bool = False) -> tuple[tuple[Mask, ...], tuple[int, ...]]:
        """The distinct rules of the layers, and which of them each layer has; text is parsed when it changes.

        Args:
            given: the call's rule, and-ed with the config's.
            training: whether rules that hold in training only do.

        Raises:
            MaskError: a rule that speaks of layers that are not there, or that never allows anything.
        """
        text = getattr(self.config, f"{self.scope}_mask")
        if text != self.text:
            # Through this module's own class: remote code has the config's module twice, each with masks of its own.
            self.of_layers = CrossMaskConfig.layer_masks(self.config, self.scope)
            self.of_config = {mode: _distinct(self.of_layers, mode) for mode in (False, True)}
            self.blind_of_config = _blind(self.of_layers)
            self.text = dict(text) if isinstance(text, dict) else text  # a mapping may change in place
        if given is None:
            return self.of_config[training]
        joined = tuple(rule & given for rule in self.of_layers)
        if not torch.compiler.is_compiling():
            check_possible(joined, f"{self.scope}_mask")
        return _distinct(joined, training)

    def blind(self, given: MaskLike | None) -> Mask:
        """The blind spans that hold in every layer, as one rule."""
        if isinstance(given, Mask):
            return _blind(self.rules(given)[0])
        self.rules()
        return self.blind_of_config

    def compile(
        self,
        given: MaskLike | None,
        query: Layout,
        key: Layout,
        *,
        batch: int,
        rows: torch.Tensor,
        seen: int | None,
        training: bool = False,
        beams_per_source: int = 1,
        is_last: bool = False,
    ) -> list[CompiledMask]:
        """What the attention implementation takes, for each layer: a tensor, blocks, lengths, or None.

        Args:
            given: the call's mask, and-ed with the config's.
            rows: (T,) int64, the queries' indices in the batch as it is laid out.
            seen: how many tokens the queries' side has had so far, or None where only the device knows.
            training: whether rules that hold in training only do.
            shared: G, how many rows of queries share each row of keys.
            is_last: whether the only query is the last of the keys themselves, so that `causal()` forbids nothing.

        Raises:
            MaskError: a mask that cannot be read, does not fit, or that the attention implementation cannot run.
        """
        name = f"{self.scope}_mask"
        given = as_mask(given, name)
        heads = self.config.num_attention_heads
        allowed = None
        over_memory = self.scope == "cross" and self.config.memory_length is not None
        if isinstance(given, TensorMask):
            if over_memory:
                raise MaskError(
                    "cross_mask: a tensor cannot be combined with memory_length: the memory has no source positions; "
                    "give an encoder_mask"
                )
            may_grow = self.scope == "decoder"
            keys = seen if may_grow else key.length
            whole = self.scope == "encoder"
            check_fit(given, name, batch=batch, heads=heads, queries=seen, keys=keys, may_grow=may_grow, whole=whole)
            allowed = rows_for(given, rows=rows, columns=key.length)
        rule = given if isinstance(given, Mask) else None
        if rule is not None and over_memory:
            rule = _over_memory(rule)
        distinct, of_layer = self.rules(rule, training)
        if is_last:
            distinct = tuple(full() if rule == causal() else rule for rule in distinct)
        additive = self.scope == "cross" and self.config.cross_attention_score == "additive"
        backend = self.config._attn_implementation or "eager"
        form = mask_form(backend, query.length, rows.device, additive) if beams_per_source == 1 else "dense"
        if form == "flex" and any(part.uses_lookup_table for rule in distinct for part in rule.rules()):
            form = "dense" if is_observed() else "blockwise"
        try:
            compiled = [compile_as(form, rule, query, key, allowed, heads, batch) for rule in distinct]
        except MaskError as error:
            raise MaskError(f"{name}: {error}") from error
        if beams_per_source > 1:
            compiled = [mask if mask is None else fold_mask(mask, beams_per_source) for mask in compiled]
        return [compiled[index] for index in of_layer]


def check_blind(encoder: LayerMasks, decoder: LayerMasks, cross: LayerMasks, **given: MaskLike | None) -> None:
    """Check that spans which are blind in one mask are blind wherever the source is read.

    Args:
        given: the call's masks, by name.

    Raises:
        MaskError: a mask that cannot be read, or a span that something could read.
    """
    rules = {}
    for masks in (encoder, decoder, cross):
        name = f"{masks.scope}_mask"
        rule = as_mask(given.get(name), name)
        rules[masks.scope] = masks.rules(rule if isinstance(rule, Mask) else None)[0]
    check_blind_spans(**rules, memory=cross.config.memory_length is not None)


def _distinct(layers: tuple[Mask, ...], training: bool) -> tuple[tuple[Mask, ...], tuple[int, ...]]:
    numbers: dict[Mask, int] = {}
    resolved = [rule.for_layer(layer, len(layers), training) for layer, rule in enumerate(layers)]
    of_layer = tuple(numbers.setdefault(rule, len(numbers)) for rule in resolved)
    return tuple(numbers), of_layer


def _blind(layers: tuple[Mask, ...]) -> Mask:
    result = full()
    for span in sorted(kept_everywhere(layers), key=str):
        result = result & span
    return result


def _over_memory(rule: Mask) -> Mask | None:
    """What is left of a call's cross mask where the decoder reads a memory: blind spans are the encoder's affair."""
    parts = rule.parts if isinstance(rule, And) else (rule,)
    if all(isinstance(part, blind | full) for part in parts):
        return None
    raise MaskError(
        f"cross_mask: {rule} cannot be combined with memory_length: the memory has no source positions; put the rule "
        "into encoder_mask"
    )
