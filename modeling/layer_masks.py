"""The masks of one scope, from config and call, to one compiled mask per layer."""

import torch

from ..configuration.crossmask import CrossMaskConfig
from ..masks.base import Mask
from ..masks.forms import CompiledMask, compile_as
from ..masks.given import MaskLike, TensorMask, check_fit, cut, read
from ..masks.layout import Layout
from .backends import mask_form


class LayerMasks:
    """Compiles the masks of one scope (`"encoder"`, `"decoder"`, `"cross"`): each distinct one once a pass."""

    def __init__(self, config: CrossMaskConfig, scope: str):
        self.config = config
        self.scope = scope
        self.text: str | dict | None = None

    def rules(self) -> tuple[Mask, ...]:
        """The rule of each layer in the config. The text is parsed when it changes."""
        text = getattr(self.config, f"{self.scope}_mask")
        if text != self.text:
            # Through this module's own class: remote code has the config's module twice, each with its own mask classes.
            self.of_layers = CrossMaskConfig.layer_masks(self.config, self.scope)
            self.text = dict(text) if isinstance(text, dict) else text  # a mapping may change in place
        return self.of_layers

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
    ) -> list[CompiledMask]:
        """What the attention implementation takes, for each layer: a tensor, blocks, lengths, or None.

        Args:
            given: the call's mask, and-ed with the config's.
            rows: (T,) int64, the queries' indices in the batch as it is laid out.
            seen: how many tokens the queries' side has had so far, or None where only the device knows.
            training: whether rules that hold in training only do.

        Raises:
            MaskError: a mask that cannot be read, does not fit, or that the attention implementation cannot run.
        """
        name = f"{self.scope}_mask"
        given = read(given, name)
        heads = self.config.num_attention_heads
        allowed = None
        if isinstance(given, TensorMask):
            growing = self.scope == "decoder"
            keys = seen if growing else key.length
            check_fit(given, name, batch=batch, heads=heads, queries=seen, keys=keys, growing=growing)
            allowed = cut(given, rows=rows, columns=key.length)
        rules = self.rules()
        rules = [rule & given if isinstance(given, Mask) else rule for rule in rules]
        rules = [rule.resolve(layer, len(rules), training) for layer, rule in enumerate(rules)]
        compiled = {}
        for rule in rules:
            if rule not in compiled:
                compiled[rule] = compile_mask(rule, query, key, allowed, heads)
        return [compiled[rule] for rule in rules]
