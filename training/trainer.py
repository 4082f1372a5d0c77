"""The trainer of every task: `Seq2SeqTrainer` with batches, evaluation and loss of its own."""

import inspect
import math
from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from accelerate.data_loader import prepare_data_loader
from torch.distributed.tensor import DTensor
from torch.utils.data import DataLoader
from transformers import PreTrainedModel, Seq2SeqTrainer, TrainingArguments
from transformers.utils import logging

from ..data.samplers import Batches, SharedBatches
from ..tasks.encoder_decoders import computes_own_loss
from ..utils.errors import InputError
from .divergence import check_step
from .evaluation import EvaluatingTrainer
from .multi_path import Multipath
from .muon import Muon, OwnOptimizer, adamw_options, build_muon, check_rate_is_read, muon_options
from .parts import frozen_modules, keep_recomputing, split_groups
from .r_drop import twice
from .resumption import ResumingTrainer
from .schedule import check_bounds, check_schedule_ends, schedule_options
from .teacher import Teacher
from .timing import Stopwatch, stopwatch_of

logger = logging.get_logger(__name__)


def refuse_uneven_ties(model: PreTrainedModel) -> None:
    """Refuse a model that was spread over processes as it was loaded, if tied weights do not divide evenly.

    Transformers ties weights after it has spread them. Where torch has to pad a shard it does so once for every name
    of a tied weight, and the optimizer then trains one of these copies, which is not the one that the model reads.

    Raises:
        InputError: with the weight and how to fix it.
    """
    for name in model.all_tied_weights_keys:
        weight = model.get_parameter(name)
        if isinstance(weight, DTensor) and len(weight) % weight.device_mesh.size():
            raise InputError(
                f"{name} is tied and has {len(weight)} rows over {weight.device_mesh.size()} processes: call "
                "resize_token_embeddings with pad_to_multiple_of before saving the model, or untie it"
            )


