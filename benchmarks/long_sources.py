"""How time grows with the source's length where masks are local: twice the source should cost twice as much.

    python -m benchmarks.long_sources --lengths 256 512 1024 2048 4096 8192
    python -m benchmarks.long_sources --encoder-layer --flex
    python -m benchmarks.long_sources --documents --mask "window(256) | prefix(16)" --lengths 2048 8192 32768

A training step, forward and backward, of the 8M model of benchmarks/baselines.py: one source, a fixed number of
targets, `window(64)` in encoder and cross-attention, bf16. With `--encoder-layer` one narrow encoder layer alone,
float32: blocks against a mask of all pairs; FlexAttention is timed forward only, since it has no backward on CPU.
Medians of interleaved repeats, with the growth per doubling.

With `--documents` that model beside LED and LongT5, with and without gradient checkpointing, in processes of their own
that take turns: tokens a second, and how far the peak of memory rises above what the process had before. LED has the
window, and global attention for the first tokens where the mask has a prefix; LongT5 has the window alone. Both read
the whole source in cross-attention. Where a step needs more memory than there is, the row says `none`.
"""

import argparse
import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import product
from typing import Any

import torch
from torch import nn

from benchmarks.baselines import SIZES, build
from benchmarks.harness import (
    add_run_options,
    clock,
    growth_table,
    in_own_processes,
    interleave,
    machine,
    medians,
    parse_options,
    peak,
    publish,
    refuse_idle,
    seconds,
    start_peak,
    table,
)
from crossmask import CrossMaskConfig, CrossMaskForConditionalGeneration
from crossmask.masks.rules import parse

Run = Callable[[int], None]
DOCUMENTS = ("crossmask", "LED", "LongT5")  # the families of `--documents`
PRECISIONS = ("bfloat16", "float32")
WARM_UP = 512  # tokens of a first step, which loads kernels


def training_steps(options: argparse.Namespace) -> tuple[dict[str, str], dict[tuple[str, int], Run]]:
    """The whole model under local masks, by length."""
    attention = "blockwise" if options.device == "cpu" else "flex_attention"
    size = replace(SIZES["tiny" if options.quick else "8M"], positions=max(options.lengths))
    masks = {"encoder_mask": options.mask, "cross_mask": options.mask}
    model = build("crossmask", size, 300 if options.quick else 8000, attention, **masks).to(options.device).train()

    def step(source: torch.Tensor, labels: torch.Tensor, turn: int) -> None:
        with torch.autocast(options.device, torch.bfloat16):
            loss = model(input_ids=source, labels=labels, skip_logits=True).loss
        loss.backward()
        model.zero_grad(set_to_none=True)

    def ids(length: int) -> torch.Tensor:
        return torch.randint(4, model.config.vocab_size, (1, length), device=options.device)

    labels = ids(options.targets)
    return {attention: f"{attention}, forward and backward"}, {
        (attention, length): partial(step, ids(length), labels) for length in options.lengths
    }


def encoder_layers(options: argparse.Namespace) -> tuple[dict[str, str], dict[tuple[str, int], Run]]:
    """One encoder layer under each attention implementation, with and without gradients, by length."""
    config = CrossMaskConfig(
        vocab_size=100, hidden_size=128, intermediate_size=256, encoder_layers=1, decoder_layers=1,
        num_attention_heads=4, max_position_embeddings=max(options.lengths), encoder_mask=options.mask, dropout=0.0,
    )  # fmt: skip
    encoder: nn.Module = CrossMaskForConditionalGeneration(config).model.encoder.to(options.device)

    def step(source: torch.Tensor, name: str, training: bool, turn: int) -> None:
        encoder.config._attn_implementation = name
        with torch.set_grad_enabled(training):
            output = encoder(source).last_hidden_state
            if training:
                output.square().mean().backward()

    sources = {length: torch.randint(4, 90, (1, length), device=options.device) for length in options.lengths}
    subjects = [(name, training) for name in ("blockwise", "sdpa") for training in (False, True)]
    subjects += [("flex_attention", False)] if options.flex else []
    titles = {f"{name}, forward{' and backward' * training}": (name, training) for name, training in subjects}
    return {title: title for title in titles}, {
        (title, length): partial(step, sources[length], *subject)
        for title, subject in titles.items()
        for length in options.lengths
    }


