"""The masks of one scope, from config and call, to one compiled mask per layer."""

import torch
from transformers import PreTrainedConfig

from ..attention.backends import CompiledMask, compile_masks
from ..attention.base import MaskRequest
from ..configuration.layer_masks import masks_of_layers
from ..masks.blind_check import check_blind_spans, kept_everywhere
from ..masks.equivalence import check_possible
from ..masks.expressions import And, Mask, MaskError
from ..masks.layout import Layout
from ..masks.rules import blind, causal, full
from ..masks.scope import Scope
from ..masks.target_layout import TargetLayout
from ..masks.tensor_mask import TensorMask, check_fit, rows_for


class LayerMasks:
    """Compiles the masks of one scope: each distinct one once a pass.

    Args:
        config: any model's. It may have the masks, as text or as a mapping from layers to texts, in `encoder_mask`,
            `decoder_mask` and `cross_mask`; where it has none everything is allowed. They are read anew when they
            change, and so is the attention implementation.
        scope: which of the masks.
        layers, heads: how many attend under it.
        own: what holds in every layer whatever the config says, as `causal()` does in a causal language model.
        additive: whether scores are additive (Bahdanau et al. 2015), not scaled dot products.
        reads_memory: whether the keys are a memory's vectors, which have no source positions.
    """

    def __init__(
        self,
        config: PreTrainedConfig,
        scope: Scope,
        *,
        layers: int,
        heads: int,
        own: Mask | None = None,
        additive: bool = False,
        reads_memory: bool = False,
    ):
        self.config, self.scope, self.layers, self.heads = config, scope, layers, heads
        self.own, self.additive, self.reads_memory = own, additive, reads_memory
        self.text: str | dict | None = None
        self.rules()  # now: a compiled forward pass cannot parse

    def rules(self, rule: Mask | None = None, training: bool = False) -> tuple[tuple[Mask, ...], tuple[int, ...]]:
        """The distinct rules of the layers, and which of them each layer has; text is parsed when it changes.

        Args:
            rule: the call's, and-ed with the config's.
            training: whether rules that hold in training only do.

        Raises:
            MaskError: a rule that names layers that are not there, or that never allows anything.
        """
        text = getattr(self.config, f"{self.scope}_mask", "full()")
        if text != self.text:
            of_layers = masks_of_layers(text, self.layers, f"{self.scope}_mask")
            self.of_layers = of_layers if self.own is None else tuple(self.own & rule for rule in of_layers)
            self.of_config = {mode: _distinct(self.of_layers, mode) for mode in (False, True)}
            self.blind_of_config = _blind(self.of_layers)
            self.text = dict(text) if isinstance(text, dict) else text  # a mapping may change in place
        if rule is None:
            return self.of_config[training]
        joined = tuple(own & rule for own in self.of_layers)
        if not torch.compiler.is_compiling():
            check_possible(joined, f"{self.scope}_mask")
        return _distinct(joined, training)

    def adds_to(self, own: Mask, mask: Mask | TensorMask | None, training: bool = False) -> bool:
        """Whether the masks, the call's included, forbid anything beside what `own` does.

        Args:
            own: what a model forbids by itself. mask: the call's, as `as_mask` reads it.
        """
        if isinstance(mask, TensorMask):
            return True
        distinct, _ = self.rules(mask, training)
        return distinct != (own,)

    def blind(self, mask: Mask | TensorMask | None) -> Mask:
        """The blind spans that hold in every layer, as one rule; `mask` is the call's."""
        if isinstance(mask, Mask):
            return _blind(self.rules(mask)[0])
        self.rules()
        return self.blind_of_config

    def compile(
        self,
        mask: Mask | TensorMask | None,
        query: Layout,
        key: Layout,
        *,
        batch: int,
        rows: torch.Tensor,
        seen: int | None,
        training: bool = False,
        beams_per_source: int = 1,
        is_last: bool = False,
        backend: str | None = None,
    ) -> list[CompiledMask]:
        """What the attention implementation takes, for each layer: a tensor, blocks, lengths, or None.

        Args:
            mask: the call's, as `as_mask` reads it, and-ed with the config's.
            batch: B, of the queries.
            rows: (T,) int64, the queries' indices in the batch as it is laid out.
            seen: how many tokens the queries' side has had so far, or None where only the device knows.
            training: whether rules that hold in training only do.
            beams_per_source: G, how many rows of queries share each row of keys.
            is_last: whether the only query is the last of the keys themselves, so that `causal()` forbids nothing.
            backend: the attention backend to compile for; the config's attention implementation by default.

        Raises:
            MaskError: a mask that does not fit, or that the attention implementation cannot run.
        """
        name = f"{self.scope}_mask"
        tensor_mask = self.cut(mask, batch, rows, seen, key.length) if isinstance(mask, TensorMask) else None
        rule = mask if isinstance(mask, Mask) else None
        if rule is not None and self.reads_memory:
            rule = _over_memory(rule)
        distinct, of_layer = self.rules(rule, training)
        if is_last:
            distinct = tuple(full() if rule == causal() else rule for rule in distinct)
        head_dim = getattr(self.config, "head_dim", None)
        common = (query, key, tensor_mask, self.heads, batch, beams_per_source, self.additive, head_dim)
        try:
            requests = [MaskRequest(rule, *common) for rule in distinct]
            compiled_masks = compile_masks(backend or self.config._attn_implementation, requests)
        except MaskError as error:
            raise MaskError(f"{name}: {error}") from error
        return [compiled_masks[index] for index in of_layer]

    def compile_target(
        self,
        mask: Mask | TensorMask | None,
        target: TargetLayout,
        *,
        batch: int,
        training: bool = False,
        backend: str | None = None,
    ) -> list[CompiledMask]:
        """`compile` for the attention of a target to itself."""
        return self.compile(
            mask,
            target.query,
            target.key,
            batch=batch,
            rows=target.rows,
            seen=target.seen,
            training=training,
            is_last=target.is_last,
            backend=backend,
        )

    def cut(self, mask: TensorMask, batch: int, rows: torch.Tensor, seen: int | None, keys: int) -> torch.Tensor:
        """The part of a tensor mask that belongs to this pass: (1 or B, 1 or H, T or 1, S) bool.

        Args:
            batch, rows, seen: as in `compile`. keys: S.

        Raises:
            MaskError: it does not fit.
        """
        if self.reads_memory:
            raise MaskError(
                "cross_mask: a tensor cannot be combined with memory_length: the memory has no source positions; "
                "give an encoder_mask"
            )
        may_grow = self.scope == "decoder"
        check_fit(
            mask,
            f"{self.scope}_mask",
            batch=batch,
            heads=self.heads,
            queries=seen,
            keys=seen if may_grow else keys,
            may_grow=may_grow,
            has_all_rows=self.scope == "encoder",
        )
        return rows_for(mask, rows=rows, columns=keys)


