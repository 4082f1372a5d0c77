"""A run that goes on from a checkpoint takes the same steps as one without a break."""

from pathlib import Path
from typing import Any

import torch
from torch.optim.lr_scheduler import LambdaLR, ReduceLROnPlateau
from transformers import EarlyStoppingCallback, Seq2SeqTrainer, TrainerCallback
from transformers.optimization import GreedyLR, StreamingAverage
from transformers.trainer_callback import ExportableState
from transformers.trainer_pt_utils import nested_gather

from ..utils.errors import InputError
from .run_directory import state_of_trainer

# Attributes of schedules by the metric that hold their options.
OPTIONS_BY_METRIC = (
    "factor", "patience", "threshold", "threshold_mode", "cooldown", "warmup", "min_lrs", "max_lrs", "eps",
    "reset_start_original", "smooth", "window_size",
)  # fmt: skip


class RunningLoss(TrainerCallback, ExportableState):
    """Keeps in every checkpoint the losses since the last entry of the log, so that the next entry has all of them.

    Args:
        total: their sum, a mean over processes. logged_at: the step of the last entry; None where nothing was saved.
    """

    def __init__(self, total: float = 0.0, logged_at: int | None = None):
        self.total, self.logged_at = total, logged_at

    def state(self) -> dict[str, Any]:
        return {"args": {"total": self.total, "logged_at": self.logged_at}, "attributes": {}}


