"""Evaluation of a saved model on test data, by the task's own predictions and metrics."""

import dataclasses
import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any, cast

import torch
from transformers import PrinterCallback, Seq2SeqTrainingArguments

from ..data.recipes import find_recipe, read_recipe
from ..data.text_files import parse_yaml, read_json
from ..inference.loading import load_config, load_model, load_tokenizer_or_processor
from ..inference.reranking import NoisyChannelReranker
from ..pipelines.saved_options import saved_prefix
from ..tasks import Translation
from ..tasks.base import Example, Scores, Task
from ..tasks.examples import read_examples
from ..tasks.group_scores import GroupScores, score_groups, task_by_column
from ..utils.atomic_write import write_text
from ..utils.errors import InputError
from ..utils.type_checks import check_type
from .arguments import DataArguments
from .attaching import attach_masks
from .batching import evaluation_split
from .evaluation import EvaluatingTrainer
from .generation import beams_of
from .predictions import FILE, read_predictions, write_predictions
from .report import groups_record, plot_groups

METRICS = "metrics.json"
DEFAULT_LENGTH = 512
_SUFFIXES = {".tsv": "tsv", ".jsonl": "jsonl", ".json": "squad"}
_SAMPLES = 1000


@dataclass(frozen=True)
class Evaluation:
    """What a model made of test examples, and its scores, with the loss; those of the groups of a column."""

    task: Task
    examples: Sequence[Example]
    predictions: Sequence[Any]
    scores: Scores
    groups: GroupScores | None = None
    column: str | None = None

    @property
    def record(self) -> dict[str, Any]:
        """All scores, as JSON has them."""
        return self.scores | groups_record(self.groups, self.column)


def data_of_text(text: str, split: str) -> dict[str, Any]:
    """Where records come from, by a name: a file, a dataset of the Hub, or a mapping as recipes have it.

    Raises:
        InputError: a file of a kind that does not tell its format, a mapping that cannot be read.
    """
    if text.lstrip().startswith("{"):
        found = parse_yaml(text, Path("--data"))
        if not isinstance(found, dict):
            raise InputError(f"--data must be a mapping as in a recipe, got {text[:60]!r}")
        return found
    path = Path(text)
    suffix = Path(path.stem).suffix if path.suffix == ".gz" else path.suffix
    if suffix in _SUFFIXES:
        return {"format": _SUFFIXES[suffix], "path": text}
    if path.exists() or text.count("/") != 1:
        raise InputError(
            f"--data must end with {', '.join(_SUFFIXES)} (or .gz after it), be a dataset of the Hub, user/name, or a "
            f"mapping as in a recipe, got {text!r}; give '{{format: ..., path: {text}}}'"
        )
    return {"format": "hub", "name": text, "split": split}


def data_arguments(recipe: str | None, report_by: str | None, **given: Any) -> tuple[DataArguments, str | None]:
    """The task and the test data, and the column to report by: those of a recipe, with what is given in its place.

    Raises:
        InputError, OSError: a recipe that cannot be read, or neither it nor a task and data.
    """
    fields = {item.name for item in dataclasses.fields(DataArguments)}
    found: dict[str, Any] = {}
    if recipe is not None:
        whole = read_recipe(find_recipe(recipe), "test")
        found = {name: value for name, value in whole.items() if name in fields}
        check_type(f"{recipe}: report_by", whole.get("report_by"), str | None)
        report_by = report_by or whole.get("report_by")
    found |= {name: value for name, value in given.items() if value is not None}
    for name in ("task", "test"):
        if recipe is None and name not in found:
            flag = {"test": "data"}.get(name, name)
            raise InputError(f"--{flag} must be given without --recipe, got neither; give one of them")
    data = DataArguments(**{**found, "train": found["test"], "validation": found["test"]})
    return data, report_by


