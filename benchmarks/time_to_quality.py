"""How long a translator takes to be good: Multi30k, English to German, until validation BLEU reaches 30, 35 and 38.

    python -m benchmarks.time_to_quality --variants crossmask "BART at its best" --seeds 1 2

Every run is `train.py` on a recipe with some of its fields changed, in a process of its own on one thread, and stops
when its schedule ends. All have the same pairs, the same kind of tokenizer (8,000 entries) and about 8M parameters.
Validation is greedy, of all 1,014 sentences. Time is that of training: seconds of the processor, which other work
disturbs least, and by the clock; evaluations are left out. The seconds of a step say how fast the machine was for a
run. Runs that are finished are kept, others go on from their last checkpoint. The page has a table, and beside it is a
picture of validation BLEU over time. `--profile` says instead how long a training step of each variant takes, in one
run, and on which operations.

A variant takes 6 to 80 CPU minutes a seed, evaluations left out, so all of them take many hours: choose with
`--variants`.
"""

import argparse
import json
import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import torch

from benchmarks.harness import add_page_options, machine, parse_options, publish, table
from benchmarks.recipe_runs import BY_ADAMW, Finished, measure_step, train

CROSSMASK, BART = "recipes/multi30k-en-de.yaml", "recipes/multi30k-en-de-bart.yaml"
R_DROP = "recipes/multi30k-en-de-r-drop.yaml"
AS_PEOPLE_DO = (
    *("--batching", "examples", "--batch_tokens", "null", "--attn_implementation", "sdpa"),
    *("--per_device_train_batch_size", "64"),
    *("--learning_rate", "5e-4", "--lr_scheduler_type", "linear", "--warmup_steps", "0", "--weight_decay", "0.01"),
    *("--label_smoothing_factor", "0", "--model.dropout", "0.1"),
)
T5 = {
    "model_type": "t5", "d_model": 256, "d_kv": 64, "d_ff": 704, "num_layers": 3, "num_decoder_layers": 3,
    "num_heads": 4, "feed_forward_proj": "gated-gelu", "dropout_rate": 0.2,
}  # fmt: skip
BY_MUON = (
    *("--optim", "muon", "--optim_args", "learning_rate=2.0e-3, momentum=0.9, ns_steps=4", "--learning_rate", "5e-3"),
    *("--lr_scheduler_type", "linear", "--warmup_steps", "100", "--batch_tokens", "3072", "--num_train_epochs", "8"),
)
LINEAR = ("--lr_scheduler_type", "linear", "--lr_scheduler_kwargs", "null")


def _wsd(decay_steps: float) -> Sequence[str]:
    """Warm-up, constant rates, and decay in the last steps: their number, or below 1 their share."""
    options = json.dumps({"num_decay_steps": decay_steps})
    return ("--lr_scheduler_type", "warmup_stable_decay", "--lr_scheduler_kwargs", options)


def _short(steps: int) -> Sequence[str]:
    """The fewer the epochs, the less dropout: a short schedule ends before the network overfits."""
    return ("--max_steps", str(steps), "--model.dropout", "0.1")


VARIANTS: dict[str, tuple[str, Sequence[str]]] = {
    "crossmask": (CROSSMASK, []),
    "crossmask, linear decay": (CROSSMASK, LINEAR),
    "crossmask, 960 steps": (CROSSMASK, [*_short(960), *LINEAR]),
    "crossmask, 960 steps, WSD": (CROSSMASK, [*_short(960), *_wsd(320)]),
    "crossmask, 720 steps, WSD": (CROSSMASK, [*_short(720), *_wsd(320)]),
    "crossmask, 960 steps, no zero weights": (
        CROSSMASK,
        [*_short(960), *LINEAR, "--model.residual_initializer_range", "null"],
    ),
    "crossmask by R-Drop": (R_DROP, []),
    "crossmask by AdamW": (CROSSMASK, BY_ADAMW),
    "BART as people train it": (BART, AS_PEOPLE_DO),
    "BART at its best": (BART, _wsd(0.328)),
    "BART, cosine decay": (BART, []),
    "T5 by Muon": (BART, ["--model", json.dumps(T5), *BY_MUON]),
}
"""What is compared: a recipe, and the fields that are changed in it.

BART at its best has batches of similar length, eager attention, label smoothing, the learning rate of the recipe and a
late decay instead of its cosine.
T5 has Muon because it was far behind with AdamW at all rates that were tried (LOG.md).
"""
SCORES = (30.0, 35.0, 38.0)
METRIC = "eval_sacrebleu"
QUICK = ("--train.limit", "128", "--validation.limit", "16", "--test.limit", "16", "--warmup_steps", "0", *LINEAR)
IDLE = {"quick": ("seeds", "epochs", "eval_steps"), "profile": ("seeds", "epochs", "eval_steps", "runs")}
OPERATIONS = 8  # of a profile, the longest


