"""Which model is served: what a folder or a name on the Hub holds, and what it is for."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import metadata_load
from huggingface_hub.constants import REPOCARD_NAME
from transformers import AutoConfig, AutoModelForQuestionAnswering, AutoModelForSeq2SeqLM, AutoTokenizer

from ..inference.generate_translator import GenerateTranslator
from ..inference.loading import choose_dtype, load_config, load_model, load_tokenizer
from ..inference.translator import Translator
from ..pipelines.registration import attach_saved_masks
from ..pipelines.saved_options import saved_options
from ..serving.loading import load_translator
from ..serving.manifest import read_manifest
from ..utils.errors import InputError
from ..utils.hardware import device_named
from ..utils.text import check_text
from ..utils.type_checks import check_choice
from .models import ServedModel, TextModel
from .question_answering import ReadingModel, WritingModel
from .settings import LanguagePair, check_pairs

TASKS = ("translation", "summarization", "question-answering")


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
        PipelineInputError: what its config has for the task, or `source_template`, cannot be used.
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
    if source_prefix is None:
        source_prefix = "" if any(pair.prefix for pair in pairs) else saved.get("prefix", "")
    texts = TextModel(translator, name, task, pairs, options, source_prefix)
    if task != "question-answering":
        return texts
    template = saved.get("source_template") if source_template is None else source_template
    return WritingModel(texts, template, saved.get("no_answer"), saved.get("quote"))


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