class CrossMaskTrainer(ResumingTrainer, EvaluatingTrainer):
    """Trains like `Seq2SeqTrainer`, resumes exactly, and evaluates as the task defines it.

    Training ends with a `DivergedError` before a step whose loss or gradient is not finite.

    Args:
        task, eval_collator, eval_tokens: of `EvaluatingTrainer`.
        train_batches: the training batches of all processes, which are dealt out here; None where `train_dataset` is
            a `PackedStream`, which deals out its own (make it with `epochs=None`, so that a run resumes exactly).
        multipath: chooses every step's wait; by default training has the masks of the config only.
        r_drop: the weight of the divergence of two passes (`r_drop.py`); by default there is one pass.
        teacher: a model whose predictions are a share of the target, for tasks whose `check_loss_field` allows it.
        learning_rates: of parts of the model (`parts.py`) that have one of their own. Modules whose parameters are all
            frozen stay in evaluation mode, so that they compute in training what they compute afterwards.
    """

    def __init__(
        self,
        *args,
        train_batches: Batches | None = None,
        multipath: Multipath | None = None,
        learning_rates: Mapping[str, float] | None = None,
        r_drop: float = 0.0,
        teacher: Teacher | None = None,
        **kwargs,
    ):
        given = kwargs["model"]
        use_cache = vars(given.config).get("use_cache")
        super().__init__(*args, **kwargs)
        # Trainer sets it to False: the saved config would tell all users to do without a cache.
        if use_cache is None:
            del given.config.use_cache
        else:
            given.config.use_cache = use_cache
        self.add_callback(Stopwatch())
        self.takes_use_cache = "use_cache" in inspect.signature(given.forward).parameters
        refuse_uneven_ties(given)
        self.train_batches = train_batches
        self.multipath = multipath
        self.learning_rates = learning_rates or {}
        self.r_drop, self.teacher = r_drop, teacher
        if teacher is not None:
            teacher.model.to(self.args.device)
        self.frozen_modules = frozen_modules(given)
        self.recomputing = keep_recomputing(self.frozen_modules) if self.args.gradient_checkpointing else []
        # Such a model smooths labels itself, without the logits of the whole batch that Trainer's smoother needs.
        self.computes_own_loss = computes_own_loss(given)
        self.loss_of_outputs = self.task.loss_function(given, self.args.label_smoothing_factor, r_drop)
        self.compute_loss_func = self.loss_of_outputs
        if self.compute_loss_func is not None:
            self.model_accepts_loss_kwargs = False
        if self.computes_own_loss or self.compute_loss_func is not None:
            self.label_smoother = None
        self._step_loss: torch.Tensor | float = 0.0  # of the batches since the last optimizer step
        self._skipped_steps = 0

    def get_train_dataloader(self) -> DataLoader:
        args = self.args
        options: dict[str, Any] = {}
        if self.train_batches is not None:
            peers = self.get_tp_size()  # ranks that share one copy of the model see the same batches
            shared = SharedBatches(self.train_batches, args.world_size // peers, args.process_index // peers)
            options["batch_sampler"] = shared
        else:
            options["batch_size"] = None
        loader = DataLoader(
            self.train_dataset,
            **options,
            collate_fn=self.data_collator,
            persistent_workers=args.dataloader_persistent_workers,
            **self._worker_options(),
        )
        # Told of one process: accelerate would deal the batches out again, and repeat the first to make the last even.
        return prepare_data_loader(
            loader, args.device, num_processes=1, process_index=0, put_on_device=True, dispatch_batches=False
        )

    def _get_num_items_in_batch(self, batch_samples: list, device: torch.device) -> torch.Tensor | int | None:
        """How many targets the batches of a step have, which Trainer counts in `labels` alone."""
        targets = [self.task.targets(batch) for batch in batch_samples]
        return super()._get_num_items_in_batch([{"labels": one} for one in targets if one is not None], device)

    @staticmethod
    def get_optimizer_cls_and_kwargs(args: TrainingArguments, model: PreTrainedModel | None = None) -> tuple[Any, Any]:
        if args.optim == OwnOptimizer.MUON:
            return Muon, adamw_options(args) | muon_options(args)
        return Seq2SeqTrainer.get_optimizer_cls_and_kwargs(args, model)

    def create_optimizer(self, *args, **kwargs) -> torch.optim.Optimizer:
        is_new = self.optimizer is None
        model: Any = self.model
        if is_new and self.args.optim == OwnOptimizer.MUON:
            self.optimizer = build_muon(model, self.args, set(self.get_decay_parameter_names(model)))
        optimizer = super().create_optimizer(*args, **kwargs)
        if is_new and self.learning_rates:
            optimizer.param_groups[:] = split_groups(optimizer.param_groups, model, self.learning_rates)
            check_rate_is_read(optimizer, self.args)
        return optimizer

    def create_scheduler(self, num_training_steps: int, *args, **kwargs) -> Any:
        if self.lr_scheduler is not None:
            return self.lr_scheduler
        check_schedule_ends(self.args, num_training_steps)
        self._say_if_never_evaluated(num_training_steps)
        optimizer: Any = self.optimizer
        check_bounds(self.args, [group["lr"] for group in optimizer.param_groups])
        for group in optimizer.param_groups:
            if "warmup_steps" in group:  # of a schedule-free optimizer, which would take a share as a number of steps
                group["warmup_steps"] = self.args.get_warmup_steps(num_training_steps)
        given = self.args.lr_scheduler_kwargs
        self.args.lr_scheduler_kwargs = schedule_options(self.args, num_training_steps)
        try:
            return super().create_scheduler(num_training_steps, *args, **kwargs)
        finally:
            self.args.lr_scheduler_kwargs = given  # a share is one of the steps of another run as well

    def _say_if_never_evaluated(self, steps: int) -> None:
        args = self.args
        if args.eval_strategy == "steps":
            names, length, unit = ["eval_steps", "eval_delay"], steps, "steps"
        elif args.eval_strategy == "epoch" and args.max_steps <= 0:
            names, length, unit = ["eval_delay"], math.ceil(args.num_train_epochs), "epochs"
        else:
            return
        for name in names:
            if (value := getattr(args, name) or 0) > length:
                logger.warning(
                    f"{name} is {value:g} and the run has {length} {unit}: it is not evaluated while it trains"
                )

    def compute_loss(self, model, inputs, *args, **kwargs):
        for module in self.frozen_modules:
            module.eval()  # Trainer puts the whole model into training mode before every step
        for layer in self.recomputing:
            layer.training = True
        distillation = None
        if self.teacher is not None:
            with self.accelerator.autocast():
                distillation = self.teacher.predictions(inputs)
        if self.r_drop:
            inputs = twice(inputs)
        if distillation is not None and self.loss_of_outputs is None:
            inputs = {**inputs, "distillation": distillation}
        if self.computes_own_loss:
            inputs = {**inputs, "smoothing": self.args.label_smoothing_factor, "skip_logits": True}
            inputs["r_drop"] = self.r_drop
        elif self.takes_use_cache:
            inputs = {**inputs, "use_cache": False}
        if distillation is None or self.loss_of_outputs is None:
            return super().compute_loss(model, inputs, *args, **kwargs)
        self.compute_loss_func = partial(self.loss_of_outputs, distillation=distillation)
        try:
            return super().compute_loss(model, inputs, *args, **kwargs)
        finally:
            self.compute_loss_func = self.loss_of_outputs  # the logits that it held are large

    def evaluate(self, *args, **kwargs) -> dict[str, float]:
        with stopwatch_of(self).paused():
            return super().evaluate(*args, **kwargs)

    def training_step(self, model: torch.nn.Module, inputs: dict[str, Any], *args, **kwargs) -> torch.Tensor:
        if self.multipath is not None:
            inputs = {**inputs, "cross_mask": self.multipath.mask(self.state.global_step)}
        loss = super().training_step(model, inputs, *args, **kwargs)
        self._step_loss = self._step_loss + loss.detach().float()
        return loss

    def _get_grad_norm(self, model: torch.nn.Module, grad_norm: Any = None) -> Any:
        """The gradient's norm, which Trainer asks for right before an optimizer step: the place to stop a bad one.

        An accelerator is waited for once a step; Trainer's own look at the loss (`logging_nan_inf_filter`, which
        `RunArguments` switches off) waits twice a batch.
        """
        norm = super()._get_grad_norm(model, grad_norm)
        whole = norm.full_tensor() if isinstance(norm, DTensor) else torch.as_tensor(norm)
        loss, size = torch.stack(
            [torch.as_tensor(self._step_loss, device=whole.device), whole.detach().float()]
        ).tolist()
        self._step_loss = 0.0
        self._skipped_steps = check_step(self, loss, size, self._skipped_steps)
        return norm
