"""The variants of the training benchmark: which model trains, on which batches, and what one optimizer step is."""

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel

from benchmarks.baselines import Size, build
from benchmarks.batching import Batch, collate
from benchmarks.corpus import Corpus
from benchmarks.harness import peak, start_peak

# What docs/training.md recommends for batches of short examples in half precision.
ATTENTION = {
    "cpu": {"length-grouped": "eager", "packed rows": "blockwise"},
    "cuda": {"length-grouped": "sdpa", "packed rows": "flex_attention"},
}


@dataclass(frozen=True)
class Variant:
    """A model family with a way to make batches; `attn_implementation` replaces Transformers' own choice."""

    family: str
    batching: str
    attn_implementation: str | None = None

    @property
    def name(self) -> str:
        return ", ".join(filter(None, (self.family, self.batching, self.attn_implementation)))

    def attention_on(self, device: str) -> str | None:
        """The attention implementation to build the model with; None leaves it to Transformers."""
        return ATTENTION[device][self.batching] if self.family == "crossmask" else self.attn_implementation


BASELINES = list(itertools.product(("BART", "Marian", "T5Gemma"), ("random batches", "length-grouped")))
VARIANTS = [
    *itertools.starmap(Variant, BASELINES),
    Variant("BART", "length-grouped", "eager"),  # faster on CPU in half precision, for those who know
    Variant("crossmask", "length-grouped"),
    Variant("crossmask", "packed rows"),
]


def make_step(model: PreTrainedModel, device: str) -> Callable[[Batch], None]:
    """One optimizer step as Trainer takes it: bf16 autocast, fused AdamW, gradients clipped to a norm of 1.

    The loss is that of the model's own forward pass; ours leaves the logits out, as its trainer does.
    """
    model.to(device).train()
    parameters = list(model.parameters())
    optimizer = torch.optim.AdamW(parameters, lr=1e-4, fused=True)
    options = {"skip_logits": True} if model.config.model_type == "crossmask" else {}

    def step(batch: Batch) -> None:
        with torch.autocast(device, torch.bfloat16):
            loss = model(**batch.inputs, **options).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def step_memory(
    variant: Variant, size: Size, corpus: Corpus, groups: list, row: int, device: str, threads: int
) -> tuple[int, int]:
    """Peak bytes above the imports of this process: of training in all, and of a step above what stays between steps.

    What stays are weights and the optimizer's state; a step's own are activations, logits, gradients and the rest. Of
    the corpus only the tokenizer and the vocabulary's size are used.
    """
    torch.set_num_threads(threads)
    batches = [collate(group, corpus, variant.family, variant.batching, row).to(device) for group in groups]
    before = start_peak(device)
    step = make_step(build(variant.family, size, corpus.vocab_size, variant.attention_on(device)), device)
    first = Batch({name: tensor[:1] for name, tensor in batches[0].inputs.items()}, [])
    step(first)  # makes the optimizer's state, and loads kernels
    first_peak, between_steps = peak(device), start_peak(device)
    for batch in batches:
        step(batch)
    return max(first_peak, peak(device)) - before, peak(device) - between_steps
