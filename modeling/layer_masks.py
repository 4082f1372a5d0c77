"""The masks of one scope, from config and call, to one compiled mask per layer."""

import torch

from ..configuration.crossmask import CrossMaskConfig
from ..masks.base import Mask, MaskError
from ..masks.compile import compile_mask
from ..masks.given import MaskLike, TensorMask, check_fit, cut, read
from ..masks.layout import Layout


class LayerMasks:
    """Compiles the masks of one scope (`"encoder"`, `"decoder"`, `"cross"`): each distinct one once a pass."""

    def __init__(self, config: CrossMaskConfig, scope: str):
        self.config = config
        self.scope = scope
        self.text: str | dict | None = None

    def rules(self) -> tuple[tuple[Mask, ...], tuple[int, ...]]:
        """The distinct rules in the config, and which of them each layer has. The text is parsed when it changes."""
        text = getattr(self.config, f"{self.scope}_mask")
        if text != self.text:
            # Through this module's own class: remote code has the config's module twice, each with mask classes.
            layers = CrossMaskConfig.layer_masks(self.config, self.scope)
            self.distinct = tuple(dict.fromkeys(layers))
            self.of_layer = tuple(self.distinct.index(mask) for mask in layers)
            self.text = dict(text) if isinstance(text, dict) else text  # a mapping may change in place
        return self.distinct, self.of_layer

    def compile(
        self,
        given: MaskLike | None,
        query: Layout,
        key: Layout,
        *,
        batch: int,
        rows: torch.Tensor,
        seen: int | None,
    ) -> list[torch.Tensor | None]:
        """One boolean mask, broadcast to (B, H, T, S), or None, for each layer.

        Args:
            given: the call's mask, and-ed with the config's.
            rows: (T,) int64, the queries' indices in the batch as it is laid out.
            seen: how many tokens the queries' side has had so far, or None where only the device knows.

        Raises:
            MaskError: a mask that cannot be read, does not fit, or is for source positions that a memory hides.
        """
        name = f"{self.scope}_mask"
        given = read(given, name)
        if given is not None and self.scope == "cross" and self.config.memory_length is not None:
            raise MaskError(
                f"cross_mask cannot be combined with memory_length={self.config.memory_length}: the memory has no "
                "source positions; give an encoder_mask"
            )
        allowed = None
        if isinstance(given, TensorMask):
            growing = self.scope == "decoder"
            keys = seen if growing else key.length
            heads = self.config.num_attention_heads
            whole = self.scope == "encoder"
            check_fit(given, name, batch=batch, heads=heads, queries=seen, keys=keys, growing=growing, whole=whole)
            allowed = cut(given, rows=rows, columns=key.length)
        distinct, of_layer = self.rules()
        rules = [rule & given if isinstance(given, Mask) else rule for rule in distinct]
        compiled = [compile_mask(rule, query, key, allowed) for rule in rules]
        return [compiled[index] for index in of_layer]
