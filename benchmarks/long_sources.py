"""How the encoder's time grows with the source's length under `window(64)`: blocks against a mask of all pairs.

    python benchmarks/long_sources.py --lengths 1024 2048 4096 8192 --repeats 5 --flex

Prints a Markdown table: medians of process CPU time over interleaved repeats, and the growth per doubling. One thread.
FlexAttention is timed forward only, since it has no backward on CPU; its kernel is built before the clock starts.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

from crossmask import CrossMaskConfig, CrossMaskForConditionalGeneration


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lengths", type=int, nargs="+", default=[1024, 2048, 4096, 8192])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--mask", default="window(64)")
    parser.add_argument("--hidden-size", type=int, default=128)
    parser.add_argument(
        "--flex", action="store_true", help="time FlexAttention too; its kernel takes minutes to build"
    )
    options = parser.parse_args()
    torch.set_num_threads(1)
    encoder = build(options)
    subjects = [(name, training) for name in ("blockwise", "sdpa") for training in (False, True)]
    subjects += [("flex_attention", False)] if options.flex else []
    columns = {(subject, length): [] for subject in subjects for length in options.lengths}
    sources = {length: torch.randint(4, 90, (1, length)) for length in options.lengths}
    for (subject, length), _ in columns.items():
        if length <= 2048 or subject[0] == "flex_attention":
            seconds(lambda s=subject, n=length: step(encoder, sources[n], *s))
    for _ in range(options.repeats):
        for (subject, length), times in columns.items():
            times.append(seconds(lambda s=subject, n=length: step(encoder, sources[n], *s)))
    medians = {key: statistics.median(times) for key, times in columns.items()}
    print(table(medians, subjects, options.lengths))


def build(options: argparse.Namespace) -> torch.nn.Module:
    torch.manual_seed(0)
    config = CrossMaskConfig(
        vocab_size=100,
        hidden_size=options.hidden_size,
        intermediate_size=2 * options.hidden_size,
        encoder_layers=1,
        decoder_layers=1,
        num_attention_heads=4,
        max_position_embeddings=max(options.lengths),
        encoder_mask=options.mask,
        dropout=0.0,
    )
    return CrossMaskForConditionalGeneration(config).model.encoder


def step(encoder: torch.nn.Module, source: torch.Tensor, name: str, training: bool) -> None:
    """Encode, and go backward in training."""
    encoder.config._attn_implementation = name
    with torch.set_grad_enabled(training):
        output = encoder(source).last_hidden_state
        if training:
            output.square().mean().backward()


def seconds(run: Callable[[], None]) -> float:
    start = time.process_time()
    run()
    return time.process_time() - start


def table(medians: dict, subjects: list[tuple[str, bool]], lengths: list[int]) -> str:
    titles = [f"{name}, forward and backward" if training else f"{name}, forward" for name, training in subjects]
    lines = [f"| tokens | {' | '.join(titles)} |", "|---:" * (len(titles) + 1) + "|"]
    for index, length in enumerate(lengths):
        cells = []
        for subject in subjects:
            now = medians[subject, length]
            growth = f" (x{now / medians[subject, lengths[index - 1]]:.1f})" if index else ""
            cells.append(f"{now * 1e3:.0f} ms{growth}")
        lines.append(f"| {length} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
