"""What a bridge costs: blocks between a decoder's layers, against the decoder alone.

    python -m benchmarks.bridge --threads 1

A causal language model of Llama's architecture, with a block before every fourth, every second, and every layer. The
encoder's states are given, as `cache_encoder` does, so that the blocks alone are measured. The last rows have an
encoder of BERT's architecture too, frozen or trained. Weights are random.

- Training: forward and backward of one batch. The optimizer, whose time does not depend on tokens, is left out.
- Generation: greedy, with a cache, a fixed number of tokens.
- Memory: how far the peak of a training step rises above what the process had before, in a process of its own.

Times are medians of interleaved repeats; what counts is their ratio to the decoder alone.
"""

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any, Literal

import torch
import transformers
from transformers import AutoModel, AutoModelForCausalLM, BertConfig, LlamaConfig, PreTrainedModel

from benchmarks.baselines import SPECIAL
from benchmarks.harness import (
    add_run_options,
    clock,
    in_own_processes,
    interleave,
    machine,
    medians,
    parse_options,
    peak,
    publish,
    start_peak,
    table,
)
from crossmask import CrossMaskBridgeForConditionalGeneration

ALONE = "decoder alone"


@dataclass(frozen=True)
class Sizes:
    width: int
    layers: int  # of the decoder
    encoder_layers: int
    vocabulary: int
    batch: int  # of training
    length: int  # of sources and targets in training
    generated: int  # tokens


FULL = Sizes(width=256, layers=8, encoder_layers=3, vocabulary=8000, batch=16, length=32, generated=24)
QUICK = Sizes(width=32, layers=4, encoder_layers=1, vocabulary=300, batch=2, length=8, generated=3)
BATCHES = (1, 16)  # of generation


@dataclass(frozen=True)
class Variant:
    """A decoder alone (no `bridge_layers`), or a bridge, with its encoder or with states that are given."""

    name: str
    bridge_layers: int | None = None
    encoder: Literal["no", "frozen", "trained"] = "no"


def make_variants(sizes: Sizes) -> list[Variant]:
    every = {4: "every fourth layer", 2: "every second layer", 1: "every layer"}
    bridges = [Variant(f"blocks before {layers}", n) for n, layers in every.items()]
    whole = [Variant(f"{bridges[-1].name}, {kind} encoder", 1, kind) for kind in ("frozen", "trained")]
    return [Variant(ALONE), *bridges, *whole]


def build(variant: Variant, sizes: Sizes) -> PreTrainedModel:
    common = {
        "vocab_size": sizes.vocabulary,
        "hidden_size": sizes.width,
        "num_attention_heads": sizes.width // 16 if sizes.width < 64 else sizes.width // 64,
        "max_position_embeddings": 4 * sizes.length,
        "pad_token_id": SPECIAL["pad_token_id"],
    }
    special = {name: SPECIAL[name] for name in ("bos_token_id", "eos_token_id")}
    wide = {"intermediate_size": 4 * sizes.width}
    decoder = AutoModelForCausalLM.from_config(
        LlamaConfig(
            **common, **special, intermediate_size=11 * sizes.width // 4, num_hidden_layers=sizes.layers,
            tie_word_embeddings=True,
        )
    )  # fmt: skip
    if variant.bridge_layers is None:
        return decoder
    encoder = AutoModel.from_config(BertConfig(**common, **wide, num_hidden_layers=sizes.encoder_layers))
    encoder.requires_grad_(variant.encoder == "trained")
    return CrossMaskBridgeForConditionalGeneration.from_encoder_decoder_pretrained(
        encoder, decoder, bridge_layers=variant.bridge_layers
    )


def parameters_of(model: PreTrainedModel, variant: Variant) -> int:
    """The number of those that are measured."""
    names = ("encoder.",) if variant.encoder == "no" else ()
    return sum(parameter.numel() for name, parameter in model.named_parameters() if not name.startswith(names))


def source_of(variant: Variant, sizes: Sizes, batch: int, device: str) -> dict[str, Any]:
    """What a bridge reads: token ids, or the encoder's states."""
    if variant.bridge_layers is None:
        return {}
    if variant.encoder != "no":
        return {"input_ids": torch.randint(4, sizes.vocabulary, (batch, sizes.length), device=device)}
    states = torch.randn(batch, sizes.length, sizes.width, device=device)
    return {"encoder_outputs": transformers.modeling_outputs.BaseModelOutput(states)}


