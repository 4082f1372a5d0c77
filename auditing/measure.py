"""Which tokens change which outputs of a model, measured by gradients or by replacing tokens."""

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field

import torch
from torch import nn
from transformers import PreTrainedModel

from ..utils.errors import InputError

_REPLACEMENTS = 2  # tokens that each token is replaced by


@dataclass(frozen=True, eq=False)
class Influence:
    """How strongly tokens change outputs: (B, T, S) and (B, T, T) float64, 0 for no change.

    `across` is (B, B) bool: whether the outputs of row i depend on the tokens of row j, which no mask allows.
    """

    source: torch.Tensor
    target: torch.Tensor
    across: torch.Tensor


@dataclass(eq=False)
class Probe:
    """A copy of a model that runs a batch, with hooks at its embeddings.

    Attributes:
        ids: `"source"` (B, S) and `"target"` (B, T) int64, as the model embedded them in its last run.
        replacements: the ids to embed instead.
        leaves: the embeddings, with respect to which gradients are computed, if `record_leaves`.
    """

    model: PreTrainedModel
    batch: Mapping
    dtype: torch.dtype | None
    ids: dict[str, torch.Tensor] = field(default_factory=dict)
    replacements: dict[str, torch.Tensor] = field(default_factory=dict)
    leaves: dict[str, torch.Tensor] = field(default_factory=dict)
    record_leaves: bool = False

    def __post_init__(self) -> None:
        self.model = deepcopy(self.model).eval().requires_grad_(False)
        if self.dtype is not None:
            self.model = self.model.to(self.dtype)
        device = next(self.model.parameters()).device
        self.batch = {
            name: value.to(device) if torch.is_tensor(value) else value for name, value in self.batch.items()
        }
        encoder, decoder = self.model.get_encoder(), self.model.get_decoder()
        self.encoder_name = type(encoder).__name__
        # Both sides may use the same embedding module, so the encoder's hooks say which side it embeds.
        self.side = "target"
        # A call inside of the call is one by which the model measures itself, as attached ones do in packed rows.
        self.depth = 0
        self.model.register_forward_pre_hook(lambda *_: self._enter(1))
        self.model.register_forward_hook(lambda *_: self._enter(-1))
        encoder.register_forward_pre_hook(lambda *_: setattr(self, "side", "source"))
        encoder.register_forward_hook(lambda *_: setattr(self, "side", "target"))
        self.embeddings = {"source": encoder.get_input_embeddings(), "target": decoder.get_input_embeddings()}
        for module in {id(module): module for module in self.embeddings.values()}.values():
            module.register_forward_pre_hook(self._before_embedding)
            module.register_forward_hook(self._after_embedding)

    def run(self) -> torch.Tensor:
        """Logits, or the last hidden states of a model without a head: (B, T, width).

        Raises:
            InputError: the model does not embed each side once and as it is given, or has no output for each target
                token.
        """
        self.ids, self.leaves, self.depth = {}, {}, 0
        output = self.model(**self.batch, return_dict=True)
        logits = output.get("logits")
        states = output.get("last_hidden_state") if logits is None else logits
        if set(self.ids) != {"source", "target"}:
            embedded = " and ".join(sorted(self.ids)) or "neither"
            raise InputError(f"audit: the model must embed source and target tokens, got {embedded}; pass both as ids")
        given = self.batch.get("input_ids")
        if given is not None and self.ids["source"].shape != given.shape:
            raise InputError(
                f"audit: the encoder must embed the source as it is given, {tuple(given.shape)}, got "
                f"{tuple(self.ids['source'].shape)} from {self.encoder_name}; its model cannot "
                "be measured"
            )
        shape = tuple(self.ids["target"].shape)
        if states is None or states.shape[:2] != shape:
            got = "none" if states is None else tuple(states.shape[:2])
            raise InputError(
                f"audit: the model must have an output for each of the {shape} target tokens, got {got}; ask for all "
                "logits"
            )
        return states

    def _enter(self, calls: int) -> None:
        self.depth += calls

    def _before_embedding(self, module: nn.Module, args: tuple) -> tuple:
        if self.depth > 1:
            return args
        ids = args[0]
        if self.side in self.ids:
            raise InputError(
                f"audit: the model must embed its {self.side} once, since only one embedding can be measured, got two"
            )
        self.ids[self.side] = ids.cpu()
        return (self.replacements[self.side].to(ids.device), *args[1:]) if self.side in self.replacements else args

    def _after_embedding(self, module: nn.Module, args: tuple, output: torch.Tensor) -> torch.Tensor:
        if not self.record_leaves or self.depth > 1:
            return output
        return self.leaves.setdefault(self.side, output.detach().requires_grad_())


