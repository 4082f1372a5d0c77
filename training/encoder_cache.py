"""`cache_encoder`: the states of a frozen encoder are computed once, kept on disk, and read in every epoch."""

import hashlib
import json
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from datasets import config as datasets_config
from filelock import FileLock
from safetensors import SafetensorError
from tqdm.auto import tqdm
from transformers import PreTrainedModel, Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ..data.encoder_states import EncoderStates, key_of, unfinished, write_states
from ..data.length_buckets import bucket_batches
from ..tasks.base import Collator
from ..tasks.seq2seq_models import encode, is_bridge
from ..utils.disk import naming_full_disks
from ..utils.errors import InputError
from .requirements import spread_by
from .run_arguments import RunArguments

FOLDER = "crossmask-encoder-states"
_FIX = "leave cache_encoder out"
_MORE_SPACE = f"free space there, set HF_DATASETS_CACHE to another folder, or {_FIX}"


def check_encoder_cache(model: Any, arguments: RunArguments) -> None:
    """Refuse an encoder whose states are not the same at every step, or which no process has as a whole.

    Args:
        model: with its parts frozen.

    Raises:
        InputError: with the reason and what to do.
    """
    kind = model.config.model_type
    if not is_bridge(model.config):
        raise InputError(
            f"cache_encoder must be for a bridge, got a {kind} model; set decoder_name_or_path, or {_FIX}"
        )
    trained = [name for name, parameter in model.encoder.named_parameters() if parameter.requires_grad]
    if trained:
        raise InputError(
            f"cache_encoder must be for a frozen encoder, got one with encoder.{trained[0]} trained; add encoder to "
            f"freeze, or {_FIX}"
        )
    if model.encoder_masks.rules(training=True) != model.encoder_masks.rules(training=False):
        raise InputError(
            "cache_encoder must be for an encoder_mask that is the same in training and evaluation, got "
            f"{model.config.encoder_mask}; set another, or {_FIX}"
        )
    if (name := spread_by(arguments)) is not None:
        raise InputError(f"cache_encoder must be left out under {name}, where no process has the whole encoder")


def fingerprint(model: Any, autocast: torch.dtype | None, keys: Iterable[bytes]) -> str:
    """A digest of all that the states follow from: weights, config, mask, attention, dtypes, sources and version.

    Args:
        autocast: the dtype of matrix products where it is not that of the weights.
        keys: of the sources, in order.
    """
    facts = {
        "encoder": type(model.encoder).__name__,
        "config": {name: value for name, value in model.encoder.config.to_dict().items() if name != "_name_or_path"},
        "encoder_mask": model.config.to_dict()["encoder_mask"],
        "attention": model.encoder.config._attn_implementation,
        "autocast": str(autocast),
        "transformers": transformers.__version__,
    }
    digest = hashlib.blake2b(json.dumps(facts, sort_keys=True, default=str).encode(), digest_size=16)
    for name, tensor in sorted(model.encoder.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    digest.update(b"".join(keys))
    return digest.hexdigest()


class EncoderCache(TrainerCallback):
    """Encodes the sources of a run when it begins, unless an earlier run did, and gives its collators the states.

    The weights are those of the checkpoint that a run goes on from. Of several processes the first encodes.

    Args:
        sources: token ids of every source; one that occurs several times is encoded once.
        collate: pads features without labels to a batch.
        max_tokens: tokens of a batch that is encoded, padding included.
        folder: of all such states; inside that of `datasets` by default.

    Attributes:
        states: is empty before training begins.
    """

    def __init__(
        self, sources: Iterable[Sequence[int]], collate: Collator, max_tokens: int, folder: Path | None = None
    ) -> None:
        arrays = (np.asarray(ids, np.int32) for ids in sources)
        # Sorted, so that the same sources in another order have the same states.
        self.sources: Mapping[bytes, np.ndarray] = dict(sorted({key_of(ids): ids for ids in arrays}.items()))
        self.collate, self.max_tokens = collate, max_tokens
        self.folder = Path(datasets_config.HF_DATASETS_CACHE) / FOLDER if folder is None else folder
        self.states = EncoderStates(self.folder)
        self.trainer: Trainer | None = None  # set once there is one

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        assert self.trainer is not None
        model = self.trainer.accelerator.unwrap_model(self.trainer.model)
        device = model.device.type
        was_training = model.training
        model.eval()
        try:
            with self.trainer.accelerator.autocast(), torch.no_grad():
                enabled = torch.is_autocast_enabled(device)
                self.fill(model, torch.get_autocast_dtype(device) if enabled else None, quiet=bool(args.disable_tqdm))
        finally:
            model.train(was_training)
        if state.is_world_process_zero:
            print(f"encoder states: {self.description()}")

    def fill(self, model: PreTrainedModel, autocast: torch.dtype | None = None, quiet: bool = True) -> None:
        """Open the states, after computing them if they are not there.

        Args:
            model: a bridge in evaluation mode, under the autocast that it is trained under.

        Raises:
            OSError: there is too little space for them.
        """
        place = self.folder / fingerprint(model, autocast, self.sources)
        self.states.folder = place
        self.folder.mkdir(parents=True, exist_ok=True)
        with FileLock(self.folder / f".{place.name}.lock"):
            for path in self.folder.glob(f"{unfinished(place)}*"):
                shutil.rmtree(path)  # of a run that was killed: whoever has the lock is alone
            if place.exists():
                try:
                    self.states.open()
                    return
                except SafetensorError:  # damaged
                    shutil.rmtree(place)
            self.check_space(model, autocast)
            with naming_full_disks(
                self.folder, f"free space there, set HF_DATASETS_CACHE to another folder, or {_FIX}"
            ):
                write_states(place, tqdm(self.encode(model, autocast), total=len(self.sources), disable=quiet))
            self.states.open()

    def encode(self, model: PreTrainedModel, dtype: torch.dtype | None) -> Iterator[tuple[bytes, torch.Tensor]]:
        """The states of every source with its key, in `dtype` where that is given.

        Interactive attention casts the states to autocast's dtype before it reads them, so nothing is lost in it.
        """
        keys = list(self.sources)
        for batch in bucket_batches([len(ids) for ids in self.sources.values()], None, self.max_tokens):
            inputs = self.collate([{"input_ids": self.sources[keys[index]].tolist()} for index in batch])
            ids, mask = inputs["input_ids"].to(model.device), inputs["attention_mask"].to(model.device)
            states = encode(model, ids, mask)[0].to("cpu", dtype)
            for index, row, is_token in zip(batch, states, inputs["attention_mask"].bool(), strict=True):
                yield keys[index], row[is_token]

    def size(self, model: Any, autocast: torch.dtype | None) -> int:
        """Bytes of all states."""
        width = model.encoder.config.get_text_config(encoder=True).hidden_size
        tokens = sum(len(ids) for ids in self.sources.values())
        return int(tokens * width * (autocast or model.encoder.dtype).itemsize)

    def check_space(self, model: Any, autocast: torch.dtype | None) -> None:
        """Refuse to begin what the disk cannot hold. Raises OSError."""
        needed, free = self.size(model, autocast), shutil.disk_usage(self.folder).free
        if needed > free:
            raise OSError(
                f"cache_encoder needs {needed / 1e9:,.1f} GB in {self.folder}, which has {free / 1e9:,.1f} GB free; "
                f"{_MORE_SPACE}"
            )

    def description(self) -> str:
        """How many and how large they are, and where."""
        return f"{len(self.states):,} sources, {self.states.nbytes / 1e6:,.1f} MB in {self.states.folder}"
