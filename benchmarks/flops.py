"""Model FLOPs utilisation: the operations that a training step needs, over those that the machine can do."""

from collections.abc import Callable, Iterable

import torch
from torch import nn
from transformers import PreTrainedModel

Lengths = Iterable[tuple[int, int]]  # source and target tokens of examples


def step_flops(model: PreTrainedModel, lengths: Lengths) -> int:
    """Floating-point operations of matrix products, forward and backward, that the real tokens of a step need.

    A weight costs 6 operations for every token that goes through it: 2 forward, 4 backward. Those of the encoder, and
    what makes keys and values for the cross-attention, see source tokens; the rest of the decoder and the output layer
    see target tokens. Attention costs 12 operations for every pair of tokens, layer and unit of its width: scores and
    weighted sum, forward and backward. Pairs are all those within an example, S x S, T x T and T x S, causal or not,
    as Chowdhery et al. 2022 (https://arxiv.org/abs/2204.02311, appendix B) count. Padding, pairs of tokens of
    different examples in a row, norms, activations, the softmax, the loss and the optimizer are not counted, so that
    computing more than needed does not raise the utilisation.

    Args:
        model: one of Transformers', or ours, whose modules have the usual names.
        lengths: source and target tokens of every example of the step.
    """
    weights = {"source": 0, "target": 0}  # per token
    widths = {"encoder": 0, "decoder": 0, "cross": 0}  # of attention, all layers together
    for name, module in model.named_modules():
        if not isinstance(module, nn.Linear):
            continue
        path = name.split(".")
        kind = "encoder" if "encoder" in path else "cross" if {"cross_attn", "encoder_attn"} & set(path) else "decoder"
        reads_source = kind == "encoder" or (kind == "cross" and path[-1] in ("k_proj", "v_proj"))
        weights["source" if reads_source else "target"] += module.weight.numel()
        if path[-1] == "q_proj":
            widths[kind] += module.out_features
    total = 0
    for source, target in lengths:
        total += 6 * (weights["source"] * source + weights["target"] * target)
        pairs = {"encoder": source * source, "decoder": target * target, "cross": target * source}
        total += 12 * sum(widths[kind] * pairs[kind] for kind in widths)
    return total


def products(
    sizes: Iterable[int], device: str, dtype: torch.dtype = torch.bfloat16
) -> dict[int, Callable[[int], torch.Tensor]]:
    """Products of two square matrices of each size, to be timed; one takes `2 * size**3` operations."""
    pairs = {size: torch.randn(2, size, size, device=device).to(dtype) for size in sizes}
    return {size: lambda turn, pair=pair: pair[0] @ pair[1] for size, pair in pairs.items()}
