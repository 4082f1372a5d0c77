"""Which form of a mask an attention implementation takes, how it is compiled, and which function computes attention.

`config._attn_implementation` names the implementation, as everywhere in Transformers. One that cannot do what is asked
leaves it to another, with the same numbers: `docs/backends.md` has the table.
"""

from collections.abc import Callable

import torch
from torch.nn.attention.flex_attention import BlockMask
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS, AttentionInterface
from transformers.utils.generic import is_flash_attention_requested

from ..masks.expressions import Mask
from ..masks.fast_paths import is_observed
from ..masks.layout import Layout
from ..masks.materialize import compile_mask
from ..masks.rules.positional import full
from .blockwise import BlockwiseMask, blockwise_attention, compile_blockwise, pairs_in_blocks
from .dense import AttentionResult, eager_attention
from .flash import Varlen, compile_varlen, varlen_attention
from .flex import compile_flex
from .packed import ExamplesMask, compile_by_example

# Other models can name it too: for them Transformers makes tensors.
AttentionInterface.register("blockwise", blockwise_attention)
AttentionMaskInterface.register("blockwise", sdpa_mask)

CompiledMask = torch.Tensor | BlockwiseMask | ExamplesMask | BlockMask | Varlen | None
"""What attention takes: a boolean tensor, or what else a backend wants; None where all is allowed."""


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


def mask_form(name: str, queries: int, device: torch.device, additive: bool = False) -> str:
    """The form that masks are compiled to: `"dense"`, `"blockwise"`, `"flex"` or `"varlen"`.

    Args:
        name: the attention implementation.
        queries: T. FlexAttention's blocks are of no use to a single query.
        additive: whether scores are additive, which no kernel computes.
    """
    if is_observed() and not (name == "flex_attention" and torch.compiler.is_compiling()):
        return "dense"  # the other forms are decided on the host by values, which a tracer cannot ask
    if name == "blockwise" or (name == "flex_attention" and _is_without_flex_gradient(device)):
        return "dense" if is_observed() else "blockwise"
    if additive:
        return "dense"
    if name == "flex_attention":
        return "flex" if queries > 1 else "dense"
    return "varlen" if _is_flash(name) else "dense"


def attention_function(name: str, query: torch.Tensor, mask: CompiledMask) -> Callable[..., AttentionResult]:
    """The function that computes attention with such a mask.

    Args:
        name: the attention implementation.
        query: (B, H, T, D).
    """
    if isinstance(mask, BlockwiseMask | ExamplesMask):
        return blockwise_attention
    if isinstance(mask, Varlen):
        return varlen_attention
    if isinstance(mask, torch.Tensor):
        falls_back = name == "flex_attention" or _is_flash(name)
    else:
        # Hypotheses of a beam search stand side by side as queries, and are fewer than FlexAttention has in a block.
        short_query = query.shape[2] < 128 or _is_without_flex_gradient(query.device)
        short_query = short_query or (is_observed() and not torch.compiler.is_compiling())
        falls_back = name == "flex_attention" and mask is None and short_query
    return ALL_ATTENTION_FUNCTIONS.get_interface("sdpa" if falls_back else name, eager_attention)


def _is_without_flex_gradient(device: torch.device) -> bool:
    """Whether gradients are wanted where FlexAttention has none."""
    return device.type == "cpu" and torch.is_grad_enabled()


def _is_flash(name: str) -> bool:
    return is_flash_attention_requested(requested_attention_implementation=name)
