"""Training speed against BART, Marian and T5Gemma of the same size, and against what the machine can multiply.

    python -m benchmarks.training --data multi30k --sizes 8M 50M --steps 12

All variants train on the same shuffled examples, with the same vocabulary, about the same number of real tokens a
step, and the same precision, optimizer, clipping and dropout. They take turns, step by step, in one process, so that
other load on the machine affects all of them alike, and so does the matrix product that utilisation is measured
against. Medians are over steps of fresh batches, which are made before the clock starts. Peak memory is measured in a
process for each variant. The page goes to standard output and to a file.
"""

import argparse
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path

import torch
import transformers

from benchmarks import corpus as corpora
from benchmarks.baselines import DROPOUT, FAMILIES, SIZES, Size, build, check_sizes
from benchmarks.batching import ROW, Batch, collate, groups
from benchmarks.corpus import Corpus
from benchmarks.flops import products, step_flops
from benchmarks.harness import (
    add_run_options,
    clock,
    in_own_processes,
    interleave,
    machine,
    medians,
    parse_options,
    publish,
    table,
)
from benchmarks.variants import VARIANTS, Variant, make_step, step_memory

WARM_UP = 2  # steps
PUBLISHED = ("8M", "50M")  # of benchmarks/baselines.py
PRODUCTS = {"cpu": (512, 1024, 2048), "cuda": (2048, 4096, 8192)}  # of square matrices
HEADER = [
    *("variant", "real tokens/s", "of BART, random batches", "of BART, length-grouped", "ms a step"),
    *("real tokens a step", "padding", "utilisation", "peak memory, MiB", "of it a step's own"),
]


@dataclass(frozen=True)
class Plan:
    """What is measured of every variant."""

    steps: int
    tokens: int
    row: int
    device: str
    products: tuple[int, ...]


@dataclass(frozen=True)
class Measured:
    """Medians over the steps of a variant."""

    speed: float  # real tokens a second
    step: float  # seconds
    real: float  # tokens a step
    padding: float
    flops: float  # a second
    memory: tuple[int, int] = (0, 0)


def plan_batches(corpus: Corpus, plan: Plan, count: int) -> dict[Variant, list[list]]:
    """The examples of the first `count` batches of every variant.

    Raises:
        ValueError: the corpus is too small for them.
    """
    by_batching = {}
    for batching in dict.fromkeys(variant.batching for variant in VARIANTS):
        planned = list(islice(groups(corpus, batching, plan.tokens, plan.row), count))
        if len(planned) < count:
            raise ValueError(
                f"{corpus.name} must give {count} {batching} of {plan.tokens} tokens, got {len(planned)}; take fewer "
                "--steps"
            )
        by_batching[batching] = planned
    return {variant: by_batching[variant.batching] for variant in VARIANTS}


def measure_memory(
    corpus: Corpus, size: Size, planned: dict[Variant, list], plan: Plan
) -> dict[Variant, tuple[int, int]]:
    """Peaks of every variant over its first three batches."""
    without_features, threads = replace(corpus, features=[]), torch.get_num_threads()
    calls = [
        (variant, size, without_features, batches[:3], plan.row, plan.device, threads)
        for variant, batches in planned.items()
    ]
    return dict(zip(planned, in_own_processes(step_memory, calls), strict=True))


def measure_speed(
    corpus: Corpus, size: Size, planned: dict[Variant, list], plan: Plan
) -> tuple[dict[Variant, Measured], dict[int, float], dict[str, int]]:
    """Every variant's medians, the machine's operations a second by size of product, and the models' parameters.

    Raises:
        ValueError: models of unequal size.
    """
    torch.manual_seed(0)
    models = {
        key: build(key[0], size, corpus.vocab_size, key[1])
        for key in dict.fromkeys((variant.family, variant.attention_on(plan.device)) for variant in planned)
    }
    counts = {family: model.num_parameters() for (family, _), model in models.items()}
    check_sizes({family: counts[family] for family in FAMILIES})
    steps = {key: make_step(model, plan.device) for key, model in models.items()}
    batches: dict[Variant, list[Batch]] = {
        variant: [
            collate(group, corpus, variant.family, variant.batching, plan.row).to(plan.device) for group in groups
        ]
        for variant, groups in planned.items()
    }

    def step(variant: Variant, turn: int) -> None:
        steps[variant.family, variant.attention_on(plan.device)](batches[variant][turn])

    runs = {variant: partial(step, variant) for variant in batches}
    runs |= products(plan.products, plan.device)
    times = interleave(runs, plan.steps, WARM_UP, plan.device)
    measured = {}
    for variant in batches:
        model, timed = models[variant.family, variant.attention_on(plan.device)], batches[variant][WARM_UP:]
        pairs = list(zip(timed, times[variant], strict=True))
        measured[variant] = Measured(
            speed=statistics.median(batch.real / seconds for batch, seconds in pairs),
            step=statistics.median(times[variant]),
            real=statistics.mean(batch.real for batch in timed),
            padding=statistics.mean(batch.padding for batch in timed),
            flops=statistics.median(step_flops(model, batch.lengths) / seconds for batch, seconds in pairs),
        )
    median_times = medians(times)
    return measured, {width: 2 * width**3 / median_times[width] for width in plan.products}, counts


