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

from .base import Mask, MaskError, Place, Rule
from .compile import compile_mask
from .given import MaskLike, TensorMask, tensor
from .layout import Layout, lay_out
from .naive import naive_attention, naive_mask
from .parse import parse
from .picture import picture
from .rules import RULES, blocks, causal, full, prefix, rule, wait_k, window

__all__ = [
    "RULES",
    "Layout",
    "Mask",
    "MaskError",
    "MaskLike",
    "Place",
    "Rule",
    "TensorMask",
    "blocks",
    "causal",
    "compile_mask",
    "full",
    "lay_out",
    "naive_attention",
    "naive_mask",
    "parse",
    "picture",
    "prefix",
    "rule",
    "tensor",
    "wait_k",
    "window",
]
