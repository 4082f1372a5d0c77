"""What a warm start gives: bridges on Multi30k, in several variants, and the network that starts from scratch.

    python -m benchmarks.warm_starts --encoder all-MiniLM-L6-v2 --decoder runs/gpt-de --pairs 2900

Every run is `train.py` on a recipe with some of its fields changed, in a process of its own on one thread. Runs that
are finished are kept, others go on from their last checkpoint. The page has a table, and beside it is a picture of
validation BLEU over CPU time.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import torch

from benchmarks.harness import add_page_options, machine, parse_options, publish, table
from benchmarks.recipe_runs import BY_ADAMW, Finished, train

SCRATCH, BRIDGE = "recipes/multi30k-en-de.yaml", "recipes/multi30k-en-de-bridge.yaml"
VALIDATION = 300  # sentences, enough to choose a checkpoint by
QUICK = ("--test.limit", "16", "--warmup_steps", "0", "--max_source_length", "32", "--max_target_length", "32")
NEW_DECODER = {  # of the size of gpt-de
    "model_type": "llama", "hidden_size": 256, "intermediate_size": 768, "num_hidden_layers": 8,
    "num_attention_heads": 4, "num_key_value_heads": 4, "tie_word_embeddings": True, "initializer_range": 0.04,
}  # fmt: skip


def rates(**of_parts: float) -> list[str]:
    return ["--learning_rates", json.dumps(of_parts)]


VARIANTS: dict[str, tuple[str, list[str]]] = {
    "from scratch": (SCRATCH, [*BY_ADAMW, "--average_checkpoints", "4", "--save_total_limit", "5"]),
    "bridge": (BRIDGE, []),
    "bridge, encoder frozen": (BRIDGE, ["--freeze", "encoder", *rates(decoder=5e-4, bridge=2e-3)]),
    "bridge, decoder frozen": (BRIDGE, ["--freeze", "decoder", *rates(encoder=2e-4, bridge=2e-3)]),
    "bridge, both frozen": (BRIDGE, ["--freeze", "encoder", "decoder", *rates(bridge=2e-3)]),
    "pretrained encoder, new decoder": (
        BRIDGE,
        [
            *("--decoder_name_or_path", "null", "--tokenizer", '{"vocab_size": 8000}'),
            *("--model.decoder", json.dumps(NEW_DECODER), *rates(encoder=2e-4)),
        ],
    ),
    "bridge, a block before every 4th layer": (BRIDGE, ["--model.bridge_layers", "4"]),
    "bridge, tanh gate": (BRIDGE, ["--model.gate", "tanh"]),
    "bridge, one learning rate": (BRIDGE, ["--learning_rates", "null"]),
}
"""What is compared: a recipe, and the fields that are changed in it."""


def run(name: str, options: argparse.Namespace) -> Finished:
    """Train one variant, unless that is done."""
    recipe, changed = VARIANTS[name]
    folder = options.runs / f"{options.pairs}-{name.replace(', ', '-').replace(' ', '-')}"
    fields = ["--seed", str(options.seed), "--train.limit", str(options.pairs), "--validation.limit", str(VALIDATION)]
    fields += [*changed, "--num_train_epochs", str(options.epochs if recipe == BRIDGE else options.scratch_epochs)]
    if recipe == BRIDGE:
        fields += ["--encoder_name_or_path", options.encoder]
        if "--decoder_name_or_path" not in changed:
            fields += ["--decoder_name_or_path", options.decoder]
    return train(folder, recipe, [*fields, *(QUICK if options.quick else ())])


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder", default="sentence-transformers/all-MiniLM-L6-v2", help="a folder or a Hub id")
    parser.add_argument("--decoder", default="runs/gpt-de", help="a folder or a Hub id")
    parser.add_argument("--pairs", type=int, default=2900, help="how many of the 29,000 are trained on")
    parser.add_argument("--epochs", type=int, default=10, help="of the bridges")
    parser.add_argument("--scratch-epochs", type=int, default=30, help="of the network from scratch")
    parser.add_argument("--variants", nargs="+", choices=list(VARIANTS), default=list(VARIANTS), metavar="VARIANT")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--runs", type=Path, default=Path("runs/warm-starts"), help="where the runs are kept")
    add_page_options(parser, "warm_starts")
    options = parse_options(parser, argv, quick=("pairs", "epochs", "scratch_epochs"))
    torch.set_num_threads(1)  # as the runs have, of which the page speaks
    if options.quick:
        options.pairs, options.epochs, options.scratch_epochs = 64, 1, 1
    rows, figure, axes = [], *plt.subplots(figsize=(7, 5.5), layout="constrained")
    for name in options.variants:
        finished = run(name, options)
        evaluations = finished.evaluations("eval_sacrebleu")
        minutes = [entry["training_cpu_seconds"] / 60 for entry in evaluations]
        scores = finished.metrics["sacrebleu"], finished.metrics["chrf"], minutes[-1]
        rows.append([name, *(f"{score:.1f}" for score in scores)])
        axes.plot(minutes, [entry["eval_sacrebleu"] for entry in evaluations], marker=".", label=name)
    axes.set(
        xlabel="CPU minutes of training",
        ylabel=f"sacreBLEU, greedy, the first {VALIDATION} of validation",
    )
    axes.set_title(f"{options.pairs:,} pairs of Multi30k")
    figure.legend(loc="outside lower center", ncols=2)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    plt.savefig(options.output.with_suffix(".png"), dpi=150)
    heading = f"# Warm starts with {options.pairs:,} pairs\n\n{machine()}\n\n"
    publish(heading + table(["", "sacreBLEU", "chrF", "CPU minutes of training"], rows), options.output)


if __name__ == "__main__":
    main()
