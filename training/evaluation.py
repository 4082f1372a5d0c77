"""Evaluation as the task defines it: batches of similar length, each item predicted once, scored all together."""

import copy
from functools import partial
from typing import Any

import torch
from accelerate.utils import gather_object
from torch.distributed.tensor import DTensor
from torch.utils.data import DataLoader
from tqdm.auto import tqdm
from transformers import PreTrainedModel, Seq2SeqTrainer
from transformers.trainer_utils import EvalLoopOutput, seed_worker

from ..data.length_buckets import bucket_batches
from ..seq2seq.decoder_inputs import IGNORED
from ..tasks.base import Collator, Scores, Task
from ..tasks.examples import EvaluationSplit
from ..utils.errors import InputError
from .divergence import check_evaluation


class IndexedCollator:
    """Collates evaluation items, keeping their indices."""

    def __init__(self, collate: Collator):
        self.collate = collate

    def __call__(self, items: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        index = torch.tensor([item["index"] for item in items])
        if "labels" in items[0]:
            batch = self.collate([{k: v for k, v in item.items() if k not in ("index", "example")} for item in items])
            return {**batch, "index": index}
        batch = self.collate([{"input_ids": item["input_ids"], "labels": [IGNORED]} for item in items])
        return {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"], "index": index}


class EvaluatingTrainer(Seq2SeqTrainer):
    """`Seq2SeqTrainer` that evaluates an `EvaluationSplit` by the task's predictions, which the task scores.

    Args:
        task: predicts and scores.
        eval_collator: pads evaluation batches.
        eval_tokens: tokens in an evaluation batch at most, padding included.

    Attributes:
        predictions: of the last evaluation, in the examples' order. scores: of it, signatures included.
    """

    eval_dataset: EvaluationSplit | None

    def __init__(self, *args, task: Task, eval_collator: Collator, eval_tokens: int, **kwargs):
        super().__init__(*args, **kwargs)
        self.task = task
        self.eval_collator = IndexedCollator(eval_collator)
        self.eval_tokens = eval_tokens
        self.predictions: list[Any] = []
        self.scores: Scores = {}

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

    def get_eval_dataloader(self, eval_dataset: EvaluationSplit | None = None) -> DataLoader:
        split = eval_dataset if eval_dataset is not None else self.eval_dataset
        if split is None:
            raise InputError("evaluate must have eval_dataset, got none; give one to it, or to the trainer")
        batches = bucket_batches(*split.lengths, self.eval_tokens)
        own_batches = batches[self.args.process_index :: self.args.world_size]
        return DataLoader(split, batch_sampler=own_batches, collate_fn=self.eval_collator, **self._worker_options())

    def get_test_dataloader(self, test_dataset: EvaluationSplit) -> DataLoader:
        return self.get_eval_dataloader(test_dataset)

    def evaluate(self, eval_dataset: EvaluationSplit | None = None, *args, **kwargs) -> dict[str, float]:
        """Loss and the task's metrics.

        Raises:
            InputError: examples without targets.
        """
        split = eval_dataset if eval_dataset is not None else self.eval_dataset
        if split is not None and not split.has_targets:
            raise InputError(
                "evaluate needs labels, and these examples are sources alone: give their targets, or call predict"
            )
        return super().evaluate(eval_dataset, *args, **kwargs)

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
        self.use_evaluated_weights()
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

    def use_evaluated_weights(self) -> None:
        """Let an optimizer that trains other weights than it evaluates, as schedule-free ones do, put these in place.

        Every training step puts the others back.
        """
        if callable(switch := getattr(self.optimizer, "eval", None)):
            switch()

    def save_model(self, *args, **kwargs) -> None:
        self.use_evaluated_weights()
        super().save_model(*args, **kwargs)

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
        gathered = type(model)._from_config(config, attn_implementation=config._attn_implementation)
        gathered.load_state_dict({k: v.full_tensor() if isinstance(v, DTensor) else v for k, v in state.items()})
        gathered.generation_config = model.generation_config
        return gathered.to(self.args.device)
