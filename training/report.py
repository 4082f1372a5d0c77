"""What a run leaves behind: the model, its scores, samples, pictures and card."""

import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase, ProcessorMixin

from ..attached.attached_model import AttachedModel
from ..hub.card import CardFacts, Result, write_card
from ..hub.card import Sample as CardSample
from ..masks.scope import SCOPES
from ..tasks.base import Example, Sample, Scores, Task, sample_indices
from ..tasks.bleu import AGGREGATE
from ..tasks.group_scores import GroupScores, score_groups
from .parsing import RunSpec
from .predictions import write_predictions

METRIC_NAMES = {
    "sacrebleu_lowercase": "sacreBLEU, lowercase",  # before its prefix
    "sacrebleu": "sacreBLEU",
    "chrf": "chrF",
    "accuracy": "accuracy",
    "precision": "precision",
    "recall": "recall",
    "rouge1": "ROUGE-1",
    "rouge2": "ROUGE-2",
    "rougeLsum": "ROUGE-Lsum",
    "rougeL": "ROUGE-L",
    "exact_match": "exact match",
    "f1": "F1",
    **{f"{kind}_exact": f"exact match, {what}" for kind, what in (("HasAns", "with an answer"), ("NoAns", "without"))},
    **{f"{kind}_f1": f"F1, {what}" for kind, what in (("HasAns", "with an answer"), ("NoAns", "without"))},
    "perplexity": "perplexity per token",
    "word_perplexity": "perplexity per word",
    "bits_per_byte": "bits per byte",
}
CARD_SAMPLES = 6
LIBRARIES = ("torch", "transformers", "tokenizers", "datasets", "accelerate")


@dataclass(frozen=True)
class RunResult:
    """What training and testing gave; `trained_parameters` counts adapters, which the model no longer has."""

    model: PreTrainedModel
    trained_parameters: int
    tokenizer: PreTrainedTokenizerBase
    task: Task
    train_size: int | None  # None of a stream
    test: Sequence[Example]
    predictions: Sequence[Any]
    scores: Scores
    seconds: float
    log_history: list[dict[str, float]]


def write_report(folder: Path, run: RunSpec, outcome: RunResult, name: str) -> None:
    """Write model, tokenizer, code files, scores, predictions, log, samples, pictures and card into `folder`."""
    config, options = outcome.model.config, pipeline_options(run, outcome.task)
    if options or getattr(config, "task_specific_params", None):  # T5's prefixes, which this training did without
        config.task_specific_params = options or None
    outcome.model.save_pretrained(folder)
    outcome.tokenizer.save_pretrained(folder)
    samples = samples_of(outcome, max(run.recipe.report.samples, CARD_SAMPLES))
    page = sample_page(outcome, dict(list(samples.items())[: run.recipe.report.samples]))
    (folder / "samples.md").write_text(page, encoding="utf-8")
    write_predictions(folder, outcome.test, outcome.predictions)
    lines = (json.dumps(entry) for entry in outcome.log_history)
    (folder / "log.jsonl").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    images, groups = write_plots(folder, outcome), None
    if (column := run.recipe.report.report_by) is not None:
        groups = score_groups(outcome.task, outcome.predictions, outcome.test)  # as `crossmask evaluate` does
        images |= plot_groups(folder, groups, column)
    card = write_card(folder, card_facts(run, outcome, list(samples.values()), images, name, groups))
    card.write_text(run.secrets.hide(card.read_text(encoding="utf-8")), encoding="utf-8")
    facts = {
        **groups_record(groups, column),
        **({} if outcome.train_size is None else {"train_examples": outcome.train_size}),
        "train_seconds": round(outcome.seconds, 1),
        "parameters": outcome.model.num_parameters(),
        **trained_only(outcome),
        "seed": run.arguments.seed,
        "command": run.command,
        "hardware": hardware(run.arguments.world_size),
        "dtype": run.arguments.precision.name,
        "dtype_reason": run.arguments.precision.reason,
        "versions": versions(),
    }
    text = json.dumps(run.secrets.hide({**outcome.scores, **facts}), indent=2, ensure_ascii=False)
    (folder / "metrics.json").write_text(text + "\n", encoding="utf-8")


def pipeline_options(run: RunSpec, task: Task) -> dict[str, dict[str, Any]]:
    """How `transformers.pipeline` makes sources as in training, by the name of the pipeline's task."""
    options, prefix = task.pipeline_options(), run.recipe.data.source_prefix
    if prefix is not None:
        options["prefix"] = prefix
    return {task.pipeline_tag or task.name: options} if options else {}


