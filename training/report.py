"""What a run leaves behind: the model, its scores, samples, pictures and card."""

import json
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from transformers import BatchEncoding, PreTrainedModel, PreTrainedTokenizerBase

from ..hub.card import CardFacts, Result, Sample, write_card
from ..masks.scope import SCOPES
from ..plotting.training import alignment, learning_curve, masks_in_force
from ..tasks.base import Example, Scores, Task
from ..tasks.bleu import AGGREGATE
from .arguments import RunSpec

METRIC_NAMES = {
    "sacrebleu_lowercase": "sacreBLEU, lowercase",  # before its prefix
    "sacrebleu": "sacreBLEU",
    "chrf": "chrF",
    "exact_match": "exact match",
    "f1": "F1",
}
LIBRARIES = ("torch", "transformers", "tokenizers", "datasets", "accelerate")


@dataclass(frozen=True)
class RunResult:
    """What training and testing gave."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    task: Task
    train_size: int | None  # None of a stream
    test: Sequence[Example]
    predictions: Sequence[str]
    scores: Scores
    seconds: float
    log_history: list[dict[str, float]]


def write_report(folder: Path, run: RunSpec, outcome: RunResult, name: str) -> None:
    """Write model, tokenizer, generation config, code files, scores, log, samples, pictures and card into `folder`."""
    outcome.model.save_pretrained(folder)
    outcome.tokenizer.save_pretrained(folder)
    (folder / "samples.md").write_text(sample_page(outcome, run.recipe.samples), encoding="utf-8")
    lines = (json.dumps(entry) for entry in outcome.log_history)
    (folder / "log.jsonl").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    images = write_plots(folder, outcome)
    card = write_card(folder, card_facts(run, outcome, images, name))
    card.write_text(run.secrets.hide(card.read_text(encoding="utf-8")), encoding="utf-8")
    facts = {
        **({} if outcome.train_size is None else {"train_examples": outcome.train_size}),
        "train_seconds": round(outcome.seconds, 1),
        "parameters": outcome.model.num_parameters(),
        "seed": run.arguments.seed,
        "command": run.command,
        "hardware": hardware(),
        "precision": run.arguments.precision.name,
        "precision_reason": run.arguments.precision.reason,
        "versions": versions(),
    }
    text = json.dumps(run.secrets.hide({**outcome.scores, **facts}), indent=2, ensure_ascii=False)
    (folder / "metrics.json").write_text(text + "\n", encoding="utf-8")


def write_plots(folder: Path, outcome: RunResult) -> dict[str, str]:
    """Draw the pictures that there is something to draw of; returns their captions by file name."""
    images = {}
    logged = {name for entry in outcome.log_history for name in entry}
    if logged & {"loss", "eval_loss"}:
        name, greater_is_better = outcome.task.primary_metric
        measured = f"eval_{name}" in logged
        curve = {"metric": name, "greater_is_better": greater_is_better} if measured else {"metric": "eval_loss"}
        learning_curve(outcome.log_history, folder / "learning_curve.png", **curve)
        images["learning_curve.png"] = "Learning curve"
    masks_in_force(outcome.model.config, folder / "masks.png")
    images["masks.png"] = "The masks in force"
    # A decoder that looks into a memory does not look at source tokens.
    looks_at_source = outcome.model.config.memory_length is None
    for number, index in enumerate(sample_indices(outcome.test, 3) if looks_at_source else (), start=1):
        file = f"alignment_{number}.png"
        weights, source, target = generate_with_attention(outcome.model, outcome.tokenizer, outcome.test[index].source)
        alignment(weights, source, target, folder / file, title=outcome.test[index].source)
        images[file] = f"Where the decoder looks, example {number}"
    return images


@torch.no_grad()
def generate_with_attention(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, text: str
) -> tuple[torch.Tensor, list[str], list[str]]:
    """Generate from a source text: interactive attention (T, S), mean over heads and layers, and both sides' tokens.

    Row t belongs to the token that was predicted at step t.
    """
    inputs = encode(model, tokenizer, text)
    output = model.generate(**inputs, num_beams=1)[:, : model.config.max_position_embeddings]
    before = model.config._attn_implementation
    model.set_attn_implementation("eager")
    attended = model(**inputs, decoder_input_ids=output[:, :-1], output_attentions=True)
    model.set_attn_implementation(before)
    weights = torch.stack(attended.cross_attentions).float().mean(dim=(0, 2))[0]
    tokens = [[tokenizer.decode([i]) for i in ids.tolist()] for ids in (inputs.input_ids[0], output[0, 1:])]
    return weights, tokens[0], tokens[1]


def encode(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, text: str) -> BatchEncoding:
    """The model's inputs for a source text, without what is over the limits of tokenizer and model."""
    limit = min(tokenizer.model_max_length, model.config.max_position_embeddings)
    return tokenizer(text, return_tensors="pt", truncation=True, max_length=limit).to(model.device)


