"""A run that goes on from a checkpoint takes the same steps as one without a break."""

from typing import Any

from torch.optim.lr_scheduler import LambdaLR, ReduceLROnPlateau
from transformers import EarlyStoppingCallback, Seq2SeqTrainer
from transformers.optimization import GreedyLR
from transformers.trainer_callback import ExportableState


class ResumingTrainer(Seq2SeqTrainer):
    """`Seq2SeqTrainer` that goes on exactly, with the settings that are asked for now."""

    def _load_callback_state(self) -> None:
        super()._load_callback_state()
        # Trainer cannot save the state of a callback that the checkpoint does not know.
        for callback in self.callback_handler.callbacks:
            if isinstance(callback, ExportableState):
                self.state.stateful_callbacks.setdefault(type(callback).__name__, callback.state())

    def _run_epoch(self, *args, **kwargs) -> None:
        """Train for an epoch, unless a resumed run had come to its end: Trainer would take a step more."""
        callbacks = self.callback_handler.callbacks
        early = [callback for callback in callbacks if isinstance(callback, EarlyStoppingCallback)]
        stopped = any(
            callback.early_stopping_patience_counter >= callback.early_stopping_patience for callback in early
        )
        if stopped or self.state.global_step >= self.state.max_steps:
            self.control.should_training_stop = True
        else:
            super()._run_epoch(*args, **kwargs)

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        groups = getattr(optimizer or self.optimizer, "param_groups", ())
        for group in groups:
            group.setdefault("initial_lr", group["lr"])  # which only some schedulers keep
        return super().create_scheduler(num_training_steps, optimizer)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        """Go on with the optimizer's settings that are asked for now: the checkpoint has its own."""
        groups = getattr(self.optimizer, "param_groups", ())
        _, asked = self.get_optimizer_cls_and_kwargs(self.args, self.model)
        names = {"weight_decay", *asked} - {"lr"}
        settings = [{name: group[name] for name in names & group.keys()} for group in groups]
        rates = [group.get("initial_lr", group["lr"]) for group in groups]
        super()._load_optimizer_and_scheduler(checkpoint)
        groups = getattr(self.optimizer, "param_groups", ())
        if checkpoint is None:
            return
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
