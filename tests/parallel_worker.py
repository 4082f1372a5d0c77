"""One of two processes that share a model's weights; started by `modeling/test_parallel.py` through torchrun.

Arguments: the model's folder, and `tp` or `fsdp`. Prints the largest difference from the whole model's logits.
"""

import sys

import torch
import torch.distributed as dist
from small_models import tokens
from transformers.distributed import DistributedConfig

from crossmask import CrossMaskForConditionalGeneration

folder, kind = sys.argv[1:]
config = DistributedConfig(tp_size=2) if kind == "tp" else DistributedConfig(fsdp_size=2)
spread = CrossMaskForConditionalGeneration.from_pretrained(folder, distributed_config=config).eval()
whole = CrossMaskForConditionalGeneration.from_pretrained(folder).eval()
assert sum(p.to_local().numel() for p in spread.parameters() if hasattr(p, "to_local")) < 0.8 * whole.num_parameters()
inputs = {"input_ids": tokens(2, 5), "decoder_input_ids": tokens(2, 4, seed=1)}
with torch.no_grad():
    difference = (spread(**inputs).logits - whole(**inputs).logits).abs().max()
sys.stdout.write(f"difference {difference.item()}\n")
dist.destroy_process_group()
