"""On a GPU a run of `train.py` learns, and goes on to the bit, with everything that is different there."""

import json
import math

import pytest
from gpu_device import DEVICE, on_gpu
from training_jobs import SIZES, assert_goes_on, job_of, recipe_file

from crossmask.training.run import execute

pytestmark = on_gpu
WIDER = {**SIZES, "hidden_size": 32, "dropout": 0.1, "cross_mask": "wait_k(2)", "encoder_mask": "window(4)"}
PACKED = {
    "batching": "packed", "source_row_length": 128, "target_row_length": 128, "per_device_train_batch_size": 1
}  # fmt: skip
VARIANTS = {
    "bfloat16": {"bf16": True},
    "float16": {"fp16": True},
    "tf32": {"tf32": True, "bf16": False},
    "bfloat16, packed, flex": {**PACKED, "bf16": True, "attn_implementation": "flex_attention"},
    "float32, packed, flex": {**PACKED, "bf16": False, "attn_implementation": "flex_attention"},
    "bfloat16, packed, blockwise": {**PACKED, "bf16": True, "attn_implementation": "blockwise"},
    "bfloat16, buckets": {
        "batching": "buckets", "batch_tokens": 100, "per_device_train_batch_size": 8, "bf16": True
    },
    "compiled": {"bf16": True, "torch_compile": True},
    "checkpointed": {"bf16": True, "gradient_checkpointing": True},
    "muon": {"bf16": True, "optim": "muon"},
    "muon, float16": {"fp16": True, "optim": "muon"},
    "fused AdamW": {"bf16": True, "optim": "adamw_torch_fused"},
    "averaged": {
        "bf16": True, "average_checkpoints": 2, "eval_strategy": "steps", "eval_steps": 2,
        "load_best_model_at_end": True,
    },
    "workers": {"bf16": True, "dataloader_num_workers": 2, "dataloader_pin_memory": True},
}  # fmt: skip


@pytest.mark.parametrize("changes", VARIANTS.values(), ids=VARIANTS)
def test_a_run_learns(tmp_path, changes):
    common = {"model": WIDER, "optim": "adamw_torch", "learning_rate": 0.01, "max_steps": 40, "logging_steps": 1}
    common |= {"save_steps": 20, "per_device_train_batch_size": 8}
    job = job_of(recipe_file(tmp_path, **{**common, **changes}))
    execute(job)
    losses = [entry["loss"] for entry in job.trainer.state.log_history if "loss" in entry]
    assert all(map(math.isfinite, losses))
    assert losses[-1] < 0.8 * losses[0]
    assert job.trainer.model.device.type == DEVICE.type
    facts = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert facts["parameters"] > 0


@pytest.mark.parametrize("name", [name for name in VARIANTS if name not in ("averaged", "tf32")])
def test_a_run_goes_on_to_the_bit(tmp_path, name):
    changes = {"model": WIDER, "optim": "adamw_torch", "learning_rate": 0.01, **VARIANTS[name]}
    assert assert_goes_on(recipe_file(tmp_path, **changes), 2) == 4


def test_full_determinism(tmp_path):
    changes = {"model": WIDER, "optim": "adamw_torch", "bf16": True, "full_determinism": True}
    assert assert_goes_on(recipe_file(tmp_path, **changes), 2) == 4
