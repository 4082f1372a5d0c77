"""One interface for all engines: texts in, texts out."""

import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from tqdm.auto import tqdm
from transformers import GenerationConfig

from ..utils.errors import InputError, InputTypeError
from ..utils.text import is_blank
from ..utils.type_checks import did_you_mean
from .digests import digest, digest_of_files, digest_of_weights
from .texts import Bar, token_ids, tokenizers_of


class Translator(ABC):
    """A trained model on an engine. `crossmask.serving.load_translator` makes one from a folder.

    ```python
    >>> with load_translator("multi30k-int8") as translator:
    ...     translator.translate(["A dog barks.", "Two men are at work."], num_beams=5)
    ['Ein Hund bellt.', 'Zwei Männer arbeiten.']
    ```

    Attributes:
        engine: its name. dtype: what it computes in.
        model: has `generate()`, as models of Transformers, so that a pipeline takes it.
        tokenizer: of the model, or a bridge's processor.
        weight_files: that hold the weights, where `model` has none.
        max_source_length: the most tokens of a source, None for any number.
    """

    engine: str
    dtype: str
    model: Any
    tokenizer: Any
    weight_files: tuple[Path, ...] = ()
    max_source_length: int | None

    def translate(
        self,
        texts: Iterable[str],
        num_beams: int | None = None,
        *,
        batch_tokens: int = 4096,
        progress: bool = False,
        **options: Any,
    ) -> list[str]:
        """The model's output for each text, in the order of the texts; that for a blank text is empty.

        The texts are sorted by length and translated in batches, the longest first.

        Args:
            num_beams: of beam search, 1 for greedy; the model's own setting by default.
            batch_tokens: source tokens in a batch at most, padding included.
            progress: whether to show a bar.
            options: further options of generation, such as `max_new_tokens`; which there are depends on the engine.

        Raises:
            InputError: a text that is too long, not valid Unicode, or with NUL, or an option that the engine does not
                have.
        """
        chosen = {**options, **({} if num_beams is None else {"num_beams": num_beams})}
        self.check_options(chosen)
        if batch_tokens < 1:
            raise InputError(f"batch_tokens must be at least 1, got {batch_tokens}")
        sources = token_ids(self.tokenizer, texts, self.max_source_length)
        with tqdm(total=len(sources), unit="text", disable=not progress) as bar:
            return self.translate_ids(sources, batch_tokens, bar, chosen)

    def stream(self, text: str, **options: Any) -> Iterator[str]:
        """The output for one text, a piece at a time, by greedy decoding: joined, it is that of `translate`.

        A consumer that stops early stops the engine too: call `close()` on what this returns, or let it go.

        Args:
            options: as in `translate`.

        Raises:
            InputError: as in `translate`, before the first piece is asked for.
        """
        if options.get("num_beams", 1) != 1:
            raise InputError(f"num_beams must be 1 in a stream, got {options['num_beams']}; call translate")
        if not isinstance(text, str):
            raise InputTypeError(f"text must be one text, got {type(text).__name__}; open a stream for each")
        chosen = {**options, "num_beams": 1}
        self.check_options(chosen)
        source = token_ids(self.tokenizer, [text], self.max_source_length)[0]
        return iter(()) if is_blank(text) else self._pieces(source, chosen)

    def _pieces(self, source: list[int], options: Mapping[str, Any]) -> Iterator[str]:
        tokenizer = tokenizers_of(self.tokenizer)[1]
        written: list[int] = []
        given, text = "", ""
        for token in self.stream_ids(source, options):
            written.append(token)
            text = str(tokenizer.decode(written, skip_special_tokens=True))
            # A character of several tokens is given when it is complete.
            if len(text) > len(given) and text.startswith(given) and not text.endswith("\ufffd"):
                yield text[len(given) :]
                given = text
        if len(text) > len(given):
            yield text[len(given) :]

    @abstractmethod
    def check_options(self, options: Mapping[str, Any]) -> None:
        """Refuse options that the engine does not have, or with which no text can be written. Raises InputError."""

    @abstractmethod
    def translate_ids(
        self, sources: list[list[int]], batch_tokens: int, bar: Bar, options: Mapping[str, Any]
    ) -> list[str]:
        """The output for each source of token ids; for one without ids it is empty. Advances `bar` by texts."""

    @abstractmethod
    def stream_ids(self, source: list[int], options: Mapping[str, Any]) -> Iterator[int]:
        """The token ids of the output for a source, one by one from the start token on, by greedy decoding."""

    def digests(self) -> dict[str, str]:
        """Digests of the config, the tokenizer and the weights: the same path may have another model later."""
        configs = [json.loads(c.to_json_string()) for c in (self.model.config, self.model.generation_config)]
        for config in configs:
            config.pop("transformers_version", None)
        source, target = tokenizers_of(self.tokenizer)
        sides: list[Any] = [source] if source is target else [source, target]
        tokenizers = [side.backend_tokenizer.to_str() if side.is_fast else side.get_vocab() for side in sides]
        return {
            "config": digest(configs),
            "tokenizer": digest(tokenizers[0] if len(tokenizers) == 1 else tokenizers),
            "weights": digest_of_files(self.weight_files) if self.weight_files else digest_of_weights(self.model),
        }

    def close(self) -> None:  # noqa: B027  # an engine need not hold anything
        """Give back what the engine holds. The translator cannot be used afterwards."""

    def __enter__(self) -> "Translator":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def check_known(options: Mapping[str, Any], known: Iterable[str], engine: str) -> None:
    """Refuse an option that an engine does not have.

    Raises:
        InputError: with the options that there are, and the nearest one.
    """
    known = list(known)
    for name in options:
        if name not in known:
            near = None if hasattr(GenerationConfig(), name) else did_you_mean(name, known)
            raise InputError(
                f"options of {engine} must be among {', '.join(known)}, got {name!r}; "
                f"{near or 'leave it out, or use another engine'}"
            )
