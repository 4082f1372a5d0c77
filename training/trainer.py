"""`Seq2SeqTrainer` with an evaluation that encodes and generates once per example, in length buckets."""

from typing import Any

import torch
from accelerate.utils import gather_object
from torch.utils.data import DataLoader, Dataset, Sampler
from tqdm.auto import tqdm
from transformers import Seq2SeqTrainer
from transformers.trainer_utils import EvalLoopOutput

from ..data.buckets import BucketSampler, bucket_batches
from ..data.collator import Seq2SeqCollator
from ..data.packing import PackedDataset, PackedSampler
from ..inference.texts import generate_texts
from ..tasks.base import Scores, Task
from .multipath import Multipath
from .splits import EvaluationSplit


class IndexedCollator:
    """Collates evaluation items, keeping their indices."""

    def __init__(self, collate: Seq2SeqCollator):
        self.collate = collate

    def __call__(self, items: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        batch = self.collate([{k: v for k, v in item.items() if k != "index"} for item in items])
        return {**batch, "index": torch.tensor([item["index"] for item in items])}


class CrossMaskTrainer(Seq2SeqTrainer):
    """Trains like `Seq2SeqTrainer`; evaluates an `EvaluationSplit` by generating text, which the task scores.

    Args:
        task: scores the generated texts.
        eval_collator: pads evaluation batches.
        eval_tokens: tokens in an evaluation batch at most, padding included.
        train_batches: training batches, instead of `per_device_train_batch_size` items each.
        multipath: chooses every step's wait; by default training has the masks of the config only.
    """

    def __init__(
        self,
        *args,
        task: Task,
        eval_collator: Seq2SeqCollator,
        eval_tokens: int,
        train_batches: BucketSampler | None = None,
        multipath: Multipath | None = None,
        **kwargs,
    ):
        super().__init__(*args, **kwargs)
        self.train_batches = train_batches
        self.task = task
        self.multipath = multipath
        self.eval_collator = IndexedCollator(eval_collator)
        self.eval_tokens = eval_tokens
        # The model smooths labels itself, without the logits of the whole batch that Trainer's smoother needs.
        self.label_smoother = None
        self.predictions: list[str] = []
        self.scores: Scores = {}

    def get_train_dataloader(self) -> DataLoader:
        if self.train_batches is None:
            return super().get_train_dataloader()
        loader = DataLoader(
            self.train_dataset,
            batch_sampler=self.train_batches,
            collate_fn=self.data_collator,
            num_workers=self.args.dataloader_num_workers,
            pin_memory=self.args.dataloader_pin_memory,
        )
        return self.accelerator.prepare(loader)

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> Sampler | None:
        train_dataset = train_dataset if train_dataset is not None else self.train_dataset
        if isinstance(train_dataset, PackedDataset):
            return PackedSampler(train_dataset)  # packs anew every epoch, also where a run resumes inside one
        return super()._get_train_sampler(train_dataset)

    def compute_loss(self, model, inputs, *args, **kwargs):
        inputs = {**inputs, "smoothing": self.args.label_smoothing_factor, "skip_logits": True}
        return super().compute_loss(model, inputs, *args, **kwargs)

    def get_eval_dataloader(self, eval_dataset: EvaluationSplit | None = None) -> DataLoader:
        split = eval_dataset if eval_dataset is not None else self.eval_dataset
        lengths = ([len(ids) for ids in split.features[name]] for name in ("input_ids", "labels"))
        batches = bucket_batches(*lengths, max_tokens=self.eval_tokens)
        mine = batches[self.args.process_index :: self.args.world_size]
        return DataLoader(split, batch_sampler=mine, collate_fn=self.eval_collator)

    def training_step(self, model: torch.nn.Module, inputs: dict[str, Any], *args, **kwargs) -> torch.Tensor:
        if self.multipath is not None:
            inputs = {**inputs, "cross_mask": self.multipath.mask(self.state.global_step)}
        return super().training_step(model, inputs, *args, **kwargs)

    @torch.no_grad()
    def evaluation_loop(
        self,
        dataloader: DataLoader,
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> EvalLoopOutput:
        """Loss per target token, and the task's metrics of the texts generated, each example encoded once.

        The texts stay in `predictions`, in the examples' order, and all scores, signatures included, in `scores`.
        """
        model = self.accelerator.unwrap_model(self.model)
        model.eval()
        split: EvaluationSplit = dataloader.dataset
        generate = not self.args.prediction_loss_only  # the argument is True wherever there is no `compute_metrics`
        texts: list[tuple[int, str]] = []
        sums = torch.zeros(2, dtype=torch.float64, device=self.args.device)
        bar = tqdm(dataloader, desc=description, disable=self.args.disable_tqdm, leave=False)
        for batch in bar:
            batch = self._prepare_inputs(batch)
            index, labels = batch.pop("index"), batch.pop("labels")
            with self.compute_loss_context_manager(), self.accelerator.autocast():
                source = {key: batch[key] for key in ("input_ids", "attention_mask")}
                encoded = model.get_encoder()(**source)
                sums += self._loss_sum(model, encoded, batch, labels)
                if generate:
                    inputs = {"encoder_outputs": encoded, "attention_mask": batch["attention_mask"]}
                    generated = generate_texts(model, self.processing_class, **inputs, **self._gen_kwargs)
                    texts += zip(index.tolist(), generated, strict=True)
        loss, tokens = self.accelerator.reduce(sums, "sum").tolist()
        metrics = {f"{metric_key_prefix}_loss": loss / tokens}
        if generate:
            found = dict(gather_object(texts))
            self.predictions = [found[i] for i in range(len(split))]
            self.scores = self.task.metrics(self.predictions, split.examples)
            numbers = {key: value for key, value in self.scores.items() if not isinstance(value, str)}
            metrics |= {f"{metric_key_prefix}_{key}": value for key, value in numbers.items()}
        return EvalLoopOutput(predictions=None, label_ids=None, metrics=metrics, num_samples=len(split))

    @staticmethod
    def _loss_sum(model, encoded, batch: dict[str, torch.Tensor], labels: torch.Tensor) -> torch.Tensor:
        """The summed loss and the number of target tokens, (2,) float64."""
        target = {key: value for key, value in batch.items() if key != "input_ids"}
        loss = model(encoder_outputs=encoded, labels=labels, num_items_in_batch=1, use_cache=False, **target).loss
        return torch.stack([loss.double(), (labels != -100).sum().double()])