def write_plots(folder: Path, outcome: RunResult) -> dict[str, str]:
    """Draw the pictures that there is something to draw of; returns their captions by file name."""
    from ..plotting.training import learning_curve  # `train.py --help` needs no matplotlib

    images = {}
    logged = {name for entry in outcome.log_history for name in entry}
    if logged & {"loss", "eval_loss"}:
        name, greater_is_better = outcome.task.primary_metric
        measured = f"eval_{name}" in logged
        curve = {"metric": name, "greater_is_better": greater_is_better} if measured else {"metric": "eval_loss"}
        learning_curve(outcome.log_history, folder / "learning_curve.png", **curve)
        images["learning_curve.png"] = "Learning curve"
    return images | outcome.task.plots(folder, outcome.model, outcome.tokenizer, outcome.test, outcome.predictions)


def groups_record(groups: GroupScores | None, column: str | None) -> dict[str, Any]:
    """What `metrics.json` has of the groups of a column; nothing where there are none."""
    return {} if groups is None else {"groups": {"column": column, **groups.as_dict()}}


def plot_groups(folder: Path, groups: GroupScores, column: str) -> dict[str, str]:
    """Draw the scores of the groups; returns the caption by file name."""
    from ..plotting.groups import group_scores  # as above

    metric, parts = METRIC_NAMES.get(groups.metric, groups.metric), groups.groups
    intervals = [(one.low, one.high) for one in parts]
    group_scores([one.name for one in parts], [one.value for one in parts], intervals, metric, folder / "groups.png")
    return {"groups.png": f"{metric} by {column}, with bootstrap intervals of 95%"}


def samples_of(outcome: RunResult, number: int) -> dict[int, Sample]:
    """Test examples by index, from all groups in turn, with what the model made of them."""
    model, tokenizer, task = outcome.model, outcome.tokenizer, outcome.task
    indices = sample_indices(outcome.test, number)
    return {at: task.sample(model, tokenizer, outcome.test[at], outcome.predictions[at]) for at in indices}


def sample_page(outcome: RunResult, samples: Mapping[int, Sample]) -> str:
    """A Markdown page of test examples with what the model made of them."""
    lines = ["# Samples from the test set", "", "Not selected: the first of every group in turn.", ""]
    for index, sample in samples.items():
        lines += [
            f"**{outcome.test[index].group or 'example'} {index}** ({sample.verdict})",
            "",
            f"- source: {sample.source}",
            f"- reference: {sample.reference}",
            f"- output: {sample.output}",
            "",
        ]
    return "\n".join(lines)


def card_facts(
    run: RunSpec,
    outcome: RunResult,
    samples: Sequence[Sample],
    images: dict[str, str],
    name: str,
    groups: GroupScores | None = None,
) -> CardFacts:
    """The facts of the run, for its card."""
    data, report = run.recipe.data, run.recipe.report
    config, generation = outcome.model.config, outcome.model.generation_config
    declared = json.dumps(run.secrets.hide(data.train), ensure_ascii=False)
    optimization, taught = run.recipe.optimization, ""
    if optimization.teacher is not None:
        share = f"{optimization.teacher_weight:.0%}"
        taught = f" {share} of every target is what `{optimization.teacher}` predicts there (distillation)."
    size = "A stream of examples" if outcome.train_size is None else f"{outcome.train_size:,} examples"
    sources = data.train if isinstance(data.train, list) else [data.train]
    tested: list[Any] = data.test if isinstance(data.test, list) else [data.test]
    dataset = ", ".join(dict.fromkeys(str(source.get("name") or source["format"]) for source in tested))
    split = ", ".join(dict.fromkeys(str(source.get("split") or "test") for source in tested))
    return CardFacts(
        name=name,
        location=name,
        summary=(report.summary or f"A {config.model_type} model for {data.task}.").strip(),
        task=data.task,
        pipeline_tag=outcome.task.pipeline_tag,
        auto_class=outcome.task.auto_class.__name__,
        tokenizer_class="AutoProcessor" if isinstance(outcome.tokenizer, ProcessorMixin) else "AutoTokenizer",
        model_type=config.model_type,
        example=samples[0].source,
        example_output=samples[0].output,
        usage=outcome.task.usage(outcome.test[sample_indices(outcome.test, 1)[0]]),
        max_new_tokens=generation.max_new_tokens or (generation.max_length or 21) - 1,  # 20 is Transformers' own
        training_data=f"{size}, declared in the recipe as `{declared}`.{taught}",
        masks={scope: getattr(config, f"{scope}_mask") for scope in SCOPES if hasattr(config, f"{scope}_mask")},
        attached=isinstance(outcome.model, AttachedModel) and outcome.model.attachment.has_masks(outcome.model.config),
        architecture=architecture(config) | {k.replace("_", " "): v for k, v in trained_only(outcome).items()},
        parameters=outcome.model.num_parameters(),
        recipe=run.name,
        recipe_text=run.recipe_text,
        command=run.command,
        seed=run.arguments.seed,
        seconds=outcome.seconds,
        hardware=f"{hardware(run.arguments.world_size)}, in {run.arguments.precision.name}",
        versions=versions(),
        results=results(outcome.scores, dataset, split),
        samples=[CardSample(source=s.source, reference=s.reference, output=s.output) for s in samples[:CARD_SAMPLES]],
        images=images,
        groups=[] if groups is None else group_rows(groups),
        groups_by="" if groups is None else str(report.report_by),
        languages=report.language or (),
        license=report.license,
        datasets=[source["name"] for source in sources if source["format"] == "hub"],
    )


