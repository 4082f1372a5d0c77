"""What a mask is compiled to: a form for every kind of backend."""

import torch
from torch.nn.attention.flex_attention import BlockMask

from .base import Mask
from .blockwise import BlockwiseMask, compile_blockwise, pairs_in_blocks
from .by_example import ExamplesMask, compile_by_example
from .compile import compile_mask
from .flex import compile_flex
from .layout import Layout
from .rules import full
from .varlen import Varlen, compile_varlen

CompiledMask = torch.Tensor | BlockwiseMask | ExamplesMask | BlockMask | Varlen | None


def compile_as(
    form: str,
    mask: Mask,
    query: Layout,
    key: Layout,
    given: torch.Tensor | None = None,
    heads: int = 1,
    batch: int = 1,
) -> CompiledMask:
    """Compile to a form, or to None where nothing is forbidden.

    Args:
        form: `"dense"` (a boolean tensor), `"blockwise"` (blocks, or packed rows by examples, whichever looks at fewer
            pairs), `"flex"` (a `BlockMask`) or `"varlen"`.
        mask, query, key, given, heads: as in `compile_mask`.
        batch: B.

    Raises:
        MaskError: as in `compile_mask`; or the mask has no such form.
    """
    if mask == full() and given is None and query.segments is None and key.segments is None:
        return None
    match form:
        case "dense":
            return compile_mask(mask, query, key, given, heads)
        case "blockwise":
            found = None
            if query.packed and query.segments is not None and key.segments is not None:
                limit = pairs_in_blocks(mask, query, key, heads) * batch - 1
                found = compile_by_example(mask, query, key, given, heads, batch, limit)
            return compile_blockwise(mask, query, key, given, heads) if found is None else found
        case "flex":
            return compile_flex(mask, query, key, given, heads)
        case "varlen":
            return compile_varlen(mask, query, key, given, heads, batch)
    raise ValueError(f"a mask has no form named {form!r}; there are dense, blockwise, flex and varlen")
