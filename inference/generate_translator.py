"""Engines that are driven by Transformers' `generate()`: PyTorch, and ONNX graphs under onnxruntime."""

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import Queue
from threading import Event
from typing import Any

import torch
from transformers import StoppingCriteria, StoppingCriteriaList
from transformers.generation.streamers import BaseStreamer

from ..seq2seq.lengths import longest_source
from .options import check_options
from .texts import Bar, pad, tokenizer_of_stops, translate_ids
from .translator import Translator


class GenerateTranslator(Translator):
    """Runs `model.generate`, with all of its options, masks as rules included where the model takes them.

    Args:
        engine: what computes. weight_files: that hold the weights of a model which has none itself.
    """

    def __init__(self, model: Any, tokenizer: Any, engine: str = "torch", weight_files: tuple[Path, ...] = ()):
        self.model, self.tokenizer, self.engine = model.eval(), tokenizer, engine
        self.weight_files = weight_files
        self.dtype = str(model.dtype).removeprefix("torch.")
        self.max_source_length = longest_source(model)

    def check_options(self, options: Mapping[str, Any]) -> None:
        check_options(self.model, options)

    def translate_ids(
        self, sources: list[list[int]], batch_tokens: int, bar: Bar, options: Mapping[str, Any]
    ) -> list[str]:
        return translate_ids(self.model, self.tokenizer, sources, batch_tokens, bar, **options)

    def stream_ids(self, source: list[int], options: Mapping[str, Any]) -> Iterator[int]:
        tokens: Queue[int | None] = Queue()
        closed = Event()
        inputs = pad([source], self.tokenizer, self.model.device)

        def write() -> None:
            stop = StoppingCriteriaList([_Closed(closed)])
            try:
                stops = tokenizer_of_stops(self.model, self.tokenizer, options)
                self.model.generate(**inputs, **options, **stops, streamer=_TokenQueue(tokens), stopping_criteria=stop)
            finally:
                tokens.put(None)

        with ThreadPoolExecutor(max_workers=1) as pool:
            writing = pool.submit(write)
            try:
                while (token := tokens.get()) is not None:
                    yield token
                writing.result()  # raises what `generate` raised
            finally:
                closed.set()


class _TokenQueue(BaseStreamer):
    """Puts every token into a queue, the start token first."""

    def __init__(self, tokens: "Queue[int | None]"):
        self.tokens = tokens

    def put(self, value: torch.Tensor) -> None:
        self.tokens.put(int(value.flatten()[-1]))

    def end(self) -> None:
        """Nothing: what follows the last token is put by who calls `generate`."""


class _Closed(StoppingCriteria):
    """Stops when the reader has gone."""

    def __init__(self, closed: Event):
        self.closed = closed

    def __call__(self, input_ids: torch.LongTensor, scores: Any, **kwargs: Any) -> torch.BoolTensor:
        done: Any = torch.full((input_ids.shape[0],), self.closed.is_set(), device=input_ids.device)
        return done
