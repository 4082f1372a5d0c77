"""Transformers' training arguments, with the defaults, checks and additions of this project."""

import json
from dataclasses import dataclass, field, fields
from pathlib import Path

import torch
from transformers import Seq2SeqTrainingArguments
from transformers.debug_utils import DebugOption
from transformers.training_args import trainer_log_levels
from transformers.utils import is_torch_xla_available

from ..utils.errors import InputError
from ..utils.hardware import accelerator_or_cpu
from ..utils.type_checks import check_choice
from .fields import check_enums, check_obeyed
from .muon import OwnOptimizer
from .precision import AUTO, choose_precision
from .requirements import check_deepspeed
from .run_directory import checkpoint_to_resume
from .validation import check_fields, one_line

BEST = "load_best_model_at_end"
JSON_FIELDS = (
    "lr_scheduler_kwargs", "activation_checkpointing_kwargs", "gradient_checkpointing_kwargs", "fsdp_config",
    "deepspeed",
)  # fmt: skip
"""Fields that Transformers reads as JSON where a text begins with a brace."""
LOGGING_CHOICES = {
    "log_level": trainer_log_levels,
    "log_level_replica": trainer_log_levels,
    "include_num_input_tokens_seen": (True, False, "all", "non_padding", "no"),
}


@dataclass
class RunArguments(Seq2SeqTrainingArguments):
    """Transformers' own training arguments, with defaults for training from scratch on a small machine."""

    bf16: bool | str = field(
        default=False,
        metadata={
            "help": "true, false, or auto: compute in bfloat16 (mixed precision) where this machine multiplies it "
            "natively, in float32 elsewhere."
        },
    )
    eval_strategy: str = "epoch"
    save_strategy: str = "epoch"
    save_total_limit: int | None = 2
    load_best_model_at_end: bool = True
    remove_unused_columns: bool = False
    predict_with_generate: bool = True
    dataloader_pin_memory: bool = False
    logging_steps: float = 50
    logging_first_step: bool = True
    logging_nan_inf_filter: bool = False
    report_to: None | str | list[str] = "tensorboard"  # noqa: RUF036 - HfArgumentParser wants None first
    optim: str = "adamw_torch_fused"
    restore_callback_states_from_checkpoint: bool = True

    def __post_init__(self) -> None:
        for name in ("eval_strategy", "save_strategy", "logging_strategy"):
            if getattr(self, name) is False:  # how YAML reads a bare `no`
                setattr(self, name, "no")
        if not isinstance(self.bf16, bool) and self.bf16 != AUTO:
            raise InputError(f"bf16 must be true, false or auto, got {self.bf16!r}")
        if self.bf16 is True and self.fp16:
            raise InputError("bf16 and fp16 must not both be true; leave one out")
        if isinstance(self.resume_from_checkpoint, bool):  # how YAML reads a bare `true`
            self.resume_from_checkpoint = "last" if self.resume_from_checkpoint else None
        check_fields(self)
        for name, choices in LOGGING_CHOICES.items():
            check_choice(name, getattr(self, name), choices)
        self._take_as_transformers_does()
        check_obeyed(self)
        check_enums(self)
        check_deepspeed(self.deepspeed)
        if isinstance(self.fsdp, str) and self.fsdp.lower() in ("true", "false"):
            self.fsdp = self.fsdp.lower() == "true"  # Transformers' parser leaves it a text
        # Transformers takes bf16 on a machine without accelerator for a mistake unless told that this is meant.
        self.use_cpu = self.use_cpu or not torch.accelerator.is_available()
        device = torch.device("cpu") if self.use_cpu else accelerator_or_cpu()
        checkpoint = checkpoint_to_resume(Path(self.output_dir), self.resume_from_checkpoint)
        self.precision = choose_precision(self.bf16, self.fp16, device, checkpoint)
        self.bf16 = self.precision.bf16
        left_open, own_optimizer = self.metric_for_best_model is None, None
        if left_open and self.greater_is_better is not None:
            raise InputError(
                f"greater_is_better must be left out without metric_for_best_model, got {self.greater_is_better}; the "
                "task's own metric knows"
            )
        if self.optim == OwnOptimizer.MUON.value:  # which Transformers would refuse
            own_optimizer, self.optim = OwnOptimizer.MUON, "adamw_torch_fused"
        try:
            super().__post_init__()
        except (ValueError, TypeError, ImportError, RuntimeError, NotImplementedError) as error:
            hint = "" if BEST not in str(error) else f"; {BEST} is true here unless it is set to false"
            raise InputError(f"these training arguments cannot be used: {one_line(error)}{hint}") from error
        if own_optimizer is not None:
            self.optim = own_optimizer
        for name in ("gradient_checkpointing_kwargs", "lr_scheduler_kwargs"):
            if isinstance(value := getattr(self, name), str):  # it is not JSON, which Transformers would have read
                label = f"activation_checkpointing_kwargs ({name})" if name.startswith("gradient") else name
                raise InputError(f"{label} must be a mapping, got {value!r}")
        if left_open:
            # Transformers fills in the loss; `build_trainer` asks the task instead.
            self.metric_for_best_model = self.greater_is_better = None
        if DebugOption.TPU_METRICS_DEBUG in self.debug and not is_torch_xla_available():
            raise InputError("debug must not be tpu_metrics_debug without a TPU, where it does nothing; leave it out")
        if self.n_gpu > 1:  # Trainer would split batches by DataParallel, rows of R-Drop's two passes among them
            raise InputError(
                f"one process must see one GPU, got {self.n_gpu}; start train.py with torchrun --nproc-per-node "
                f"{self.n_gpu}, or set CUDA_VISIBLE_DEVICES=0"
            )
        if self.fsdp and self.parallel_mode.value != "distributed":
            raise InputError(f"fsdp must be left out in one process, got {self.fsdp!r}; start train.py with torchrun")

    def _take_as_transformers_does(self) -> None:
        """Give torch numbers where whole numbers were given for them, and Transformers names as one text."""
        for item in fields(self):
            value = getattr(self, item.name)
            if isinstance(item.default, float) and isinstance(value, int) and not isinstance(value, bool):
                setattr(self, item.name, float(value))  # Adam takes beta1=0.0, and refuses 0
            if item.name in JSON_FIELDS and isinstance(value, str) and value.startswith("{"):
                try:
                    json.loads(value)
                except json.JSONDecodeError as error:
                    raise InputError(f"{item.name} must be JSON, got {value!r}: {error}") from error
        if isinstance(self.debug, list):
            for name in self.debug:
                check_choice("debug", name, [one.value for one in DebugOption])
            self.debug = " ".join(str(getattr(name, "value", name)) for name in self.debug)
