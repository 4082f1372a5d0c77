"""The model that is served: texts to texts on any engine. `question_answering.py` has those that answer questions."""

import copy
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tqdm.auto import tqdm

from ..inference.texts import encode, tokenizers_of
from ..inference.translator import Translator
from ..utils.text import is_blank
from .errors import too_large
from .scheduler import Encoded
from .settings import LanguagePair


class ServedModel(ABC):
    """A model as the server uses it.

    `encode` is called in one thread and `run` and `stream` in another, each by one caller at a time.

    Attributes:
        name: where it was loaded from. task: such as `translation`. engine, dtype: what it runs on, and in.
        pairs: the directions that it translates in.
    """

    name: str
    task: str
    engine: str
    dtype: str
    pairs: tuple[LanguagePair, ...] = ()

    @abstractmethod
    def encode(self, inputs: Sequence[Any]) -> list[Encoded]:
        """Inputs, checked as texts, as `run` takes them. Raises ApiError 413 for one that is too long."""

    @abstractmethod
    def run(self, payloads: list[Any], batch_tokens: int) -> list[Any]:
        """The results for what `encode` gave."""

    def close(self) -> None:  # noqa: B027  # a model need not hold anything
        """Give back what it holds."""


class TextModel(ServedModel):
    """A text for each text.

    Args:
        options: of generation, for all requests; those of the engine.
        prefix: put before each text; not that of a language pair.

    Raises:
        InputError: an option that the engine does not have.
    """

    def __init__(
        self,
        translator: Translator,
        name: str,
        task: str,
        pairs: Sequence[LanguagePair] = (),
        options: Mapping[str, Any] | None = None,
        prefix: str = "",
    ):
        self.translator, self.name, self.task, self.pairs = translator, name, task, tuple(pairs)
        self.engine, self.dtype = translator.engine, translator.dtype
        self.options, self.prefix = dict(options or {}), prefix
        translator.check_options(self.options)
        # Of its own, since a tokenizer cannot be used by two threads at a time.
        self.tokenizer = copy.deepcopy(tokenizers_of(translator.tokenizer)[0])

    def encode(
        self, inputs: Sequence[str], prefix: str = "", *, kind: str = "text", fix: str = "split it"
    ) -> list[Encoded]:
        """`prefix` is that of a language pair; it and the model's are not counted in errors, which name `kind`."""
        prefix = self.prefix + prefix
        sources, limit = encode(self.tokenizer, inputs, prefix), self.translator.max_source_length
        for index, (ids, text) in enumerate(zip(sources, inputs, strict=True)):
            check_tokens(ids, limit, f"{kind} {index + 1}", text, self.tokenizer, fix)
        return [Encoded(ids, max(1, len(ids))) for ids in sources]

    def run(self, payloads: list[list[int]], batch_tokens: int) -> list[str]:
        with tqdm(disable=True) as bar:
            return self.translator.translate_ids(payloads, batch_tokens, bar, self.options)

    def stream(self, text: str, prefix: str = "") -> Iterator[str]:
        """The greedy output for a text, a piece at a time; `prefix` as for `encode`."""
        source = "" if is_blank(text) else self.prefix + prefix + text
        return self.translator.stream(source, **{k: v for k, v in self.options.items() if k != "num_beams"})

    def close(self) -> None:
        self.translator.close()


def check_tokens(
    ids: Sequence[int], limit: int | None, name: str, text: str, tokenizer: Any, fix: str = "split it"
) -> None:
    """Refuse a source with more tokens than the model takes.

    Args:
        ids: of the source. text: it without the server's own prefix, which the error does not count.

    Raises:
        ApiError: 413.
    """
    if limit is None or len(ids) <= limit:
        return
    alone = len(encode(tokenizer, [text])[0])
    limit -= len(ids) - alone
    raise too_large(f"{name} must have at most {limit} tokens, which is what the model takes, got {alone}; {fix}")
