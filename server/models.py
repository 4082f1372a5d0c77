"""The model that is served: texts to texts on any engine, or questions to spans of a context on PyTorch."""

import copy
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import metadata_load
from huggingface_hub.constants import REPOCARD_NAME
from tqdm.auto import tqdm
from transformers import AutoConfig, AutoModelForQuestionAnswering, AutoModelForSeq2SeqLM, AutoTokenizer

from ..inference.answers import answer_batch
from ..inference.generate_translator import GenerateTranslator
from ..inference.loading import choose_dtype, load_config, load_model, load_tokenizer
from ..inference.texts import encode, tokenizers_of
from ..inference.translator import Translator
from ..pipelines.generated_answers import SEPARATOR, TEMPLATE
from ..pipelines.registration import attach_saved_masks
from ..pipelines.saved_options import saved_options
from ..question_answering.windows import encode_windows, longest_question
from ..seq2seq.sentences import split_answer
from ..serving.loading import load_translator
from ..serving.manifest import read_manifest
from ..utils.errors import InputError
from ..utils.hardware import device_named
from ..utils.text import check_text, is_blank
from ..utils.type_checks import check_choice
from .errors import as_bad_request, too_large
from .scheduler import Encoded
from .settings import LanguagePair, check_pairs

TASKS = ("translation", "summarization", "question-answering")


class ServedModel(ABC):
    """A model as the server uses it.

    `encode` is called in one thread and `run` and `stream` in another, each by one caller at a time.

    Attributes:
        name: where it was loaded from. task: one of `TASKS`. engine, dtype: what it runs on, and in.
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
        source_template: what is read for a question, with `{question}` and `{context}`.
        no_answer: what is written for a question that the context does not answer.

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
        source_template: str | None = None,
        no_answer: str | None = None,
    ):
        self.translator, self.name, self.task, self.pairs = translator, name, task, tuple(pairs)
        self.engine, self.dtype = translator.engine, translator.dtype
        self.options, self.prefix, self.source_template = dict(options or {}), prefix, source_template
        self.no_answer = no_answer
        translator.check_options(self.options)
        # Of its own, since a tokenizer cannot be used by two threads at a time.
        self.tokenizer = copy.deepcopy(tokenizers_of(translator.tokenizer)[0])

    def encode(self, inputs: Sequence[str], prefix: str = "") -> list[Encoded]:
        """`prefix` is that of a language pair; it and the model's are not counted in errors."""
        prefix = self.prefix + prefix
        sources, limit = encode(self.tokenizer, inputs, prefix), self.translator.max_source_length
        for index, (ids, text) in enumerate(zip(sources, inputs, strict=True)):
            check_tokens(ids, limit, f"text {index + 1}", text, self.tokenizer)
        return [Encoded(ids, max(1, len(ids))) for ids in sources]

    def run(self, payloads: list[list[int]], batch_tokens: int) -> list[str]:
        with tqdm(disable=True) as bar:
            return self.translator.translate_ids(payloads, batch_tokens, bar, self.options)

    def stream(self, text: str, prefix: str = "") -> Iterator[str]:
        """The greedy output for a text, a piece at a time; `prefix` as for `encode`."""
        source = "" if is_blank(text) else self.prefix + prefix + text
        return self.translator.stream(source, **{k: v for k, v in self.options.items() if k != "num_beams"})

    def source_of(self, question: str, context: str) -> str:
        """What is read for a question about a context."""
        template = self.source_template or TEMPLATE
        return template.replace("{context}", "\0").replace("{question}", question).replace("\0", context)

    def answer_in(self, text: str) -> str:
        """The answer in what was written, which may have reasons before it; empty where there is none."""
        return split_answer(text, self.no_answer)[1]

    def close(self) -> None:
        self.translator.close()


class ReadingModel(ServedModel):
    """A span of a context for each question."""

    task = "question-answering"
    engine = "torch"

    def __init__(self, model: Any, tokenizer: Any, name: str):
        self.model, self.own_tokenizer, self.name = model.eval(), tokenizer, name
        self.dtype = str(model.dtype).removeprefix("torch.")
        self.tokenizer = copy.deepcopy(tokenizer)

    def encode(self, inputs: Sequence[tuple[str, str]]) -> list[Encoded]:
        questions, contexts = [question for question, _ in inputs], [context for _, context in inputs]
        longest = longest_question(self.tokenizer)
        for index, ids in enumerate(self.tokenizer(questions, add_special_tokens=False, verbose=False)["input_ids"]):
            if len(ids) > longest:
                raise too_large(f"question {index + 1} must have at most {longest} tokens, got {len(ids)}; shorten it")
        with as_bad_request(ValueError):  # a text without tokens
            windows = encode_windows(self.tokenizer, questions, contexts)
        counts = [sum(len(window["input_ids"]) for window in own) for own in windows]
        return [Encoded(pair, count) for pair, count in zip(inputs, counts, strict=True)]

    def run(self, payloads: list[tuple[str, str]], batch_tokens: int) -> list[dict[str, Any]]:
        questions, contexts = zip(*payloads, strict=True)
        found = answer_batch(self.model, self.own_tokenizer, questions, contexts, batch_tokens=batch_tokens)
        return [{"answer": best.text, "score": best.score, "start": best.start, "end": best.end} for best, *_ in found]


