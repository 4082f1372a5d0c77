"""Which tokens change which outputs of a model, measured by gradients or by swapping tokens."""

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field

import torch
from torch import nn

from ..utils.errors import InputError

_DRAWS = 2  # tokens that each one is swapped for


@dataclass(frozen=True, eq=False)
class Influence:
    """How strongly tokens change outputs that count: (B, T, S) and (B, T, T) float64, 0 for not at all.

    `across` is (B, B) bool: whether row i's outputs depend on row j's tokens, which nothing ever allows.
    """

    source: torch.Tensor
    target: torch.Tensor
    across: torch.Tensor


@dataclass(eq=False)
class Probe:
    """A copy of a model that runs one batch, and stands between it and its embeddings.

    Attributes:
        ids: `"source"` (B, S) and `"target"` (B, T) int64, as the model embedded them last.
        swapped: ids to embed in their place.
        leaves: the embeddings, from where gradients are taken, if `open_leaves`.
    """

    model: nn.Module
    batch: Mapping
    dtype: torch.dtype | None
    ids: dict[str, torch.Tensor] = field(default_factory=dict)
    swapped: dict[str, torch.Tensor] = field(default_factory=dict)
    leaves: dict[str, torch.Tensor] = field(default_factory=dict)
    open_leaves: bool = False

    def __post_init__(self) -> None:
        self.model = deepcopy(self.model).eval().requires_grad_(False)
        if self.dtype is not None:
            self.model = self.model.to(self.dtype)
        device = next(self.model.parameters()).device
        self.batch = {
            name: value.to(device) if torch.is_tensor(value) else value for name, value in self.batch.items()
        }
        encoder, decoder = self.model.get_encoder(), self.model.get_decoder()
        # The two sides may share one embedding module, so it is the encoder's run that tells them apart.
        self.side = "target"
        encoder.register_forward_pre_hook(lambda *_: setattr(self, "side", "source"))
        encoder.register_forward_hook(lambda *_: setattr(self, "side", "target"))
        self.embeddings = {"source": encoder.get_input_embeddings(), "target": decoder.get_input_embeddings()}
        for module in {id(module): module for module in self.embeddings.values()}.values():
            module.register_forward_pre_hook(self._take_ids)
            module.register_forward_hook(self._give_embeddings)

    def run(self) -> torch.Tensor:
        """Logits, or last hidden states where the model has no head: (B, T, width)."""
        self.ids, self.leaves = {}, {}
        output = self.model(**self.batch, return_dict=True)
        found = output.get("logits")
        found = output.get("last_hidden_state") if found is None else found
        if set(self.ids) != {"source", "target"}:
            raise InputError(
                "audit: the model embeds no source or no target tokens; give it both as ids, not as embeddings"
            )
        if found is None or found.shape[:2] != self.ids["target"].shape:
            wanted = tuple(self.ids["target"].shape)
            raise InputError(
                f"audit: the model has no output for each of the {wanted} target tokens; ask for all logits"
            )
        return found

    def _take_ids(self, module: nn.Module, args: tuple) -> tuple:
        ids = args[0]
        if self.side in self.ids:
            raise InputError(f"audit: the model embeds its {self.side} twice, and only one of them could be measured")
        self.ids[self.side] = ids.cpu()
        return (self.swapped[self.side].to(ids.device), *args[1:]) if self.side in self.swapped else args

    def _give_embeddings(self, module: nn.Module, args: tuple, output: torch.Tensor) -> torch.Tensor:
        if not self.open_leaves:
            return output
        return self.leaves.setdefault(self.side, output.detach().requires_grad_())