def group_rows(groups: GroupScores) -> list[tuple[str, ...]]:
    """The rows of the card's table of groups, the last of which has the spread."""
    metric = METRIC_NAMES.get(groups.metric, groups.metric)
    rows = [("group", "examples", metric, "interval of 95%")]
    for one in groups.groups:
        mark = " (the worst)" if one is groups.worst else ""
        rows.append((f"{one.name}{mark}", f"{one.size:,}", f"{one.value:.1f}", f"{one.low:.1f} to {one.high:.1f}"))
    return [*rows, ("spread", "", f"{groups.spread:.1f}", "")]


def trained_only(outcome: RunResult) -> dict[str, int]:
    """The number of parameters that were trained, where some were frozen."""
    trained = outcome.trained_parameters
    return {"trained_parameters": trained} if trained < outcome.model.num_parameters() else {}


def architecture(config: PreTrainedConfig) -> dict[str, object]:
    """The sizes of a model, by their names for readers."""
    layers = getattr(config, "num_hidden_layers", None)
    for encoder, decoder in (("encoder_layers", "decoder_layers"), ("num_layers", "num_decoder_layers")):  # T5's
        if hasattr(config, encoder) and hasattr(config, decoder):
            layers = f"{getattr(config, encoder)} encoder, {getattr(config, decoder)} decoder"
    heads, key_value_heads = (getattr(config, f"num_{kind}_heads", None) for kind in ("attention", "key_value"))
    parts = {name: getattr(config, name) for name in config.sub_configs}
    sizes = {
        **{
            name: f"{part.model_type}, {part.num_hidden_layers} layers of {part.hidden_size}"
            for name, part in parts.items()
        },
        "bridge before the decoder's layers": ", ".join(map(str, getattr(config, "block_layers", ()))) or None,
        "layers": layers,
        "hidden size": getattr(config, "hidden_size", None),
        "feed-forward size": next(
            (
                getattr(config, name)
                for name in ("intermediate_size", "encoder_ffn_dim", "d_ff")
                if hasattr(config, name)
            ),
            None,
        ),
        "heads": heads if key_value_heads is None else f"{heads} query, {key_value_heads} key/value",
        "vocabulary": getattr(config, "vocab_size", None),
    }
    return {name: size for name, size in sizes.items() if size is not None}


def results(scores: Scores, dataset: str, split: str = "test") -> list[Result]:
    """The scores as the card's rows, each with its group's name behind it and its signature beside it.

    A score that is the mean of the groups' scores says so, because it is not comparable to one of all texts.

    Args:
        split: the name that the data's own page has for what the model was tested on.
    """
    rows = []
    for key, value in scores.items():
        if isinstance(value, str):
            continue
        metric = next((known for known in METRIC_NAMES if key == known or key.startswith(f"{known}_")), key)
        group = key[len(metric) + 1 :]
        label = METRIC_NAMES.get(metric, metric) + (f" ({group})" if group else "")
        signature = str(scores.get(f"{metric}_signature" + (f"_{group}" if group else ""), ""))
        if AGGREGATE in signature:
            label += ", mean over groups"
        rows.append(
            Result(
                dataset=dataset,
                split=split,
                metric=metric.removesuffix("_lowercase"),
                name=label,
                value=float(value),
                signature=signature,
            )
        )
    return rows


def hardware(processes: int) -> str:
    """What the run ran on, as a reader would name it."""
    count = torch.get_num_threads()
    threads = f"{count} CPU thread{'s' * (count > 1)} ({platform.machine()})"
    one = torch.cuda.get_device_name() if torch.cuda.is_available() else threads
    return one if processes == 1 else f"{processes} processes, each on {one}"


def versions() -> dict[str, Any]:
    return {library: version(library) for library in LIBRARIES}
