"""What masks cost on models of Transformers, and what packed rows save BART's own training.

    python -m benchmarks.attached --threads 1 --repeats 10

BART and T5 of 8M parameters with random weights: untouched, and attached with several masks. The models take turns in
one process; ratios are of medians, to the untouched model. Sources and targets have 20 tokens. BART is trained on
batches by Transformers' default collator in corpus order, on length-grouped ones, and attached on packed rows.
"""

import argparse
from collections.abc import Callable, Sequence
from copy import deepcopy
from functools import partial
from itertools import islice
from statistics import median

import torch
import transformers
from transformers import PreTrainedModel

import crossmask
from benchmarks import corpus as corpora
from benchmarks.baselines import SIZES, Size, build
from benchmarks.batching import BATCHINGS, ROW, Batch, collate, groups
from benchmarks.harness import add_run_options, clock, interleave, machine, medians, parse_options, publish, table
from benchmarks.variants import make_step

FAMILIES = ("BART", "T5")
MASKS: dict[str, dict[str, str]] = {
    "`full()`": {},
    "`wait_k(3)`, encoder `causal()`": {"encoder_mask": "causal()", "cross_mask": "wait_k(3)"},
    "`window(64)`": {"cross_mask": "window(64)"},
    "`heads({0: window(4), 'rest': full()})`": {"cross_mask": "heads({0: window(4), 'rest': full()})"},
}
UNTOUCHED = "untouched"
ATTENTION = ("sdpa", "eager")  # Transformers' own choice, and what is faster on CPU in half precision
LENGTH, TOKENS, WARM_UP = 20, 2048, 1
Run = Callable[[int], object]


def variants(family: str, size: Size, vocab_size: int, device: str) -> dict[str, PreTrainedModel]:
    """An untouched model, and copies of it under masks."""
    model = build(family, size, vocab_size).to(device)
    attached = {name: crossmask.attach(deepcopy(model), **given) for name, given in MASKS.items()}
    return {UNTOUCHED: model, **attached}


def training(models: dict[str, PreTrainedModel], ids: torch.Tensor, device: str) -> dict[str, Run]:
    """A training step of each model on the same batch."""
    batch = Batch({"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids.flip(1)}, [])
    return {name: partial(_ignoring_turn, make_step(model, device), batch) for name, model in models.items()}


def generation(models: dict[str, PreTrainedModel], ids: torch.Tensor, tokens: int) -> dict[str, Run]:
    """Greedy generation by each model of the same number of tokens."""
    runs: dict[str, Run] = {}
    for name, model in models.items():
        generate = partial(
            model.eval().generate, ids, attention_mask=torch.ones_like(ids), max_new_tokens=tokens, do_sample=False
        )
        model.generation_config.eos_token_id = model.config.vocab_size  # none stops before the last token
        runs[name] = partial(_ignoring_turn, generate)
    return runs


def _ignoring_turn(run: Callable[..., object], *args: object) -> None:
    """Run with all arguments but the last, the number of the turn."""
    run(*args[:-1])


def batching_speeds(size: Size, repeats: int, quick: bool, device: str) -> dict[tuple[str, str], float]:
    """Real tokens a second of BART's training, by how batches are made and by the attention implementation."""
    corpus = corpora.draw(300, vocab_size=300) if quick else corpora.load(None)
    tokens, row, count = (256, 64, repeats + WARM_UP) if quick else (TOKENS, ROW, repeats + WARM_UP)
    model = build("BART", size, corpus.vocab_size)
    batches: dict[tuple[str, str], list[Batch]] = {}
    runs: dict[tuple[str, str], Run] = {}
    for batching in BATCHINGS:
        made = [
            collate(group, corpus, "BART", batching, row).to(device)
            for group in islice(groups(corpus, batching, tokens, row), count)
        ]
        for attention in ATTENTION:
            trained = deepcopy(model)
            trained.set_attn_implementation(attention)
            if batching == "packed rows":
                crossmask.attach(trained)
            batches[batching, attention] = made
            runs[batching, attention] = partial(_on_batch, make_step(trained, device), made)
    times = interleave(runs, repeats, WARM_UP, device)
    return {
        key: median(batch.real / t for batch, t in zip(made[WARM_UP:], times[key], strict=True))
        for key, made in batches.items()
    }


def _on_batch(step: Callable[[Batch], None], batches: Sequence[Batch], turn: int) -> None:
    step(batches[turn])


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[1, 64])
    add_run_options(parser, "attached", threads=1)
    options = parse_options(parser, argv, quick=("repeats", "batch_sizes"))
    torch.set_num_threads(options.threads)
    transformers.logging.set_verbosity_error()
    torch.manual_seed(0)
    size, vocab_size, tokens, repeats, batch_sizes = SIZES["8M"], 8000, LENGTH, options.repeats, options.batch_sizes
    if options.quick:
        size, vocab_size, tokens, repeats, batch_sizes = SIZES["tiny"], 300, 4, 1, [1, 2]
    columns: dict[str, dict[str, float]] = {}
    for family in FAMILIES:
        models = variants(family, size, vocab_size, options.device)
        for batch_size in batch_sizes:
            ids = torch.randint(3, vocab_size, (batch_size, LENGTH), device=options.device)
            generating = generation(models, ids, tokens)
            columns[f"{family}, generation, batch {batch_size}"] = medians(
                interleave(generating, repeats, WARM_UP, options.device)
            )
            steps = training(models, ids, options.device)
            columns[f"{family}, training, batch {batch_size}"] = medians(
                interleave(steps, repeats, WARM_UP, options.device)
            )
    rows = [
        [name, *(f"{times[name] / times[UNTOUCHED]:.2f}" for times in columns.values())]
        for name in (UNTOUCHED, *MASKS)
    ]
    speeds = batching_speeds(size, repeats, options.quick, options.device)
    of_batching = [
        [
            *key,
            f"{speed:,.0f}",
            f"{speed / speeds['random batches', ATTENTION[0]]:.2f}",
            f"{speed / speeds['length-grouped', key[1]]:.2f}",
        ]
        for key, speed in speeds.items()
    ]
    header = ["training of BART", "attention", "real tokens/s", "to random batches, sdpa", "to length-grouped"]
    page = (
        f"# Masks on models of Transformers\n\n{machine(options.device)}\n\nTime relative to the untouched model. "
        f"Medians of {repeats} interleaved repeats, {clock(options.device)[1]}.\n\n{table(['', *columns], rows)}\n\n"
        f"{table(header, of_batching, words=2)}"
    )
    publish(page, options.output)


if __name__ == "__main__":
    main()