def by_gradient(probe: Probe, counted: torch.Tensor, seed: int) -> Influence:
    """The gradient of a random projection of each output to each embedding: 0 without any way from one to the other.

    Args:
        counted: (B, T) bool, the outputs that count.

    Raises:
        ValueError: a gradient that is not a number.
    """
    probe.open_leaves = True
    with torch.enable_grad():
        output = probe.run()
        direction = torch.randn(output.shape[-1], generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        projected = output @ direction.to(output)
    probe.open_leaves = False
    leaves = (probe.leaves["source"], probe.leaves["target"])

    def strengths(outputs: torch.Tensor) -> list[torch.Tensor]:
        if not outputs.requires_grad:
            return [torch.zeros(leaf.shape[:2], dtype=torch.float64) for leaf in leaves]
        found = torch.autograd.grad(outputs.sum(), leaves, retain_graph=True, allow_unused=True)
        found = [torch.zeros_like(leaf) if one is None else one for one, leaf in zip(found, leaves, strict=True)]
        if not all(one.isfinite().all() for one in found):
            raise InputError('audit: a gradient of the model is not finite; audit by method="perturbation"')
        # The largest component, not the length, whose squares could vanish.
        return [one.abs().amax(-1).double().cpu() for one in found]

    real = counted.to(output.device)
    of_position = [strengths(projected[:, t][real[:, t]]) for t in range(output.shape[1])]
    of_row = [strengths(projected[b][real[b]]) for b in range(len(output))]
    across = torch.stack([(source.amax(-1) > 0) | (target.amax(-1) > 0) for source, target in of_row])
    source, target = (torch.stack(sides, dim=1) for sides in zip(*of_position, strict=True))
    return Influence(source, target, across.fill_diagonal_(False))


@torch.no_grad()
def by_perturbation(probe: Probe, counted: torch.Tensor, seed: int) -> Influence:
    """The largest change of each output, to the bit, when another token is embedded in a token's place.

    Args:
        counted: (B, T) bool, the outputs that count.

    Raises:
        ValueError: outputs that are not numbers, or that differ from run to run.
    """
    before = probe.run()
    ids = dict(probe.ids)
    if not before[counted.to(before.device)].isfinite().all():
        raise InputError("audit: an output of the model is not finite, so no change of it could be seen")
    if not torch.equal(before.nan_to_num(), probe.run().nan_to_num()):
        raise InputError("audit: the model's outputs differ from run to run, so a change would say nothing")
    generator = torch.Generator().manual_seed(seed)
    others = {side: _others(probe, side, ids[side], generator) for side in ids}

    def change(swapped: dict[str, torch.Tensor]) -> torch.Tensor:
        probe.swapped = swapped
        after = probe.run()
        probe.swapped = {}
        changed = torch.where(after == before, 0.0, (after - before).abs()).amax(-1).double().cpu()
        # What is no longer a number has changed beyond all measure.
        return changed.nan_to_num(torch.inf) * counted

    found = {}
    for side, tokens in ids.items():
        of_token = []
        for index in range(tokens.shape[1]):
            column = torch.arange(tokens.shape[1]) == index
            changes = [change({side: torch.where(column, drawn, tokens)}) for drawn in others[side]]
            of_token.append(torch.stack(changes).amax(0))
        found[side] = torch.stack(of_token, dim=-1)
    across = torch.zeros(len(before), len(before), dtype=torch.bool)
    for row in range(len(before) if len(before) > 1 else 0):
        one = (torch.arange(len(before)) == row)[:, None]
        changed = change({side: torch.where(one, others[side][0], tokens) for side, tokens in ids.items()})
        across[:, row] = (changed > 0).any(-1)
    return Influence(found["source"], found["target"], across.fill_diagonal_(False))


def _others(probe: Probe, side: str, ids: torch.Tensor, generator: torch.Generator) -> list[torch.Tensor]:
    """Ordinary tokens in place of all, none of them the same: `_DRAWS` times (B, L) int64."""
    config = probe.model.config
    names = ("pad_token_id", "bos_token_id", "eos_token_id", "decoder_start_token_id")
    special = {getattr(config, name, None) for name in names if not isinstance(getattr(config, name, None), list)}
    ordinary = torch.tensor([i for i in range(probe.embeddings[side].num_embeddings) if i not in special])
    if len(ordinary) < 2:
        raise InputError("audit: the vocabulary has no two ordinary tokens to swap; use method='gradient'")
    drawn = [torch.randint(len(ordinary), ids.shape, generator=generator) for _ in range(_DRAWS)]
    return [torch.where(ordinary[d] == ids, ordinary[(d + 1) % len(ordinary)], ordinary[d]) for d in drawn]