def load_served_model(
    name: str | os.PathLike[str],
    engine: str = "auto",
    *,
    task: str = "auto",
    pairs: Sequence[LanguagePair] = (),
    options: Mapping[str, Any] | None = None,
    source_prefix: str | None = None,
    source_template: str | None = None,
    device: str | None = None,
    dtype: str = "auto",
    threads: int | None = None,
    trust_remote_code: bool = False,
) -> ServedModel:
    """A saved or exported model, to be served.

    Args:
        name: a folder, or a name on the Hub.
        engine, device, dtype, threads: as for `load_translator`.
        task: one of `TASKS`; `auto` goes by the architecture and the folder's model card.
        pairs: what a translation model translates; by default from the first to the second language of its card.
        options: of generation, such as `num_beams`.
        source_prefix: put before every text; by default what the config has, where no pair has one of its own.
        source_template: of questions, for a model that writes its answers; by default what the config has.
        trust_remote_code: whether code files beside the model may be run. A model of crossmask needs none.

    Raises:
        OSError: the model does not exist, or cannot be fetched.
        InputError: it cannot be read, or it is not known what it is for.
        MissingLibraryError: the engine is not installed.
    """
    check_choice("task", task, ("auto", *TASKS))
    if source_prefix is not None:
        check_text(source_prefix, "source_prefix")
    check_pairs(pairs)
    name = os.fspath(name)
    card = _card(name)
    is_exported = read_manifest(Path(name)) is not None
    config = None if is_exported else _config(name, trust_remote_code)
    points = config is not None and any("QuestionAnswering" in kind for kind in config.architectures or ())
    if task == "auto":
        task = "question-answering" if points else card.get("pipeline_tag") or ("translation" if pairs else "")
    if task not in TASKS:
        raise InputError(
            f"--task must be given for {name}, whose model card does not say that it is for {', '.join(TASKS)}"
        )
    if points:
        given = {"options": options, "source_prefix": source_prefix, "source_template": source_template}
        for field, value in {**given, "pairs": pairs, "threads": threads}.items():
            if value:
                raise InputError(f"{field} must be left out for a model that points at answers, got {value!r}")
        if task != "question-answering" or engine not in ("auto", "torch"):
            raise InputError(f"{name} must be served for question-answering on torch, got {task} on {engine}")
        place = device_named(device)
        dtype_of = choose_dtype(dtype, place)
        loaded, tokenizer = _load(name, config, dtype_of, AutoModelForQuestionAnswering, trust_remote_code)
        return ReadingModel(loaded.to(place), tokenizer, name)
    if trust_remote_code and not is_exported and engine in ("auto", "torch"):
        place = device_named(device)
        loaded, tokenizer = _load(name, config, choose_dtype(dtype, place), AutoModelForSeq2SeqLM, True)
        translator: Translator = GenerateTranslator(attach_saved_masks(loaded).to(place), tokenizer)
    else:
        translator = load_translator(name, engine, device=device, dtype=dtype, threads=threads)
    if task == "translation":
        pairs = tuple(pairs) or _pair_of(card, name)
    elif pairs:
        raise InputError(f"pairs must be left out for {task}, got {len(pairs)} of languages")
    if source_template is not None and task != "question-answering":
        raise InputError(f"source_template must be left out for {task}, got {source_template!r}")
    saved = saved_options(translator.model.config, task, ("prefix", "source_template", "no_answer", "quote"))
    if saved.get("quote"):
        raise InputError(
            f"{name} must be a model that writes freely, got one that quotes, which no engine of the server does; use "
            "crossmask answer"
        )
    if source_prefix is None:
        source_prefix = "" if any(pair.prefix for pair in pairs) else saved.get("prefix", "")
    if task == "question-answering":
        source_template = source_template or saved.get("source_template")
        _check_template(source_template, translator)
    return TextModel(
        translator, name, task, pairs, options, source_prefix, source_template, no_answer=saved.get("no_answer")
    )


def _check_template(template: str | None, translator: Translator) -> None:
    if template is None and SEPARATOR not in tokenizers_of(translator.tokenizer)[0].get_vocab():
        raise InputError(
            f"source_template must be given for a tokenizer without {SEPARATOR}, such as 'question: {{question}} "
            "context: {context}' for T5"
        )
    if template is not None and not ("{question}" in template and "{context}" in template):
        raise InputError(f"source_template must have {{question}} and {{context}}, got {template!r}")


def _config(name: str, trust_remote_code: bool) -> Any:
    return AutoConfig.from_pretrained(name, trust_remote_code=True) if trust_remote_code else load_config(name)


def _load(name: str, config: Any, dtype: Any, auto_class: Any, trust_remote_code: bool) -> tuple[Any, Any]:
    trust = {"trust_remote_code": True} if trust_remote_code else {}
    tokenizer = AutoTokenizer.from_pretrained(name, **trust) if trust else load_tokenizer(name)
    return load_model(name, config, dtype, auto_class=auto_class, **trust), tokenizer


def _card(name: str) -> dict[str, Any]:
    """What the model card in a folder says of the model, {} without one."""
    path = Path(name) / REPOCARD_NAME
    return (metadata_load(path) or {}) if path.is_file() else {}


def _pair_of(card: Mapping[str, Any], name: str) -> tuple[LanguagePair, ...]:
    languages = card.get("language")
    if not isinstance(languages, list) or len(languages) != 2:
        raise InputError(
            f"--languages must be given for {name}, whose model card does not name two languages; write for example "
            '--languages en:de, or --languages "en:de=<2de> " for a model that reads the target as a prefix'
        )
    return (LanguagePair(str(languages[0]), str(languages[1])),)


def check_tokens(ids: Sequence[int], limit: int | None, name: str, text: str, tokenizer: Any) -> None:
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
    raise too_large(f"{name} must have at most {limit} tokens, which is what the model takes, got {alone}; split it")
