"""A folder that was exported to CTranslate2, run by it."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..inference.loading import load_tokenizer
from ..inference.options import check_value
from ..inference.texts import Bar, batches_of
from ..inference.translator import Translator, check_known
from ..utils.errors import InputError
from .ctranslate2_model import CTranslate2Model
from .ctranslate2_spec import vocabulary
from .generation import read_generation, start_token
from .libraries import require
from .manifest import Manifest

OPTIONS = ("num_beams", "max_new_tokens", "length_penalty", "early_stopping")
_PURPOSE = "run a folder exported to CTranslate2"
_ALMOST_0 = 1e-12


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
        self.model = CTranslate2Model(config, self.generation, self._generate, OPTIONS)
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
        chosen = self._chosen(options)
        if chosen["early_stopping"] == "never" and chosen["length_penalty"]:
            raise InputError('early_stopping must be true or false, got "never", which CTranslate2 does not have')
        if chosen["max_new_tokens"] > self.max_target_length:
            raise InputError(
                f"max_new_tokens must be at most {self.max_target_length}, the model's max_position_embeddings, got "
                f"{chosen['max_new_tokens']}; lower it"
            )
        if chosen["num_beams"] > self.vocab_size:
            raise InputError(
                f"num_beams must be at most the vocabulary's {self.vocab_size}, got {chosen['num_beams']}"
            )

    def _chosen(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """Each of `OPTIONS`: as given, or else the model's own."""
        return {name: options.get(name, getattr(self.generation, name)) for name in OPTIONS}

    def _decoding(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """Arguments of CTranslate2 with which it decodes as `generate()` does."""
        chosen = self._chosen(options)
        stops_early = chosen["early_stopping"] is True
        penalty = chosen["length_penalty"]
        return {
            "beam_size": chosen["num_beams"],
            "patience": 1 if stops_early else 2,
            # At exactly 0 CTranslate2 stops with the first beam, however many hypotheses are finished.
            "length_penalty": _ALMOST_0 if stops_early and penalty == 0 else penalty,
            # The end counts to a hypothesis' length.
            "return_end_token": True,
            "max_decoding_length": chosen["max_new_tokens"],
            "min_decoding_length": 0,  # 1 by default
            "max_input_length": 0,  # by default longer sources are cut off
        }

    def translate_ids(
        self, sources: list[list[int]], batch_tokens: int, bar: Bar, options: Mapping[str, Any]
    ) -> list[str]:
        outputs = [""] * len(sources)
        batches = batches_of(sources, batch_tokens)
        bar.update(len(sources) - sum(map(len, batches)))
        # All are handed over at once, so that every worker has something to do.
        pending = [self._submit([sources[index] for index in batch], options) for batch in batches]
        for batch, results in zip(batches, pending, strict=True):
            texts = self.tokenizer.batch_decode(self._ids(results), skip_special_tokens=True)
            for index, text in zip(batch, texts, strict=True):
                outputs[index] = text
            bar.update(len(batch))
        return outputs

    def _generate(self, sources: list[list[int]], options: Mapping[str, Any]) -> list[list[int]]:
        """The tokens for each source of one batch, from the start token to the end token."""
        self.check_options(options)
        if (longest := max(map(len, sources), default=0)) > self.max_source_length:
            raise InputError(f"sources must have at most {self.max_source_length} tokens, got {longest}; split them")
        return self._ids(self._submit(sources, options))

    def _submit(self, sources: list[list[int]], options: Mapping[str, Any]) -> list[Any]:
        names = [[self.names[token] for token in source] for source in sources]
        pending: list[Any] = self.translator.translate_batch(names, asynchronous=True, **self._decoding(options))
        return pending

    def _ids(self, results: list[Any]) -> list[list[int]]:
        hypotheses = (result.result().hypotheses[0] for result in results)
        return [[self.start, *(self.ids[name] for name in hypothesis)] for hypothesis in hypotheses]

    def stream_ids(self, source: list[int], options: Mapping[str, Any]) -> Iterator[int]:
        decoding = self._decoding(options)
        yield self.start
        steps = self.translator.generate_tokens(
            [self.names[token] for token in source],
            **{name: decoding[name] for name in ("max_decoding_length", "min_decoding_length", "max_input_length")},
        )
        for step in steps:
            yield step.token_id

    def close(self) -> None:
        self.translator.unload_model()