def evaluate_saved(
    name: str,
    data: DataArguments,
    *,
    report_by: str | None = None,
    limit: int | None = None,
    dtype: torch.dtype | None = None,
    device: torch.device,
    batch_tokens: int = 4096,
    generation: Mapping[str, Any] | None = None,
    reverse_model: str | None = None,
    reverse_weight: float | None = None,
    quiet: bool = False,
) -> Evaluation:
    """Load a model and its tokenizer, and evaluate them as `train.py` evaluates its test data.

    Args:
        name: a folder or a Hub id. data: the task and the test data.
        report_by: a column of the test records, each of whose values is also scored by itself.
        limit: how many examples, the first.
        generation: options of `generate` instead of the model's.
        reverse_model: a folder or a Hub id of a model of the other direction, by which hypotheses of beam search are
            ranked again (`inference/reranking.py`), with this weight.

    Raises:
        InputError, OSError: the model is not for the task, or something cannot be read.
        MissingLibraryError: a metric needs a library that is not installed.
    """
    given = data.task_options or {}
    task = task_by_column(data.task, given, report_by)  # before anything is loaded
    task.check_libraries()
    if reverse_model is not None and not isinstance(task, Translation):
        raise InputError(f"reverse_model must be left out with task {task.name}: it is for translation")
    if reverse_model is None and reverse_weight is not None:
        raise InputError(
            f"reverse_weight must come with reverse_model, without which it does nothing, got {reverse_weight}; give "
            "both or neither"
        )
    config = load_config(name)
    if saved := task.options_of_saved(config):
        task = task_by_column(data.task, {**saved, **given}, report_by)
    if data.source_prefix is None and "source_prefix" not in task.unused_fields:
        prefix = saved_prefix(config, task.pipeline_tag or task.name)
        data = dataclasses.replace(data, source_prefix=prefix or None)
    with _naming_task(name, task):
        task.check_config(config)
        task.check_trained(config)
        tokenizer = load_tokenizer_or_processor(name, config)
        task.check_tokenizer(tokenizer, config)
    examples = read_examples(data.sources("test"), task, "test", data.data_dir)[:limit]
    positions = {field: size for field, size in task.max_positions(config).items() if size is not None}
    limits = data.limits
    for field in task.length_fields:
        most = min(positions.get(field, DEFAULT_LENGTH), _given_length(data, field))
        limits = dataclasses.replace(limits, **cast(Any, {field: most}))
    split = evaluation_split(limits, task, tokenizer, examples)
    model = attach_masks(load_model(name, config, dtype, auto_class=task.auto_class), {})
    with _naming_task(name, task):
        task.check_model(model, packed=False)
    generation = {"num_beams": beams_of(model), **(generation or {})}
    if reverse_model is not None:
        NoisyChannelReranker.check_settings({**vars(model.generation_config), **generation})
        prefix = data.source_prefix or ""
        how: dict[str, Any] = {"weight": reverse_weight, "prefix": prefix, "device": device, "dtype": dtype}
        generation["custom_generate"] = NoisyChannelReranker.load(reverse_model, tokenizer, **how)
    with tempfile.TemporaryDirectory() as folder:
        arguments = Seq2SeqTrainingArguments(
            output_dir=folder, report_to=[], use_cpu=device.type == "cpu", disable_tqdm=quiet
        )
        trainer = EvaluatingTrainer(
            model=model,
            args=arguments,
            task=task,
            processing_class=tokenizer,
            eval_collator=task.evaluation_collator(model.config),
            eval_tokens=batch_tokens,
        )
        trainer.remove_callback(PrinterCallback)  # which prints the numbers to standard output
        metrics = trainer.evaluate(split, metric_key_prefix="test", **generation)
    groups = None if report_by is None else score_groups(task, trainer.predictions, examples)
    scores = {**trainer.scores, "loss": metrics["test_loss"]}
    return Evaluation(task, examples, trainer.predictions, scores, groups, report_by)


@contextmanager
def _naming_task(name: str, task: Task) -> Iterator[None]:
    try:
        yield
    except InputError as error:
        raise InputError(f"{name} must be a model for task {task.name}: {error}") from error


def _given_length(data: DataArguments, field: str) -> int:
    default = {item.name: item.default for item in dataclasses.fields(DataArguments)}[field]
    value: int = getattr(data, field)
    return DEFAULT_LENGTH if value == default else value


def write_evaluation(folder: Path, evaluation: Evaluation) -> None:
    """Write `metrics.json`, `predictions.jsonl`, a line for each example, and the figure `groups.png` of groups."""
    folder.mkdir(parents=True, exist_ok=True)
    write_predictions(folder, evaluation.examples, evaluation.predictions)
    if evaluation.groups is not None:
        plot_groups(folder, evaluation.groups, str(evaluation.column))
    write_text(folder / METRICS, json.dumps(evaluation.record, indent=2, ensure_ascii=False) + "\n")


def compare(evaluation: Evaluation, other: Path) -> dict[str, dict[str, float]]:
    """This model's scores, another's, and the difference; for translations with the p-value of a paired bootstrap.

    sacreBLEU resamples the test set 1,000 times (Koehn 2004). The p-value is the probability of a difference of this
    size between equal systems.

    Args:
        other: the `metrics.json` of the other model.

    Raises:
        InputError: it has none of the scores, or the predictions beside it are of other examples.
        OSError: it cannot be read.
    """
    theirs = read_json(other)
    if not isinstance(theirs, dict):
        raise InputError(f"{other} must hold scores, {{...}}; give a metrics.json")
    shared = [
        name
        for name, value in evaluation.scores.items()
        if isinstance(value, float) and isinstance(theirs.get(name), float | int)
    ]
    if not shared:
        raise InputError(f"{other} must have a score of task {evaluation.task.name}; give its metrics.json")
    found = {name: {"this": float(evaluation.scores[name]), "other": float(theirs[name])} for name in shared}
    for row in found.values():
        row["difference"] = row["this"] - row["other"]
    if isinstance(evaluation.task, Translation):
        for name, p_value in _paired_bootstrap(evaluation, evaluation.task, other.with_name(FILE)).items():
            if name in found:
                found[name]["p_value"] = p_value
    return found


def _paired_bootstrap(evaluation: Evaluation, task: Translation, path: Path) -> dict[str, float]:
    from sacrebleu.metrics import BLEU, CHRF
    from sacrebleu.significance import PairedTest

    theirs = read_predictions(path, evaluation.examples)
    references = [list(example.references) for example in evaluation.examples]
    metrics: dict[str, Any] = {"chrf": CHRF(lowercase=task.lowercase)}
    if len(tokenizers := set(task.tokenizers(evaluation.examples).values())) == 1:
        metrics["sacrebleu"] = BLEU(tokenize=tokenizers.pop(), lowercase=task.lowercase)
    systems: list[tuple[str, Sequence[str]]] = [
        ("other", [task.postprocess(text) for text in theirs]),
        ("this", [task.postprocess(text) for text in evaluation.predictions]),
    ]
    columns = list(zip_longest(*references))
    _, results = PairedTest(systems, metrics, columns, test_type="bs", n_samples=_SAMPLES)()
    del results["System"]  # the rest is in the order of the metrics, under names of sacreBLEU's own
    found: Any = dict(zip(metrics, results.values(), strict=True))
    return {name: float(this.p_value) for name, (_, this) in found.items()}
