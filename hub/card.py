"""The model card of a run: facts in, `README.md` out, through the template in `model_cards/`."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from ..utils.atomic_write import write_text
from ..utils.errors import InputError

TEMPLATE = Path(__file__).resolve().parent.parent / "model_cards" / "template.md"
SHOWN_SAMPLES = 8


@dataclass(frozen=True, kw_only=True)
class Result:
    """A measured number. `metric` is its id (`"sacrebleu"`), `name` its label, `signature` how it was computed."""

    dataset: str
    split: str
    metric: str
    name: str
    value: float
    signature: str = ""


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One example of the held-out data with the model's output."""

    source: str
    reference: str
    output: str


@dataclass(frozen=True, kw_only=True)
class CardFacts:
    """The contents of a card.

    Attributes:
        name: of the model.
        location: what `from_pretrained` is given: the repository's id, or the folder.
        summary: what the model does, in a sentence or two.
        task: as the Hub names it (`"translation"`); the pipeline tag too, unless `pipeline_tag` says otherwise.
        example: a source text for the snippet that shows the use; example_output: what the model answers to it.
        usage: the Python by which a loaded `model` and `tokenizer` answer it; by default they generate, at most
            `max_new_tokens`.
        languages: ISO 639-1 codes; datasets: ids of datasets on the Hub, none if the data is not there.
        training_data: what the model learnt from, in prose.
        masks: the config's, by scope (`{"encoder": "full()", ...}`): a text, or a mapping from layers to texts. Empty
            for a model of Transformers' own.
        attached: whether the masks are those of `crossmask.attach` on a model of Transformers.
        auto_class: what loads the model. tokenizer_class: what loads its tokenizer or processor. model_type: of its
            config.
        architecture: names and sizes worth a line, in order; parameters: their number.
        recipe: its name; recipe_text: its YAML; command: what was run.
        seconds: of training; hardware: on what; versions: of the libraries.
        results, samples: measured, and shown.
        groups: rows of a table of scores by `groups_by`, a column of the data, the first row its head.
        images: captions of pictures in the folder, by file name relative to it.

    Raises:
        ValueError: a result that is not a finite number.
    """

    name: str
    location: str
    summary: str
    task: str
    example: str
    training_data: str
    masks: Mapping[str, str | Mapping[str, str]]
    architecture: Mapping[str, object]
    parameters: int
    recipe: str
    recipe_text: str
    command: str
    seed: int
    seconds: float
    hardware: str
    versions: Mapping[str, str]
    results: Sequence[Result]
    samples: Sequence[Sample] = ()
    images: Mapping[str, str] | None = None
    languages: Sequence[str] = ()
    datasets: Sequence[str] = ()
    tags: Sequence[str] = ()
    license: str | None = None
    example_output: str | None = None
    max_new_tokens: int = 64
    usage: str | None = None
    pipeline_tag: str | None = None
    auto_class: str = "AutoModelForSeq2SeqLM"
    tokenizer_class: str = "AutoTokenizer"
    model_type: str = "crossmask"
    attached: bool = False
    groups: Sequence[tuple[str, ...]] = ()
    groups_by: str = ""

    def __post_init__(self) -> None:
        for result in self.results:
            if not math.isfinite(result.value):
                raise InputError(
                    f"{result.name} on {result.dataset} ({result.split}) must be a finite number, got {result.value}; "
                    "leave it out"
                )


def write_card(folder: str | PathLike[str], facts: CardFacts) -> Path:
    """Write the card as `README.md` into `folder`, and return its path.

    Raises:
        FileNotFoundError: a picture of the facts is not in the folder.
        OSError: the folder cannot be written.
    """
    folder = Path(folder)
    for image in facts.images or {}:
        if not (folder / image).is_file():
            raise FileNotFoundError(
                f"{folder / image} must exist, since the card shows it; draw it first or leave it out"
            )
    path = folder / "README.md"
    write_text(path, str(render_card(facts)))
    return path


def render_card(facts: CardFacts) -> ModelCard:
    """The card as a `huggingface_hub.ModelCard`, its metadata in `.data`."""
    samples = [Sample(**{k: _cell(v) for k, v in vars(sample).items()}) for sample in facts.samples[:SHOWN_SAMPLES]]
    return ModelCard.from_template(
        _metadata(facts),
        template_path=str(TEMPLATE),
        facts=facts,
        kind="`crossmask` encoder-decoder" if facts.model_type == "crossmask" else f"`{facts.model_type}` model",
        usage=facts.usage or _generating(facts),
        example_output=None if facts.example_output is None else _cell(facts.example_output),
        location=python_literal(facts.location),
        masks={scope: _mask(text) for scope, text in facts.masks.items()},
        trust=", trust_remote_code=True" if facts.masks and not facts.attached else "",
        metrics=[_row(result) for result in facts.results],
        samples=samples,
        groups=[[_cell(text) for text in row] for row in facts.groups],
        images={name: _cell(caption) for name, caption in (facts.images or {}).items()},
        time=_time(facts.seconds),
        parameters=f"{facts.parameters:,}",
        recipe_text=facts.recipe_text.strip(),
    )


def _metadata(facts: CardFacts) -> ModelCardData:
    results = [
        EvalResult(
            task_type=facts.task,
            dataset_type=re.sub(r"[^a-z0-9]+", "-", result.dataset.lower()).strip("-"),
            dataset_name=result.dataset,
            dataset_split=result.split,
            metric_type=result.metric,
            metric_name=result.name,
            metric_value=result.value,
        )
        for result in facts.results
    ]
    return ModelCardData(
        language=list(facts.languages) or None,
        license=facts.license,
        library_name="transformers",
        pipeline_tag=facts.pipeline_tag or facts.task,
        tags=[*_tags(facts), *facts.tags],
        datasets=list(dict.fromkeys(facts.datasets)) or None,
        metrics=list(dict.fromkeys(result.metric for result in facts.results)) or None,
        model_name=facts.name,
        eval_results=results or None,
    )


def _tags(facts: CardFacts) -> tuple[str, ...]:
    if not facts.masks:
        return ()
    if facts.attached:
        return ("crossmask",)
    return ("crossmask", *(("encoder-decoder",) if facts.model_type == "crossmask" else ()), "custom_code")


def _generating(facts: CardFacts) -> str:
    return (
        f'inputs = tokenizer([{python_literal(facts.example)}], return_tensors="pt")\n'
        f"output = model.generate(**inputs, max_new_tokens={facts.max_new_tokens})\n"
        "print(tokenizer.batch_decode(output, skip_special_tokens=True))"
    )


def python_literal(text: str) -> str:
    """A Python string literal in double quotes."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\r", "\\r")
    return f'"{escaped}"'


def _cell(text: str) -> str:
    """Any text as a cell of a Markdown table, escaped so that it shows as it is."""
    return re.sub(r"[\\`*_{}\[\]<>|~&$#!]", lambda match: f"&#{ord(match[0])};", text).replace("\n", "<br>")


def _mask(text: str | Mapping[str, str]) -> str:
    if isinstance(text, str):
        return f"<code>{_cell(text)}</code>"
    return "<br>".join(f"layers {_cell(str(layers))}: <code>{_cell(part)}</code>" for layers, part in text.items())


def _row(result: Result) -> dict[str, str]:
    return {
        "dataset": _cell(result.dataset),
        "split": _cell(result.split),
        "name": _cell(result.name),
        "value": f"{result.value:.2f}",
        "signature": f"<code>{_cell(result.signature)}</code>" if result.signature else "",
    }


def _time(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"
