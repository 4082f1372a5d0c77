"""A folder that was exported to CTranslate2, run by it."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from transformers import GenerationConfig

from ..inference.loading import load_tokenizer
from ..inference.options import check_value
from ..inference.texts import Bar, batches_of
from ..inference.translator import Translator, check_known
from ..utils.errors import InputError
from .ctranslate2_model import OPTIONS, CTranslate2Model
from .ctranslate2_spec import vocabulary
from .generation import end_tokens, read_generation, start_token
from .libraries import require
from .manifest import Manifest

_PURPOSE = "run a folder exported to CTranslate2"
_ALMOST_0 = 1e-12
_OF_STREAMS = ("end_token", "max_decoding_length", "min_decoding_length", "max_input_length")


class CTranslate2Translator(Translator):
    """`ctranslate2.Translator` under the interface of all engines.

    Greedy decoding and beam search with `early_stopping=True` write what `generate()` writes. CTranslate2 stops when
    enough hypotheses are finished. `generate()` by default goes on while it hopes for a better one, so that without
    `early_stopping` twice `num_beams` are collected, which writes the same in almost all cases (docs/serving.md).

    Args:
        folder: that was exported. manifest: what it says of itself.
        device: `cpu`, `cuda` or `auto`.
        compute_type: one of CTranslate2's; by default that of the weights, or the nearest one that the machine has.
        threads: of one batch, the machine's cores by default. workers: batches that are translated at a time.

    Raises:
        InputError: a folder that cannot be loaded. MissingLibraryError: CTranslate2 is not installed.
    """

    engine = "ctranslate2"
    max_source_length: int

    def __init__(
        self,
        folder: Path,
        manifest: Manifest,
        *,
        device: str = "cpu",
        compute_type: str = "default",
        threads: int = 0,
        workers: int = 1,
    ):
        library = require("ctranslate2", "ctranslate2", _PURPOSE)
        known = ("default", "auto", *sorted(library.get_supported_compute_types(device)))
        if compute_type not in known:
            raise InputError(
                f"dtype must be one of {', '.join(known[1:])} on this machine, got {compute_type}; give one"
            )
        try:
            self.translator = library.Translator(
                str(folder),
                device=device,
                compute_type=compute_type,
                intra_threads=threads,
                inter_threads=workers,
                max_queued_batches=-1,
            )
        except (RuntimeError, ValueError, IndexError) as error:
            raise InputError(
                f"{folder} must be a complete export to CTranslate2, for this machine's {device}: {error}; export it "
                "again, or leave device and dtype out"
            ) from error
        self.dtype = self.translator.compute_type
        self.generation = read_generation(folder)
        self.tokenizer = load_tokenizer(str(folder))
        self.weight_files = tuple(folder / name for name in ("model.bin", "shared_vocabulary.json"))
        config = manifest.model_config
        self.model = CTranslate2Model(config, self.generation, self._generate)
        self.max_source_length = self.max_target_length = config.max_position_embeddings
        self.vocab_size = config.vocab_size
        self.names = vocabulary(self.tokenizer, self.vocab_size)
        self.ids = {name: number for number, name in enumerate(self.names)}
        self.start: int = start_token(self.generation)

    def check_options(self, options: Mapping[str, Any]) -> None:
        if options.get("do_sample"):
            raise InputError("do_sample must be false on CTranslate2, where nothing is sampled; use another engine")
        options = {name: value for name, value in options.items() if name != "do_sample"}
        check_known(options, OPTIONS, "CTranslate2")
        for name, value in options.items():
            check_value(name, value)
        self._settings(options)

    def _settings(self, options: Mapping[str, Any]) -> GenerationConfig:
        return self.model.settings(**options)[0]

    def _decoding(self, settings: GenerationConfig) -> dict[str, Any]:
        """Arguments of CTranslate2 with which it decodes as `generate()` does."""
        stops_early = settings.early_stopping is True
        penalty = settings.length_penalty
        return {
            "beam_size": settings.num_beams,
            "patience": 1 if stops_early else 2,
            # At exactly 0 CTranslate2 stops with the first beam, however many hypotheses are finished.
            "length_penalty": _ALMOST_0 if stops_early and penalty == 0 else penalty,
            "end_token": end_tokens(settings),
            # The end counts to a hypothesis' length.
            "return_end_token": True,
            "max_decoding_length": settings.max_new_tokens,
            "min_decoding_length": 0,  # 1 by default
            "max_input_length": 0,  # by default longer sources are cut off
        }

    def translate_ids(
        self, sources: list[list[int]], batch_tokens: int, bar: Bar, options: Mapping[str, Any]
    ) -> list[str]:
        outputs = [""] * len(sources)
        batches = batches_of(sources, batch_tokens)
        bar.update(len(sources) - sum(map(len, batches)))
        decoding = self._decoding(self._settings(options))
        # All are handed over at once, so that every worker has something to do.
        pending = [self._submit([sources[index] for index in batch], decoding) for batch in batches]
        for batch, results in zip(batches, pending, strict=True):
            texts = self.tokenizer.batch_decode(self._ids(results), skip_special_tokens=True)
            for index, text in zip(batch, texts, strict=True):
                outputs[index] = text
            bar.update(len(batch))
        return outputs

    def _generate(self, sources: list[list[int]], settings: GenerationConfig) -> list[list[int]]:
        """The tokens for each source of one batch, from the start token to the end token."""
        return self._ids(self._submit(sources, self._decoding(settings)))

    def _submit(self, sources: list[list[int]], decoding: Mapping[str, Any]) -> list[Any]:
        names = [[self.names[token] for token in source] for source in sources]
        pending: list[Any] = self.translator.translate_batch(names, asynchronous=True, **decoding)
        return pending

    def _ids(self, results: list[Any]) -> list[list[int]]:
        hypotheses = (result.result().hypotheses[0] for result in results)
        return [[self.start, *(self.ids[name] for name in hypothesis)] for hypothesis in hypotheses]

    def stream_ids(self, source: list[int], options: Mapping[str, Any]) -> Iterator[int]:
        decoding = self._decoding(self._settings(options))
        yield self.start
        steps = self.translator.generate_tokens(
            [self.names[token] for token in source],
            **{name: decoding[name] for name in _OF_STREAMS},
        )
        for step in steps:
            yield step.token_id

    def close(self) -> None:
        self.translator.unload_model()