def measure(
    family: str, precision: str, checkpointing: str, length: int, options: argparse.Namespace
) -> tuple[int, float]:
    """How many bytes the peak rises in a training step of one document, and the seconds that it takes."""
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    rules = {rule.name: rule for rule in parse(options.mask).rules()}
    fields: dict[str, Any] = {
        "crossmask": {"encoder_mask": options.mask, "cross_mask": options.mask, "dropout": options.dropout},
        # LED counts both sides of a window together.
        "LED": {"attention_window": 2 * rules["window"].left, "dropout": options.dropout},
        "LongT5": {"local_radius": rules["window"].left, "dropout_rate": options.dropout},
    }[family]
    attention = ("blockwise" if options.device == "cpu" else "flex_attention") if family == "crossmask" else None
    size, vocabulary = SIZES["tiny" if options.quick else "8M"], 300 if options.quick else 8000
    model = build(family, replace(size, positions=length), vocabulary, attention, **fields)
    model.to(options.device).train()
    if checkpointing == "yes":
        model.gradient_checkpointing_enable({"use_reentrant": False})

    def step(length: int) -> None:
        source = torch.randint(4, vocabulary, (1, length), device=options.device)
        labels = torch.randint(4, vocabulary, (1, options.targets), device=options.device)
        extra: dict[str, Any] = {"skip_logits": True} if family == "crossmask" else {}
        if family == "LED" and "prefix" in rules:
            extra["global_attention_mask"] = torch.zeros_like(source)
            extra["global_attention_mask"][:, : rules["prefix"].n] = 1
        with torch.autocast(options.device, torch.bfloat16, enabled=precision == "bfloat16"):
            loss = model(input_ids=source, labels=labels, **extra).loss
        loss.backward()

    step(min(length, WARM_UP))
    before = start_peak(options.device)
    elapsed = seconds(partial(step, length), options.device)
    return peak(options.device) - before, elapsed


def documents(options: argparse.Namespace) -> str:
    """The table of `--documents`."""
    subjects = list(product(options.families, options.precisions, options.checkpointing, options.lengths))
    calls = [(*subject, options) for subject in subjects] * options.repeats
    results = in_own_processes(measure, calls, killed=(math.inf, math.inf))
    rows = []
    for index, (*words, length) in enumerate(subjects):
        amounts, times = zip(*results[index :: len(subjects)], strict=True)
        speed, amount = length / statistics.median(times), statistics.median(amounts) / 2**20
        fits = [f"{speed:,.0f}", f"{amount:,.0f}"]
        rows.append([*words, f"{length:,}", *(fits if amount < math.inf else ["none", "too many"])])
    header = ["model", "precision", "gradient checkpointing", "source tokens", "source tokens/s"]
    return table([*header, "peak of a step, MiB"], rows, words=3)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lengths", type=int, nargs="+", default=[256, 512, 1024, 2048, 4096, 8192])
    parser.add_argument("--targets", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--mask", default="window(64)")
    modes = parser.add_mutually_exclusive_group()
    modes.add_argument("--encoder-layer", action="store_true", help="blocks against a mask of all pairs")
    modes.add_argument("--documents", action="store_true", help="beside LED and LongT5, with the peak of memory")
    parser.add_argument("--families", nargs="+", default=DOCUMENTS, choices=DOCUMENTS, help="of --documents")
    parser.add_argument(
        "--checkpointing", nargs="+", default=["no", "yes"], choices=["no", "yes"], help="of --documents"
    )
    parser.add_argument("--precisions", nargs="+", default=PRECISIONS, choices=PRECISIONS, help="of --documents")
    parser.add_argument("--dropout", type=float, default=0.0, help="of --documents")
    parser.add_argument(
        "--flex", action="store_true", help="of --encoder-layer: FlexAttention too; its kernel takes minutes to build"
    )
    add_run_options(parser, "long_sources", threads=1)
    options = parse_options(parser, argv, quick=("lengths", "targets", "repeats", "precisions"))
    if options.encoder_layer:
        refuse_idle(parser, options, ["targets"], "with --encoder-layer, which decodes nothing")
    else:
        refuse_idle(parser, options, ["flex"], "without --encoder-layer")
    if not options.documents:
        refuse_idle(parser, options, ["families", "checkpointing", "precisions", "dropout"], "without --documents")
    if options.quick:
        options.lengths, options.targets, options.repeats = [128, 256], 16, 1
        options.precisions = ["bfloat16"]
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    if options.documents:
        if not any(rule.name == "window" for rule in parse(options.mask).rules()):
            parser.error(f"--mask must have a window(n), which LED and LongT5 are given, got {options.mask}")
        page = (
            f"# Long documents under `{options.mask}`\n\n{machine(options.device)}\n\nOne source, {options.targets} "
            f"targets, dropout {options.dropout:g}. Medians of {options.repeats} interleaved repeats, "
            f"{clock(options.device)[1]}.\n\n"
            f"{documents(options)}"
        )
        publish(page, options.output)
        return
    titles, runs = (encoder_layers if options.encoder_layer else training_steps)(options)
    times = interleave(runs, options.repeats, device=options.device)
    model = "one encoder layer, float32" if options.encoder_layer else f"{options.targets} targets, bf16"
    page = (
        f"# Long sources under `{options.mask}`\n\n{machine(options.device)}\n\n"
        f"One source, {model}. Medians of {options.repeats} interleaved repeats, {clock(options.device)[1]}.\n\n"
        f"{growth_table('source tokens', options.lengths, titles, medians(times))}"
    )
    publish(page, options.output)


if __name__ == "__main__":
    main()