def sample_indices(examples: Sequence[Example], number: int) -> list[int]:
    """Indices of `number` examples, taken from all groups in turn."""
    groups: dict[str | None, list[int]] = {}
    for index, example in enumerate(examples):
        groups.setdefault(example.group, []).append(index)
    turns = [members[turn] for turn in range(number) for members in groups.values() if turn < len(members)]
    return turns[:number]


def sample_page(outcome: RunResult, number: int) -> str:
    """A Markdown page of test examples with what the model made of them."""
    lines = ["# Samples from the test set", "", "Not selected: the first of every group in turn.", ""]
    for index in sample_indices(outcome.test, number):
        example, prediction = outcome.test[index], outcome.predictions[index]
        verdict = "exact" if outcome.task.postprocess(prediction) in example.references else "differs"
        lines += [
            f"**{example.group or 'example'} {index}** ({verdict})",
            "",
            f"- source: {example.source}",
            f"- reference: {example.references[0]}",
            f"- output: {prediction}",
            "",
        ]
    return "\n".join(lines)


def card_facts(run: RunSpec, outcome: RunResult, images: dict[str, str], name: str) -> CardFacts:
    """The facts of the run, for its card."""
    recipe, config, generation = run.recipe, outcome.model.config, outcome.model.generation_config
    first = outcome.test[0]
    data = json.dumps(run.secrets.hide(recipe.train), ensure_ascii=False)
    size = "A stream of examples" if outcome.train_size is None else f"{outcome.train_size:,} examples"
    sources = recipe.train if isinstance(recipe.train, list) else [recipe.train]
    dataset = ", ".join(dict.fromkeys(str(source.get("name") or source["format"]) for source in sources))
    return CardFacts(
        name=name,
        location=name,
        summary=(recipe.summary or f"A crossmask model for {recipe.task}.").strip(),
        task=recipe.task,
        example=first.source,
        example_output=outcome.predictions[0],
        max_new_tokens=generation.max_new_tokens or (generation.max_length or 21) - 1,  # 20 is Transformers' own
        training_data=f"{size}, declared in the recipe as `{data}`.",
        masks={scope: getattr(config, f"{scope}_mask") for scope in SCOPES},
        architecture={
            "layers": f"{config.encoder_layers} encoder, {config.decoder_layers} decoder",
            "hidden size": config.hidden_size,
            "feed-forward size": config.intermediate_size,
            "heads": f"{config.num_attention_heads} query, {config.num_key_value_heads} key/value",
            "vocabulary": config.vocab_size,
        },
        parameters=outcome.model.num_parameters(),
        recipe=run.name,
        recipe_text=run.recipe_text,
        command=run.command,
        seed=run.arguments.seed,
        seconds=outcome.seconds,
        hardware=f"{hardware()}, in {run.arguments.precision.name}",
        versions=versions(),
        results=results(outcome.scores, dataset),
        samples=[
            Sample(
                source=outcome.test[i].source, reference=outcome.test[i].references[0], output=outcome.predictions[i]
            )
            for i in sample_indices(outcome.test, 6)
        ],
        images=images,
        languages=recipe.language or (),
        datasets=[source["name"] for source in sources if source["format"] == "hub"],
    )


def results(scores: Scores, dataset: str) -> list[Result]:
    """The scores as the card's rows, each with its group's name behind it and its signature beside it.

    A score that is the mean of the groups' scores says so, because it is not comparable to one of all texts.
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
                split="test",
                metric=metric.removesuffix("_lowercase"),
                name=label,
                value=float(value),
                signature=signature,
            )
        )
    return rows


def hardware() -> str:
    """What the run ran on, as a reader would name it."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    count = torch.get_num_threads()
    return f"{count} CPU thread{'s' * (count > 1)} ({platform.machine()})"


def versions() -> dict[str, Any]:
    return {library: version(library) for library in LIBRARIES}
