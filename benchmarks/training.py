"""Training speed: real tokens a second on the embedded corpus, against a BART of the same size.

Real tokens are those of sources and targets; padding never counts. The sides take turns, step by step, in one process,
so that whatever else the machine does falls on all of them alike; medians are over steps of fresh batches.
"""

import argparse
import platform
import statistics
import time
from collections.abc import Callable, Iterator

import torch
from datasets import Dataset, disable_progress_bars
from transformers import BartConfig, BartForConditionalGeneration, PreTrainedModel

from crossmask import CrossMaskConfig, CrossMaskForConditionalGeneration
from crossmask.data.buckets import BucketSampler
from crossmask.data.cldr import cldr_split, language_tag
from crossmask.data.collator import Seq2SeqCollator
from crossmask.data.features import tokenize
from crossmask.data.packing import PackedCollator, PackedDataset
from crossmask.data.tokenizer import train_tokenizer

Batch = dict[str, torch.Tensor]
TOKENS = 4096  # real tokens a step, about


def corpus(size: int) -> tuple[Dataset, int]:
    """Token ids of the embedded corpus, and the size of its vocabulary."""
    records = cldr_split("train", size, seed=1)
    texts = [*records["source"], *records["target"]]
    tags = [language_tag(language) for language in ("de", "fr", "zh")]
    tokenizer = train_tokenizer(texts, vocab_size=8000, split_digits=True, special_tokens=tags)
    disable_progress_bars()
    return tokenize(records, tokenizer, max_source_length=128, max_target_length=128), len(tokenizer)


def bart(vocab_size: int) -> PreTrainedModel:
    config = BartConfig(
        vocab_size=vocab_size, d_model=256, encoder_layers=3, decoder_layers=3, encoder_attention_heads=4,
        decoder_attention_heads=4, encoder_ffn_dim=1024, decoder_ffn_dim=1024, max_position_embeddings=128,
        pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=1, forced_eos_token_id=None,
    )  # fmt: skip
    return BartForConditionalGeneration(config)


def crossmask(vocab_size: int) -> PreTrainedModel:
    config = CrossMaskConfig(
        vocab_size=vocab_size, hidden_size=256, intermediate_size=700, encoder_layers=3, decoder_layers=3,
        num_attention_heads=4, max_position_embeddings=256,
    )  # fmt: skip
    return CrossMaskForConditionalGeneration._from_config(config, attn_implementation="eager")


def padded(features: Dataset) -> Iterator[Batch]:
    """Random examples, padded to the longest, as Transformers' default collator has them."""
    collate = Seq2SeqCollator(pad_token_id=0, decoder_start_token_id=1)
    order = torch.randperm(len(features), generator=torch.Generator().manual_seed(0)).tolist()
    lengths = [len(a) + len(b) for a, b in zip(features["input_ids"], features["labels"], strict=True)]
    batch: list[int] = []
    for index in order:
        batch.append(index)
        if sum(lengths[i] for i in batch) >= TOKENS:
            yield collate([features[i] for i in batch])
            batch = []


def bucketed(features: Dataset) -> Iterator[Batch]:
    collate = Seq2SeqCollator(pad_token_id=0, decoder_start_token_id=1)
    for batch in BucketSampler(features, max_tokens=TOKENS):
        yield collate([features[i] for i in batch])


def packed(features: Dataset) -> Iterator[Batch]:
    rows = {"source_length": 128, "target_length": 128}
    data = PackedDataset(features, **rows)
    collate = PackedCollator(pad_token_id=0, decoder_start_token_id=1, **rows)
    for start in range(0, len(data) - 16, 16):
        yield collate([data[i] for i in range(start, start + 16)])


def real_tokens(batch: Batch) -> int:
    sources = batch["attention_mask"] if "attention_mask" in batch else batch["segment_ids"]
    return int((sources > 0).sum() + (batch["labels"] != -100).sum())


def stepper(model: PreTrainedModel, **options) -> Callable[[Batch], None]:
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    model.train()

    def step(batch: Batch) -> None:
        with torch.autocast("cpu", torch.bfloat16):
            loss = model(**batch, **options).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=12, help="timed steps a side")
    parser.add_argument("--size", type=int, default=9000, help="training pairs to draw batches from")
    options = parser.parse_args(argv)
    features, vocab_size = corpus(options.size)
    torch.manual_seed(0)
    models = {"BART": bart(vocab_size), "crossmask": crossmask(vocab_size)}
    steps = {"BART": stepper(models["BART"]), "crossmask": stepper(models["crossmask"], skip_logits=True)}
    sides = {
        "BART, random batches": ("BART", padded(features)),
        "BART, length buckets": ("BART", bucketed(features)),
        "crossmask, random batches": ("crossmask", padded(features)),
        "crossmask, length buckets": ("crossmask", bucketed(features)),
        "crossmask, packed rows": ("crossmask", packed(features)),
    }
    speeds: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(options.steps + 2):
        for name, (model, batches) in sides.items():
            batch = next(batches)
            start = time.perf_counter()
            steps[model](batch)
            if turn >= 2:  # the first two warm up
                speeds[name].append(real_tokens(batch) / (time.perf_counter() - start))
    medians = {name: statistics.median(values) for name, values in speeds.items()}
    base = medians["BART, random batches"]
    sizes = ", ".join(f"{name} {model.num_parameters():,} parameters" for name, model in models.items())
    print(f"\n{sizes}; bf16; {torch.get_num_threads()} threads of {platform.machine()}; torch {torch.__version__}\n")
    print("| side | real tokens/s | ratio |\n|---|---:|---:|")
    for name, speed in medians.items():
        print(f"| {name} | {speed:,.0f} | {speed / base:.2f} |")


if __name__ == "__main__":
    main()
