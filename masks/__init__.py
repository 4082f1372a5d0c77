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

from .ascii_plot import picture as picture
from .expressions import Mask as Mask
from .expressions import MaskError as MaskError
from .expressions import Rule as Rule
from .expressions import TokenPosition as TokenPosition
from .find_spans import find_spans as find_spans
from .layout import Layout as Layout
from .layout import lay_out as lay_out
from .materialize import compile_mask as compile_mask
from .reference import naive_attention as naive_attention
from .reference import naive_mask as naive_mask
from .rules import *  # noqa: F403  # every rule, whose list is there
from .tensor_mask import MaskLike as MaskLike
from .tensor_mask import TensorMask as TensorMask
from .tensor_mask import tensor as tensor
