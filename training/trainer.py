"""`Seq2SeqTrainer` with an evaluation that the task defines, in length buckets."""

import copy
import inspect
from functools import partial
from typing import Any

import torch
from accelerate.data_loader import prepare_data_loader
from accelerate.utils import gather_object
from torch.distributed.tensor import DTensor
from torch.utils.data import DataLoader
from tqdm.auto import tqdm
from transformers import EarlyStoppingCallback, PreTrainedModel, Seq2SeqTrainer
from transformers.trainer_callback import ExportableState
from transformers.trainer_utils import EvalLoopOutput, seed_worker

from ..data.collator import Seq2SeqCollator
from ..data.length_buckets import bucket_batches
from ..data.samplers import Batches, SharedBatches
from ..modeling.decoder_inputs import IGNORED
from ..tasks.base import Scores, Task
from ..tasks.examples import EvaluationSplit
from ..utils.errors import InputError
from .divergence import check_evaluation, check_step
from .multi_path import Multipath


class IndexedCollator:
    """Collates evaluation items, keeping their indices."""

    def __init__(self, collate: Seq2SeqCollator):
        self.collate = collate

    def __call__(self, items: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        index = torch.tensor([item["index"] for item in items])
        if "labels" in items[0]:
            batch = self.collate([{k: v for k, v in item.items() if k not in ("index", "example")} for item in items])
            return {**batch, "index": index}
        batch = self.collate([{"input_ids": item["input_ids"], "labels": [IGNORED]} for item in items])
        return {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"], "index": index}


def refuse_uneven_ties(model: PreTrainedModel) -> None:
    """Refuse a model that was spread over processes as it was loaded, if tied weights do not divide evenly.

    Transformers ties weights after it has spread them. Where torch has to pad a shard it does so once for every name
    of a tied weight, and the optimizer then trains one of these copies, which is not the one that the model reads.

    Raises:
        ValueError: with the weight and how to fix it.
    """
    for name in model.all_tied_weights_keys:
        weight = model.get_parameter(name)
        if isinstance(weight, DTensor) and len(weight) % weight.device_mesh.size():
            raise InputError(
                f"{name} is tied and has {len(weight)} rows over {weight.device_mesh.size()} processes: call "
                "resize_token_embeddings with pad_to_multiple_of before saving the model, or untie it"
            )


class CrossMaskTrainer(Seq2SeqTrainer):
    """Trains like `Seq2SeqTrainer`; evaluates an `EvaluationSplit` by the task's predictions, which the task scores.

    Training ends with a `DivergedError` before a step whose loss or gradient is not finite.

    Args:
        task: predicts and scores.
        eval_collator: pads evaluation batches.
        eval_tokens: tokens in an evaluation batch at most, padding included.
        train_batches: the training batches of all processes, which are dealt out here; None where `train_dataset` is
            a `PackedStream`, which deals out its own (make it with `epochs=None`, so that a run resumes exactly).
        multipath: chooses every step's wait; by default training has the masks of the config only.
    """

    def __init__(
        self,
        *args,
        task: Task,
        eval_collator: Seq2SeqCollator,
        eval_tokens: int,
        train_batches: Batches | None = None,
        multipath: Multipath | None = None,
        **kwargs,
    ):
        super().__init__(*args, **kwargs)
        refuse_uneven_ties(self.model)
        self.train_batches = train_batches
        self.task = task
        self.multipath = multipath
        self.eval_collator = IndexedCollator(eval_collator)
        self.eval_tokens = eval_tokens
        # Such a model smooths labels itself, without the logits of the whole batch that Trainer's smoother needs.
        self.computes_own_loss = {"smoothing", "skip_logits"} <= inspect.signature(
            self.model.forward
        ).parameters.keys()
        if self.computes_own_loss:
            self.label_smoother = None
        self.predictions: list[Any] = []
        self.scores: Scores = {}
        self._step_loss: torch.Tensor | float = 0.0  # of the batches since the last optimizer step
        self._skipped_steps = 0

    def get_train_dataloader(self) -> DataLoader:
        args, options = self.args, {}
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

    def _worker_options(self) -> dict[str, Any]:
        """How a loader gets its batches, in training and in evaluation."""
        args = self.args
        return {
            "num_workers": args.dataloader_num_workers,
            "pin_memory": args.dataloader_pin_memory,
            "prefetch_factor": args.dataloader_prefetch_factor,
            "multiprocessing_context": args.dataloader_multiprocessing_context,
            "worker_init_fn": partial(seed_worker, num_workers=args.dataloader_num_workers, rank=args.process_index),
        }

    def _get_num_items_in_batch(self, batch_samples: list, device: torch.device) -> torch.Tensor | int | None:
        """How many targets the batches of a step have, which Trainer counts in `labels` alone."""
        counted = [{"labels": self.task.targets(batch)} for batch in batch_samples]
        return super()._get_num_items_in_batch([one for one in counted if one["labels"] is not None], device)

    def compute_loss(self, model, inputs, *args, **kwargs):
        if self.computes_own_loss:
            inputs = {**inputs, "smoothing": self.args.label_smoothing_factor, "skip_logits": True}
        return super().compute_loss(model, inputs, *args, **kwargs)

    def get_eval_dataloader(self, eval_dataset: EvaluationSplit | None = None) -> DataLoader:
        split = eval_dataset if eval_dataset is not None else self.eval_dataset
        sources = [len(ids) for ids in split.features["input_ids"]]
        targets = [len(ids) for ids in split.features["labels"]] if split.has_targets else None
        batches = bucket_batches(sources, targets, max_tokens=self.eval_tokens)
        mine = batches[self.args.process_index :: self.args.world_size]
        return DataLoader(split, batch_sampler=mine, collate_fn=self.eval_collator, **self._worker_options())

    def get_test_dataloader(self, test_dataset: EvaluationSplit) -> DataLoader:
        return self.get_eval_dataloader(test_dataset)

    def evaluate(self, eval_dataset: EvaluationSplit | None = None, *args, **kwargs) -> dict[str, float]:
        """Loss and the task's metrics.

        Raises:
            ValueError: examples without targets.
        """
        split = eval_dataset if eval_dataset is not None else self.eval_dataset
        if split is not None and not split.has_targets:
            raise InputError(
                "evaluate needs labels, and these examples are sources alone: give their targets, or call predict"
            )
        return super().evaluate(eval_dataset, *args, **kwargs)

    def _load_callback_state(self) -> None:
        super()._load_callback_state()
        # Trainer cannot save the state of a callback that the checkpoint does not know.
        for callback in self.callback_handler.callbacks:
            if isinstance(callback, ExportableState):
                self.state.stateful_callbacks.setdefault(type(callback).__name__, callback.state())

    def _run_epoch(self, *args, **kwargs) -> None:
        """Train for an epoch, unless a resumed run had come to its end: Trainer would take a step more."""
        early = [one for one in self.callback_handler.callbacks if isinstance(one, EarlyStoppingCallback)]
        stopped = any(one.early_stopping_patience_counter >= one.early_stopping_patience for one in early)
        if stopped or self.state.global_step >= self.state.max_steps:
            self.control.should_training_stop = True
        else:
            super()._run_epoch(*args, **kwargs)

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
        seen = torch.stack([torch.as_tensor(self._step_loss, device=whole.device), whole.detach().float()]).tolist()
        self._step_loss = 0.0
        self._skipped_steps = check_step(self, *seen, self._skipped_steps)
        return norm

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        """Go on with the optimizer's settings that are asked for now: the checkpoint has its own."""
        groups = getattr(self.optimizer, "param_groups", ())
        _, asked = self.get_optimizer_cls_and_kwargs(self.args, self.model)
        names = {"weight_decay", *asked} - {"lr"}
        settings = [{name: group[name] for name in names & group.keys()} for group in groups]
        super()._load_optimizer_and_scheduler(checkpoint)
        groups = getattr(self.optimizer, "param_groups", ())
        if checkpoint is None:
            return
        for group, given in zip(groups, settings, strict=True):
            group.update(given)
        if not isinstance(self.lr_scheduler, torch.optim.lr_scheduler.LambdaLR):
            return
        for at, group in enumerate(groups):
            before = group["initial_lr"]
            if before not in (0, self.args.learning_rate):
                group["lr"] *= self.args.learning_rate / before
                group["initial_lr"] = self.args.learning_rate
                self.lr_scheduler.base_lrs[at] = self.args.learning_rate
                self.lr_scheduler._last_lr[at] = group["lr"]

    @torch.no_grad()
    def whole_model(self) -> PreTrainedModel:
        """The model without wrappers; where its weights are spread over processes (FSDP), a copy that has them all.

        A process may then compute with it alone. All processes have to call this together.
        """
        model = self.accelerator.unwrap_model(self.model)
        state = model.state_dict()
        if not any(isinstance(value, DTensor) for value in state.values()):
            return model
        config = copy.deepcopy(model.config)
        config.distributed_config = None  # by which Transformers would have every process take part in saving it
        whole = type(model)._from_config(config, attn_implementation=config._attn_implementation)
        whole.load_state_dict({k: v.full_tensor() if isinstance(v, DTensor) else v for k, v in state.items()})
        whole.generation_config = model.generation_config
        return whole.to(self.args.device)

    @torch.no_grad()
    def evaluation_loop(
        self,
        dataloader: DataLoader,
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> EvalLoopOutput:
        """The mean loss over all targets, and the task's metrics of its predictions.

        These stay in `predictions`, in the examples' order, and all scores, signatures included, in `scores`. Of
        sources alone there are predictions only, which `predict` returns.
        """
        model = self.whole_model().eval()
        split: EvaluationSplit = dataloader.dataset
        # The argument is True wherever there is no `compute_metrics`.
        generation = None if self.args.prediction_loss_only else self._gen_kwargs
        outputs: list[tuple[int, Any]] = []
        sums = torch.zeros(2, dtype=torch.float64, device=self.args.device)
        for batch in tqdm(dataloader, desc=description, disable=self.args.disable_tqdm, leave=False):
            batch = self._prepare_inputs(batch)
            index = batch.pop("index")
            with self.compute_loss_context_manager(), self.accelerator.autocast():
                result = self.task.evaluate_batch(model, self.processing_class, batch, generation)
            if result.loss is not None:
                sums += result.loss
            if result.predictions is not None:
                outputs += zip(index.tolist(), result.predictions, strict=True)
        metrics = {}
        if split.has_targets:
            loss, count = self.accelerator.reduce(sums, "sum").tolist()
            metrics[f"{metric_key_prefix}_loss"] = loss / count
            check_evaluation(self, f"{metric_key_prefix}_loss", loss / count)
        predictions = None
        if generation is not None:
            items = split.by_example(dict(gather_object(outputs)))
            predictions = [self.task.combine(found, split.examples[at]) for at, found in enumerate(items)]
            self.predictions = predictions
        if predictions is not None and split.has_targets:
            self.scores = self.task.metrics(predictions, split.examples)
            numbers = {key: value for key, value in self.scores.items() if not isinstance(value, str)}
            metrics |= {f"{metric_key_prefix}_{key}": value for key, value in numbers.items()}
        return EvalLoopOutput(predictions=predictions, label_ids=None, metrics=metrics, num_samples=len(split))