def describe(measured: dict[Variant, Measured], ceilings: dict[int, float], counts: dict[str, int]) -> str:
    """The table of one size, with what its columns are relative to."""
    best = max(ceilings, key=ceilings.get)
    bases = [measured[Variant("BART", batching)].speed for batching in ("random batches", "length-grouped")]
    rows = [
        [
            variant.name, f"{row.speed:,.0f}", *(f"{row.speed / base:.2f}" for base in bases),
            f"{row.step * 1e3:,.0f}", f"{row.real:,.0f}", f"{row.padding:.1%}", f"{row.flops / ceilings[best]:.1%}",
            *(f"{amount / 2**20:,.0f}" for amount in row.memory),
        ]
        for variant, row in measured.items()
    ]  # fmt: skip
    ceiling = f"{ceilings[best] / 1e12:.2f} TFLOP/s in bf16 (products of {best} x {best} matrices, median)"
    sizes = ", ".join(f"{family} {count:,}" for family, count in counts.items())
    return f"Parameters: {sizes}. 100% utilisation: {ceiling}.\n\n{table(HEADER, rows)}"


def conditions(corpus: Corpus, plan: Plan) -> str:
    attention = ", ".join(f"{variant.batching}: {variant.attention_on(plan.device)}" for variant in VARIANTS[-2:])
    return (
        f"Data: {corpus.name}; vocabulary {corpus.vocab_size:,}. bf16 autocast, fused AdamW, gradients clipped to 1, "
        f"dropout {DROPOUT}. Medians of {plan.steps} interleaved steps, {clock(plan.device)[1]}. Packed rows of "
        f"{plan.row} source and {plan.row} target tokens. Attention of crossmask: {attention}; of the others: "
        "Transformers' default (SDPA) where a row does not say otherwise.\n\n"
        "Utilisation: operations that the real tokens need (`step_flops` in benchmarks/flops.py) over those of the "
        "best matrix product of this run. Peak memory: above the imports, in a process of its own."
    )


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help=f"Multi30k's folder; {corpora.MULTI30K} if it is there, else none")
    parser.add_argument("--sizes", nargs="+", default=list(PUBLISHED), choices=PUBLISHED)
    parser.add_argument("--steps", type=int, default=12, help="timed steps of each variant")
    parser.add_argument("--tokens", type=int, default=4096, help="real tokens a step, about")
    parser.add_argument("--row", type=int, default=ROW, help="tokens of a packed row, on either side")
    add_run_options(parser, "training", threads=torch.get_num_threads())
    options = parse_options(parser, argv, quick=("data", "sizes", "steps", "tokens", "row"))
    torch.set_num_threads(options.threads)
    transformers.logging.set_verbosity_error()
    plan = Plan(options.steps, options.tokens, options.row, options.device, PRODUCTS[options.device])
    if options.quick:
        plan = replace(plan, steps=1, tokens=256, row=64, products=(64,))
        sizes, corpus = ["tiny"], corpora.draw(300, vocab_size=300)
    else:
        sizes, corpus = options.sizes, corpora.load(options.data)
    planned = plan_batches(corpus, plan, plan.steps + WARM_UP)
    page = [f"# Training speed\n\n{machine(plan.device)}\n\n{conditions(corpus, plan)}"]
    for size in sizes:
        print(f"{size}: memory, then speed", file=sys.stderr, flush=True)
        memory = measure_memory(corpus, SIZES[size], planned, plan)
        measured, ceilings, counts = measure_speed(corpus, SIZES[size], planned, plan)
        measured = {variant: replace(row, memory=memory[variant]) for variant, row in measured.items()}
        page.append(f"## {size}\n\n{describe(measured, ceilings, counts)}")
    publish("\n\n".join(page), options.output)


if __name__ == "__main__":
    main()
