"""What may see what: masks as values that are read, written, combined, compiled and tested.

```python
>>> from crossmask import masks
>>> m = masks.wait_k(3) & masks.window(left=16)
>>> str(m)
'wait_k(3) & window(left=16)'
>>> masks.parse(str(m)) == m
True
```
"""

from .ascii_plot import picture
from .expressions import Mask, MaskError, Rule, TokenPosition
from .find_spans import find_spans
from .layout import Layout, lay_out
from .materialize import compile_mask
from .parse import parse
from .reference import naive_attention, naive_mask
from .rules import (
    RULES,
    alignment,
    blind,
    blocks,
    causal,
    chunked,
    dilated,
    drop,
    full,
    heads,
    keep,
    layers,
    lookup,
    monotonic,
    passages,
    prefix,
    random,
    register,
    rule,
    segments,
    wait_k,
    window,
)
from .tensor_mask import MaskLike, TensorMask, tensor

__all__ = [
    "RULES",
    "Layout",
    "Mask",
    "MaskError",
    "MaskLike",
    "Rule",
    "TensorMask",
    "TokenPosition",
    "alignment",
    "blind",
    "blocks",
    "causal",
    "chunked",
    "compile_mask",
    "dilated",
    "drop",
    "find_spans",
    "full",
    "heads",
    "keep",
    "lay_out",
    "layers",
    "lookup",
    "monotonic",
    "naive_attention",
    "naive_mask",
    "parse",
    "passages",
    "picture",
    "prefix",
    "random",
    "register",
    "rule",
    "segments",
    "tensor",
    "wait_k",
    "window",
]