def by_gradient(probe: Probe, counted: torch.Tensor, seed: int) -> Influence:
    """The gradient of a random projection of each output with respect to each embedding, 0 if they are not connected.

    Args:
        counted: (B, T) bool, which outputs to measure.
        seed: of the projection.

    Raises:
        ValueError: a gradient is not finite.
    """
    probe.record_leaves = True
    with torch.enable_grad():
        output = probe.run()
        direction = torch.randn(output.shape[-1], generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        projected = output @ direction.to(output)
    probe.record_leaves = False
    leaves = (probe.leaves["source"], probe.leaves["target"])

    def strengths(outputs: torch.Tensor) -> list[torch.Tensor]:
        if not outputs.requires_grad:
            return [torch.zeros(leaf.shape[:2], dtype=torch.float64) for leaf in leaves]
        computed = torch.autograd.grad(outputs.sum(), leaves, retain_graph=True, allow_unused=True)
        gradients = [
            torch.zeros_like(leaf) if gradient is None else gradient
            for gradient, leaf in zip(computed, leaves, strict=True)
        ]
        if not all(gradient.isfinite().all() for gradient in gradients):
            raise InputError('audit: gradients must be finite, got others; audit by method="perturbation"')
        # The largest component, not the norm, in which small squares would become zero.
        return [gradient.abs().amax(-1).double().cpu() for gradient in gradients]

    measured = counted.to(output.device)
    of_position = [strengths(projected[:, t][measured[:, t]]) for t in range(output.shape[1])]
    of_row = [strengths(projected[b][measured[b]]) for b in range(len(output))]
    across = torch.stack([(source.amax(-1) > 0) | (target.amax(-1) > 0) for source, target in of_row])
    source, target = (torch.stack(sides, dim=1) for sides in zip(*of_position, strict=True))
    return Influence(source, target, across.fill_diagonal_(False))


@torch.no_grad()
def by_perturbation(probe: Probe, counted: torch.Tensor, seed: int) -> Influence:
    """The largest change of each output, compared bit for bit, when a token is replaced by others.

    Args:
        counted: (B, T) bool, which outputs to measure.
        seed: of the replacing tokens.

    Raises:
        ValueError: an output is not finite, or outputs differ from run to run.
    """
    before = probe.run()
    ids = dict(probe.ids)
    if not before[counted.to(before.device)].isfinite().all():
        raise InputError("audit: outputs of the model must be finite, got others, in which a change cannot be seen")
    if not torch.equal(before.nan_to_num(), probe.run().nan_to_num()):
        raise InputError("audit: outputs of the model must be the same in each run, got others in a second run")
    generator = torch.Generator().manual_seed(seed)
    others = {side: _others(probe, side, ids[side], generator) for side in ids}

    def change(replacements: dict[str, torch.Tensor]) -> torch.Tensor:
        probe.replacements = replacements
        after = probe.run()
        probe.replacements = {}
        changed = torch.where(after == before, 0.0, (after - before).abs()).amax(-1).double().cpu()
        # An output that is no longer a number counts as an infinite change.
        return changed.nan_to_num(torch.inf) * counted

    strengths = {}
    for side, tokens in ids.items():
        of_token = []
        for index in range(tokens.shape[1]):
            column = torch.arange(tokens.shape[1]) == index
            changes = [change({side: torch.where(column, other, tokens)}) for other in others[side]]
            of_token.append(torch.stack(changes).amax(0))
        strengths[side] = torch.stack(of_token, dim=-1)
    across = torch.zeros(len(before), len(before), dtype=torch.bool)
    for row in range(len(before) if len(before) > 1 else 0):
        in_row = (torch.arange(len(before)) == row)[:, None]
        changed = change({side: torch.where(in_row, others[side][0], tokens) for side, tokens in ids.items()})
        across[:, row] = (changed > 0).any(-1)
    return Influence(strengths["source"], strengths["target"], across.fill_diagonal_(False))


def _others(probe: Probe, side: str, ids: torch.Tensor, generator: torch.Generator) -> list[torch.Tensor]:
    """Ordinary tokens that differ from `ids` everywhere: `_REPLACEMENTS` times (B, L) int64."""
    config = probe.model.config
    names = ("pad_token_id", "bos_token_id", "eos_token_id", "decoder_start_token_id")
    special = {getattr(config, name, None) for name in names if not isinstance(getattr(config, name, None), list)}
    ordinary = torch.tensor([i for i in range(probe.embeddings[side].num_embeddings) if i not in special])
    if len(ordinary) < 2:
        raise InputError(
            f"audit: the vocabulary must have two ordinary tokens to replace others, got {len(ordinary)}; use "
            'method="gradient"'
        )
    indices = [torch.randint(len(ordinary), ids.shape, generator=generator) for _ in range(_REPLACEMENTS)]
    return [torch.where(ordinary[i] == ids, ordinary[(i + 1) % len(ordinary)], ordinary[i]) for i in indices]
