"""Which form of a mask an attention implementation takes, and which function then computes attention.

`config._attn_implementation` names the implementation, as everywhere in Transformers. One that cannot do what is asked
leaves it to another, with the same numbers: `docs/backends.md` has the table.
"""

from collections.abc import Callable

import torch
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS, AttentionInterface
from transformers.utils.generic import is_flash_attention_requested

from ..configuration.crossmask import CrossMaskConfig
from ..masks.blockwise import BlockwiseMask
from ..masks.by_example import ExamplesMask
from ..masks.fast_paths import is_observed
from ..masks.forms import CompiledMask
from ..masks.varlen import Varlen
from .blockwise import blockwise_attention
from .dense import AttentionResult, eager_attention
from .flash import varlen_attention

# Other models can name it too: for them Transformers makes tensors.
AttentionInterface.register("blockwise", blockwise_attention)
AttentionMaskInterface.register("blockwise", sdpa_mask)


def mask_form(config: CrossMaskConfig, scope: str, queries: int, device: torch.device) -> str:
    """The form that the masks of a scope are compiled to: `"dense"`, `"blockwise"`, `"flex"` or `"varlen"`.

    Args:
        queries: T. FlexAttention's blocks are of no use to a single query.
    """
    name = config._attn_implementation or "eager"
    if is_observed() and not (name == "flex_attention" and torch.compiler.is_compiling()):
        return "dense"  # the other forms are decided on the host by values, which a tracer cannot ask
    if name == "blockwise" or (name == "flex_attention" and _is_without_flex_gradient(device)):
        return "dense" if is_observed() else "blockwise"
    if scope == "cross" and config.cross_attention_score == "additive":
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
        leave = name == "flex_attention" or _is_flash(name)
    else:
        # Hypotheses of a beam search stand side by side as queries, and are fewer than FlexAttention has in a block.
        few = query.shape[2] < 128 or _is_without_flex_gradient(query.device)
        few = few or (is_observed() and not torch.compiler.is_compiling())
        leave = name == "flex_attention" and mask is None and few
    return ALL_ATTENTION_FUNCTIONS.get_interface("sdpa" if leave else name, eager_attention)


def _is_without_flex_gradient(device: torch.device) -> bool:
    """Whether gradients are wanted where FlexAttention has none."""
    return device.type == "cpu" and torch.is_grad_enabled()


def _is_flash(name: str) -> bool:
    return is_flash_attention_requested(requested_attention_implementation=name)