def training_step(model: PreTrainedModel, source: Mapping[str, Any], target: torch.Tensor, turn: int = 0) -> None:
    given = dict(source, decoder_input_ids=target) if source else {"input_ids": target}
    model(**given, labels=target, use_cache=False).loss.backward()
    model.zero_grad(set_to_none=True)


@torch.no_grad()
def generate(model: Any, source: Mapping[str, Any], start: torch.Tensor, tokens: int, turn: int = 0) -> None:
    given = dict(source, decoder_input_ids=start) if source else {"input_ids": start}
    model.generate(**given, do_sample=False, min_new_tokens=tokens, max_new_tokens=tokens)


def make_runs(variant: Variant, sizes: Sizes, device: str) -> dict[str, Callable[[int], None]]:
    """What is timed, by the title of its column."""
    trained = build(variant, sizes).to(device).train()
    generating = build(variant, sizes).to(device).eval()
    target = torch.randint(4, sizes.vocabulary, (sizes.batch, sizes.length), device=device)
    runs: dict[str, Callable[[int], None]] = {
        "training step": partial(training_step, trained, source_of(variant, sizes, sizes.batch, device), target)
    }
    for batch in BATCHES:
        source = source_of(variant, sizes, batch, device)
        start = torch.full((batch, 1), SPECIAL["decoder_start_token_id"], device=device)
        runs[f"generation, batch {batch}"] = partial(generate, generating, source, start, sizes.generated)
    return runs


def step_memory(variant: Variant, checkpointing: bool, sizes: Sizes, device: str, threads: int) -> int:
    """How many bytes the peak of one training step is above what was there before."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    model = build(variant, sizes).to(device).train()
    if checkpointing:
        model.gradient_checkpointing_enable()

    def inputs(batch: int) -> tuple[dict[str, Any], torch.Tensor]:
        target = torch.randint(4, sizes.vocabulary, (batch, sizes.length), device=device)
        return source_of(variant, sizes, batch, device), target

    training_step(model, *inputs(1))  # loads kernels
    given = inputs(4 * sizes.batch)
    before = start_peak(device)
    training_step(model, *given)
    return peak(device) - before


def memory_table(variants: Sequence[Variant], sizes: Sizes, device: str, threads: int) -> str:
    subjects = list(product(variants, (False, True)))
    calls = [(*subject, sizes, device, threads) for subject in subjects]
    found = dict(zip(subjects, in_own_processes(step_memory, calls), strict=True))
    rows = []
    for variant in variants:
        cells = []
        for checkpointing in (False, True):
            amount, alone = found[variant, checkpointing], found[variants[0], checkpointing]
            cells.append(f"{amount / 2**20:,.0f} ({amount / max(alone, 1):.2f})")
        rows.append([variant.name, *cells])
    return table(["a training step's memory, MiB (of the decoder's)", "plain", "gradient checkpointing"], rows)


def time_table(variants: Sequence[Variant], sizes: Sizes, device: str, repeats: int) -> str:
    runs = {
        (variant.name, title): run for variant in variants for title, run in make_runs(variant, sizes, device).items()
    }
    times = medians(interleave(runs, repeats, device=device))
    titles = list(dict.fromkeys(title for _, title in runs))
    rows = []
    for variant in variants:
        cells = []
        for title in titles:
            seconds = times[variant.name, title]
            cells.append(f"{seconds * 1e3:,.0f} ms ({seconds / times[ALONE, title]:.2f})")
        parameters = parameters_of(build(variant, sizes), variant)
        rows.append([variant.name, f"{parameters:,}", *cells])
    return table(["time (of the decoder's)", "parameters", *titles], rows)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7)
    add_run_options(parser, "bridge", threads=1)
    options = parse_options(parser, argv, quick=("repeats",))
    sizes, repeats = (QUICK, 1) if options.quick else (FULL, options.repeats)
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    transformers.logging.set_verbosity_error()
    variants = make_variants(sizes)
    times = time_table(variants, sizes, options.device, repeats)
    page = (
        f"# Bridges\n\n{machine(options.device)}\n\nA decoder of {sizes.layers} layers of {sizes.width}, vocabulary "
        f"{sizes.vocabulary:,}, float32. A training step has {sizes.batch} x {sizes.length} source and target tokens, "
        f"that whose memory is measured {4 * sizes.batch} x {sizes.length}; {sizes.generated} tokens are generated "
        f"from {sizes.length} source tokens. Medians of {repeats} interleaved repeats, {clock(options.device)[1]}.\n\n"
        f"{times}\n\n{memory_table(variants, sizes, options.device, options.threads)}"
    )
    publish(page, options.output)


if __name__ == "__main__":
    main()
