"""Where an answer came from: how much of the interactive attention went to each passage of the source."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn
from transformers.utils import ModelOutput

from .generation import MaskedGenerationMixin

Chosen = int | Sequence[int] | None


@dataclass(frozen=True)
class PassageMass:
    """The attention mass of passages.

    Attributes:
        per_token: (B, T, P) float32, of what each target token read, how much was in each passage. Zero for padding,
            and after the end of a generated sequence.
        overall: (B, P) float32, the mean over the target tokens that read anything. Of a packed row it mixes the
            passages of several examples.
    """

    per_token: torch.Tensor
    overall: torch.Tensor


class ProvenanceMixin(MaskedGenerationMixin):
    """Attention mass by passage, for a model that reads several of them."""

    def ends_of(self, outputs: ModelOutput) -> tuple[int | None, set[int]]:
        """The padding after a generated sequence's end, and the tokens that end one: the call's own where known."""
        if (of_call := getattr(outputs, "special_token_ids", None)) is not None:
            return of_call
        settings = self.generation_config
        pad = self.config.pad_token_id if settings.pad_token_id is None else settings.pad_token_id
        ends = settings.eos_token_id
        return pad, set(ends) if isinstance(ends, list) else {ends}

    def passage_mass(
        self, outputs: ModelOutput, passage_ids: torch.Tensor, *, layers: Chosen = None, heads: Chosen = None
    ) -> PassageMass:
        """How much attention went to each passage, as Fusion-in-Decoder's authors use it to rank passages (Izacard
        and Grave 2021, https://arxiv.org/abs/2012.04584).

        ```python
        model.set_attn_implementation("eager")
        inputs = {"passage_ids": passage_ids, "encoder_mask": "passages()"}
        outputs = model.generate(ids, num_beams=4, output_attentions=True, return_dict_in_generate=True, **inputs)
        model.passage_mass(outputs, passage_ids).overall.argmax(-1)  # the passage that was read most
        ```

        It says what was looked at, which is a hint of where the answer came from and no proof: for that, answer again
        with `cross_mask="keep(passages=(2,))"`.

        Args:
            outputs: what `generate(..., output_attentions=True, return_dict_in_generate=True)` returned, by which
                decoding mode ever, or a forward pass with `output_attentions=True`. Beams are followed to where each
                token came from; sequences of one example are rows of their own.
            passage_ids: (B, S) or (1, S) integers, as in the call. Tokens with a number below 0 are in no passage.
            layers, heads: the decoder layers and the heads to average over, by number; all by default.

        Raises:
            ValueError: there are no attention weights, no source positions as with `memory_length`, layers or heads
                that are not there, or passage ids of another shape than the source.
        """
        if self.mask_compilers[2].reads_memory:
            raise ValueError(
                f"memory_length must be None, got {self.config.memory_length}: the decoder reads a memory without "
                "passages; use another model"
            )
        steps = _read(outputs, self.config._attn_implementation)
        which_layers = _choose(layers, len(steps[0]), "layer")
        which_heads = _choose(heads, steps[0][0].shape[1], "head")
        if "sequences" in outputs:
            rows, live = _rows(outputs, steps, *self.ends_of(outputs))
            averaged = [_mean(step, which_layers, which_heads)[:, -1] for step in steps[: live.shape[1]]]
            weights = torch.stack([step[rows[:, i]] for i, step in enumerate(averaged)], dim=1) * live[:, :, None]
        else:
            weights = _mean(steps[0], which_layers, which_heads)
        members = _members(passage_ids, len(weights), weights.shape[2], weights.device)
        mass = weights @ members
        readers = (weights.sum(-1) > 0).sum(-1, keepdim=True)
        return PassageMass(mass, mass.sum(1) / readers.clamp(min=1))


def _read(outputs: ModelOutput, attention: str | None) -> Sequence[Sequence[torch.Tensor]]:
    """Interactive attention by step, then by layer, (B, H, T, S) each; a forward pass is one step."""
    if not isinstance(outputs, ModelOutput):
        raise ValueError(
            f"passage_mass needs the outputs of the call, got {type(outputs).__name__}; "
            "pass return_dict_in_generate=True, output_attentions=True to generate()"
        )
    weights = outputs.get("cross_attentions")
    steps = weights if "sequences" in outputs else [weights]
    if not steps or any(not step or None in step for step in steps):
        raise ValueError(
            f'the outputs have no attention weights; call model.set_attn_implementation("eager") (it is {attention!r})'
            ", and pass output_attentions=True to the call"
        )
    return steps


def _choose(chosen: Chosen, count: int, what: str) -> list[int]:
    numbers = [*range(count)] if chosen is None else [chosen] if isinstance(chosen, int) else [*chosen]
    for number in numbers:
        if not -count <= number < count:
            raise ValueError(f"{what}s: there is no {what} {number}, but {count} of them, counted from 0")
    if not numbers:
        raise ValueError(f"{what}s: none are named; leave {what}s out for all of them")
    return numbers


def _mean(step: Sequence[torch.Tensor], layers: list[int], heads: list[int]) -> torch.Tensor:
    """(B, T, S), the mean over layers and heads."""
    return torch.stack([step[layer][:, heads].float().mean(dim=1) for layer in layers]).mean(dim=0)


def _rows(
    outputs: ModelOutput, steps: Sequence[Sequence[torch.Tensor]], pad: int | None, ends: set[int]
) -> tuple[torch.Tensor, torch.Tensor]:
    """For each sequence and each token generated: the row of its step that wrote it, and whether there is one."""
    if (beams := outputs.get("beam_indices")) is not None:
        return beams.long().clamp(min=0), beams >= 0
    written = outputs["sequences"][:, steps[0][0].shape[2] :]  # the first step read the prompt
    padding = (written == pad).long().flip(1).cumprod(1).flip(1).bool()
    if pad in ends:  # the first of them ended the sequence
        padding = padding & nn.functional.pad(padding[:, :-1], (1, 0))
    return torch.arange(len(written), device=written.device)[:, None].expand_as(written), ~padding


def _members(passage_ids: torch.Tensor, rows: int, length: int, device: torch.device) -> torch.Tensor:
    """(rows, S, P) float32, which passage each source token is in; sequences of one example have the same."""
    if passage_ids.ndim != 2 or passage_ids.shape[1] != length or rows % len(passage_ids):
        raise ValueError(
            f"passage_ids are {tuple(passage_ids.shape)}, but there are {rows} sequences that read {length} source "
            "tokens; give the (batch, source) numbers that the call had"
        )
    numbers = torch.arange(max(int(passage_ids.max()) + 1, 1), device=device)
    members = passage_ids.to(device)[:, :, None] == numbers
    return members.float().repeat_interleave(rows // len(passage_ids), dim=0)