def check_blind(
    encoder: LayerMasks, decoder: LayerMasks, cross: LayerMasks, **call_masks: Mask | TensorMask | None
) -> None:
    """Check that spans which are blind in one mask are blind wherever the source is read.

    Args:
        call_masks: the call's masks, as `as_mask` reads them, by name.

    Raises:
        MaskError: a span that something could read.
    """
    rules = {}
    for masks in (encoder, decoder, cross):
        mask = call_masks.get(f"{masks.scope}_mask")
        rules[masks.scope] = masks.rules(mask if isinstance(mask, Mask) else None)[0]
    check_blind_spans(**rules, memory=cross.reads_memory)


def _distinct(layers: tuple[Mask, ...], training: bool) -> tuple[tuple[Mask, ...], tuple[int, ...]]:
    numbers: dict[Mask, int] = {}
    resolved = [rule.for_layer(layer, len(layers), training) for layer, rule in enumerate(layers)]
    of_layer = tuple(numbers.setdefault(rule, len(numbers)) for rule in resolved)
    return tuple(numbers), of_layer


def _blind(layers: tuple[Mask, ...]) -> Mask:
    result: Mask = full()
    for span in sorted(kept_everywhere(layers), key=str):
        result = result & span
    return result


def _over_memory(rule: Mask) -> Mask | None:
    """What is left of a call's cross mask where the decoder reads a memory: blind spans concern the encoder."""
    parts = rule.parts if isinstance(rule, And) else (rule,)
    if all(isinstance(part, (blind, full)) for part in parts):
        return None
    raise MaskError(
        f"cross_mask: {rule} cannot be combined with memory_length: the memory has no source positions; put the rule "
        "into encoder_mask"
    )