class ResumingTrainer(Seq2SeqTrainer):
    """`Seq2SeqTrainer` that goes on exactly, with the settings that are asked for now."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.add_callback(RunningLoss())

    def _init_training_state(
        self, max_steps: int, steps_of_epoch: int, epochs: int, checkpoint: str | None, trial: Any
    ) -> tuple[int, int]:
        places = super()._init_training_state(max_steps, steps_of_epoch, epochs, checkpoint, trial)
        if checkpoint is None:
            return places
        self.args.eval_on_start = False  # early stopping would count it as one without a better metric
        self.state.compute_steps(self.args, max_steps)
        done = self.state.global_step
        if done > max_steps:
            raise InputError(
                f"a run that goes on from {checkpoint} must have at least its {done} steps, got {max_steps}; raise "
                "num_train_epochs, or train anew with --overwrite or in another --output_dir"
            )
        best = (state_of_trainer(Path(checkpoint)) or {}).get("best_model_checkpoint")
        if best is not None and self.state.best_model_checkpoint is None:
            moved = Path(checkpoint).parent / Path(best).name
            if moved.is_dir():
                self.state.best_model_checkpoint = str(moved)
            elif self.args.load_best_model_at_end and done == max_steps:
                raise InputError(
                    f"{best}, the best checkpoint of a run that is at its end, must be there: put it back, or set "
                    "load_best_model_at_end to false for the last one"
                )
        return places

    def _callbacks(self, kind: type) -> list[Any]:
        return [callback for callback in self.callback_handler.callbacks if isinstance(callback, kind)]

    def _save_checkpoint(self, *args, **kwargs) -> None:
        for record in self._callbacks(RunningLoss):
            record.total = nested_gather(self._tr_loss, self.args.parallel_mode).mean().item()
            record.logged_at = self._globalstep_last_logged
        super()._save_checkpoint(*args, **kwargs)

    def _determine_best_metric(self, metrics: dict[str, float], trial: Any) -> bool:
        """Compare with the best; not a model that is evaluated without being saved, where the best is to be kept.

        Of equal ones the last is the best: at first sacreBLEU may stay at 0 while the loss falls.
        """
        by_steps = self.args.load_best_model_at_end and self.args.save_strategy in ("steps", "epoch")
        if by_steps and not self.control.should_save:
            return False
        name = self.args.metric_for_best_model
        if name is not None and metrics.get(f"eval_{name.removeprefix('eval_')}") == self.state.best_metric:
            self.state.best_metric = None
        return super()._determine_best_metric(metrics, trial)

    def _load_callback_state(self) -> None:
        patience = [callback.early_stopping_patience for callback in self._callbacks(EarlyStoppingCallback)]
        super()._load_callback_state()
        for callback, asked in zip(self._callbacks(EarlyStoppingCallback), patience, strict=True):
            callback.early_stopping_patience = asked
        # Trainer cannot save the state of a callback that the checkpoint does not know.
        for callback in self.callback_handler.callbacks:
            if isinstance(callback, ExportableState):
                self.state.stateful_callbacks.setdefault(type(callback).__name__, callback.state())

    def _run_epoch(self, *args, **kwargs) -> None:
        """Train for an epoch, unless a resumed run had come to its end: Trainer would take a step more."""
        if kwargs["resume_from_checkpoint"] is not None and kwargs["epoch"] == kwargs["epochs_trained"]:
            self._restore_loss()
            if self.args.save_strategy == "steps" and kwargs["steps_trained_in_current_epoch"] == 0:
                self._end_epoch(**kwargs)
        stopped = any(
            callback.early_stopping_patience_counter >= callback.early_stopping_patience
            for callback in self._callbacks(EarlyStoppingCallback)
        )
        if stopped or self.state.global_step >= self.state.max_steps:
            self.control.should_training_stop = True
        else:
            super()._run_epoch(*args, **kwargs)

    def _restore_loss(self) -> None:
        for record in self._callbacks(RunningLoss):
            if record.logged_at is not None:
                self._tr_loss = torch.full_like(self._tr_loss, record.total)
                self._globalstep_last_logged = record.logged_at
                # The mean loss at the end is that of the steps after the checkpoint.
                self._total_loss_scalar = -record.total

    def _end_epoch(
        self, epoch: int, model: Any, trial: Any, ignore_keys_for_eval: Any, start_time: float, **_
    ) -> None:
        """What the end of an epoch brings, where the checkpoint is of its last step: that is saved before it."""
        self.control.should_log = self.control.should_evaluate = self.control.should_save = False
        self.control = self.callback_handler.on_epoch_end(self.args, self.state, self.control)
        self._maybe_log_save_evaluate(self._tr_loss, None, model, trial, epoch, ignore_keys_for_eval, start_time)

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        groups = getattr(optimizer or self.optimizer, "param_groups", ())
        for group in groups:
            group.setdefault("initial_lr", group["lr"])  # which only some schedulers keep
        return super().create_scheduler(num_training_steps, optimizer)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        """Go on with the settings of optimizer and schedule that are asked for now: the checkpoint has its own."""
        groups = getattr(self.optimizer, "param_groups", ())
        _, asked = self.get_optimizer_cls_and_kwargs(self.args, self.model)
        names = {"weight_decay", *asked} - {"lr"}
        settings = [{name: group[name] for name in names & group.keys()} for group in groups]
        rates = [group.get("initial_lr", group["lr"]) for group in groups]
        schedule = self._options_of_schedule()
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is None:
            return
        vars(self.lr_scheduler).update(schedule)
        if isinstance(self.lr_scheduler, GreedyLR) and self.lr_scheduler.smooth:
            self._set_window(self.lr_scheduler)
        groups = getattr(self.optimizer, "param_groups", ())
        for group, wanted in zip(groups, settings, strict=True):
            group.update(wanted)
        if not isinstance(self.lr_scheduler, (LambdaLR, ReduceLROnPlateau, GreedyLR)):
            return
        for index, (group, rate) in enumerate(zip(groups, rates, strict=True)):
            before = group.get("initial_lr")
            if before not in (None, 0, rate):
                group["lr"] *= rate / before
                group["initial_lr"] = rate
                self.lr_scheduler._last_lr[index] = group["lr"]
                for name in {"base_lrs", "_init_lrs"} & vars(self.lr_scheduler).keys():
                    getattr(self.lr_scheduler, name)[index] = rate

    @staticmethod
    def _set_window(schedule: GreedyLR) -> None:
        """Average the last values of the metric over the window that is asked for now."""
        seen = schedule._streaming_avg.values if schedule._streaming_avg else []
        schedule._streaming_avg = average = StreamingAverage(schedule.window_size)
        for value in seen[-schedule.window_size :]:
            average.streamavg(value)

    def _options_of_schedule(self) -> dict[str, Any]:
        """The options of a schedule by the metric, as its attributes; none of a schedule of steps."""
        if not isinstance(self.lr_scheduler, (ReduceLROnPlateau, GreedyLR)):
            return {}
        return {name: value for name, value in vars(self.lr_scheduler).items() if name in OPTIONS_BY_METRIC}