def run(variant: str, seed: int, options: argparse.Namespace) -> Finished:
    """Train one variant, unless that is done."""
    recipe, changed = VARIANTS[variant]
    fields = [*changed, "--seed", str(seed), "--average_checkpoints", "null", "--save_total_limit", "2"]
    for kind in ("eval", "save"):
        fields += [f"--{kind}_strategy", "steps", f"--{kind}_steps", str(options.eval_steps)]
    if options.epochs is not None:
        fields += ["--num_train_epochs", str(options.epochs), "--max_steps", "-1"]
    if options.quick:
        fields += QUICK
    return train(options.runs / f"{variant.replace(' ', '-')}-{seed}", recipe, fields)


def profiles(options: argparse.Namespace) -> str:
    """A table of the seconds of a training step of each variant, and of the operations that take longest."""
    rows = []
    for variant in options.variants:
        recipe, changed = VARIANTS[variant]
        step = measure_step(recipe, [*changed, *(QUICK if options.quick else ())])
        whole = sum(step.operations.values())
        longest = list(step.operations.items())[:OPERATIONS]
        named = ", ".join(f"{name.removeprefix('aten::')} {seconds / whole:.0%}" for name, seconds in longest)
        rows.append([variant, f"{step.seconds:.2f}", named])
    return table(["", "CPU s a step", "operations, without those that they call"], rows)


def until(evaluations: Sequence[Mapping[str, float]], score: float, time: str) -> float:
    """Seconds of training up to the first evaluation that has the score; infinity where none has."""
    return next((entry[time] for entry in evaluations if entry[METRIC] >= score), math.inf)


def row_of(variant: str, runs: Sequence[Finished], evaluations: Sequence[Sequence[Mapping[str, float]]]) -> list[str]:
    """Of the table: seconds of a step, the times until each score, the best score, and that of the test."""
    steps = [one[-1]["training_cpu_seconds"] / one[-1]["step"] for one in evaluations]
    row = [variant, mean_and_each(steps, digits=2)]
    for score in SCORES:
        for time in ("training_cpu_seconds", "training_seconds"):
            row.append(mean_and_each([until(one, score, time) / 60 for one in evaluations]))
    best = [max(entry[METRIC] for entry in one) for one in evaluations]
    return [*row, mean_and_each(best), mean_and_each([one.metrics["sacrebleu"] for one in runs])]


def mean_and_each(values: Sequence[float], digits: int = 1) -> str:
    """The mean, and where there are several, each of them; no mean where one is infinite."""
    each = ", ".join("never" if math.isinf(value) else f"{value:.{digits}f}" for value in values)
    if len(values) == 1 or math.inf in values:
        return each
    return f"{statistics.mean(values):.{digits}f} ({each})"


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--variants", nargs="+", choices=list(VARIANTS), default=list(VARIANTS), metavar="VARIANT")
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--epochs", type=float, help="by default those of the recipe or of the variant")
    parser.add_argument("--eval-steps", type=int, default=80, help="training steps from one evaluation to the next")
    parser.add_argument("--runs", type=Path, default=Path("runs/time-to-quality"), help="where the runs are kept")
    parser.add_argument(
        "--profile", action="store_true", help="profile a few steps of each variant, and train no further"
    )
    add_page_options(parser, "time_to_quality")
    options = parse_options(parser, argv, **IDLE)
    if options.eval_steps < 1 or not 0 < (1 if options.epochs is None else options.epochs) < math.inf:
        parser.error("--eval-steps and --epochs must be more than 0")
    torch.set_num_threads(1)  # as the runs have, of which the page speaks
    heading = f"# Time to quality: Multi30k, English to German\n\n{machine()}\n\n"
    if options.profile:
        is_default = options.output == parser.get_default("output")
        page = options.output.with_stem(f"{options.output.stem}_profile") if is_default else options.output
        publish(heading + profiles(options), page)
        return
    if options.quick:
        options.epochs, options.eval_steps, options.seeds = 1, 1, [1]
    rows, figure, axes = [], *plt.subplots(figsize=(7, 4.5), layout="constrained")
    axes.set(xlabel="CPU minutes of training, one thread", ylabel="sacreBLEU, greedy, validation")
    times = [f"{score:.0f}, {kind}" for score in SCORES for kind in ("CPU min", "min")]
    header = ["", "CPU s a step", *times, "best", "test, beam 5"]
    options.output.parent.mkdir(parents=True, exist_ok=True)
    for number, variant in enumerate(options.variants):
        runs = [run(variant, seed, options) for seed in options.seeds]
        evaluations = [one.evaluations(METRIC) for one in runs]
        rows.append(row_of(variant, runs, evaluations))
        for first, one in zip([True] + [False] * len(runs), evaluations, strict=False):
            passed = [entry["training_cpu_seconds"] / 60 for entry in one]
            label = variant if first else None
            axes.plot(passed, [entry[METRIC] for entry in one], color=plt.get_cmap("tab20")(number), label=label)
        axes.legend()
        figure.savefig(options.output.with_suffix(".png"), dpi=150)
        publish(heading + table(header, rows), options.output)  # after every variant: the next one takes an hour


if __name__ == "__main__":
    main()
