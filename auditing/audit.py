"""`audit`: what a model reads, compared with what its masks allow."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from transformers import PreTrainedModel

from ..masks import MaskLike
from .arguments import check_batch, check_method, check_model, check_rest
from .diagnosis import explain, suspect
from .expected_masks import BatchMasks, actual_masks, expected_masks
from .measure import Probe, by_gradient, by_perturbation
from .reachability import allowed_influence
from .report import AuditReport, Relation

_METHODS = {"gradient": by_gradient, "perturbation": by_perturbation}


def audit(
    model: PreTrainedModel,
    batch: Mapping[str, Any],
    *,
    encoder_mask: MaskLike | dict | None = None,
    decoder_mask: MaskLike | dict | None = None,
    cross_mask: MaskLike | dict | None = None,
    attention_mask: torch.Tensor | None = None,
    decoder_attention_mask: torch.Tensor | None = None,
    segment_ids: torch.Tensor | None = None,
    decoder_segment_ids: torch.Tensor | None = None,
    position_ids: torch.Tensor | None = None,
    decoder_position_ids: torch.Tensor | None = None,
    passage_ids: torch.Tensor | None = None,
    method: str = "gradient",
    dtype: torch.dtype | None = torch.float64,
    tokenizer: Any = None,
    seed: int = 0,
) -> AuditReport:
    """Measure which token can change which target position's output, and compare it with what the masks allow.

    The batch is run as it is. The masks that *should* hold are those of the config and the batch, or those that are
    passed here instead. What they allow through all layers is computed by a slow reference that shares no code with
    what the model compiles. It counts positions from the first token of each example, whatever positions the batch
    passes.

    ```python
    >>> from crossmask import CrossMaskConfig, CrossMaskForConditionalGeneration, audit
    >>> sizes = {"vocab_size": 50, "hidden_size": 16, "num_attention_heads": 2, "encoder_layers": 1}
    >>> config = CrossMaskConfig(**sizes, decoder_layers=1, encoder_mask="causal()", cross_mask="wait_k(3)")
    >>> model = CrossMaskForConditionalGeneration(config)
    >>> batch = {"input_ids": torch.tensor([[5, 6, 7, 8, 2]]), "labels": torch.tensor([[9, 10, 2]])}
    >>> audit(model, batch).ok
    True
    >>> [(leak.target, leak.position) for leak in audit(model, batch, cross_mask="wait_k(2)").leaks]
    [(0, 2), (1, 3), (2, 4)]
    ```

    Args:
        model: an encoder-decoder of this package or of Transformers. If its config has no masks, they are `full()` in
            the encoder, `causal()` in the decoder and `full()` between them. A copy of it is run, in evaluation mode.
        batch: the arguments of the model: ids (B, S), and decoder ids (B, T) or labels.
        encoder_mask, decoder_mask, cross_mask: the masks that should hold instead of the config's and the batch's: a
            mask, its text, a mapping from layers to texts, or a boolean tensor (B, S), (B, T, S) or (B, H, T, S).
        attention_mask, segment_ids, position_ids, passage_ids: (B, S), what should hold instead of the batch's.
            Without an attention mask, padding tokens at the ends of a row are padding.
        decoder_attention_mask, decoder_segment_ids, decoder_position_ids: (B, T), likewise.
        method: `"gradient"` computes the gradient of each target position with respect to the embeddings, in T + B
            backward passes; `"perturbation"` replaces each token by others, in 2 (S + T) + B forward passes, and
            compares outputs bit for bit. Neither reports an influence that does not exist. Either may miss one that is
            below the precision, where the gradient is zero all the same, or that needs other tokens to show.
        dtype: the dtype of the copy of the model; None keeps the model's, for attention that does not run in float64.
        tokenizer: writes tokens into the report and its figure.
        seed: of the projection, or of the replacing tokens.

    Raises:
        TypeError: the model is not an encoder-decoder, or an argument is of another type.
        ValueError: the method does not exist, the batch cannot be audited, or masks or ids do not fit.
    """
    check_model(model)
    check_batch(model, batch)
    check_method(model, method, dtype, _METHODS)
    check_rest(tokenizer, seed)
    probe = Probe(model, batch, dtype)
    # With gradients another attention backend may run than without.
    with torch.set_grad_enabled(method == "gradient"):
        probe.run()
    ids = dict(probe.ids)
    actual = actual_masks(model, batch, ids)
    arguments = {
        "encoder_mask": encoder_mask,
        "decoder_mask": decoder_mask,
        "cross_mask": cross_mask,
        "attention_mask": attention_mask,
        "decoder_attention_mask": decoder_attention_mask,
        "segment_ids": segment_ids,
        "decoder_segment_ids": decoder_segment_ids,
        "position_ids": position_ids,
        "decoder_position_ids": decoder_position_ids,
        "passage_ids": passage_ids,
    }
    expected = expected_masks(actual, arguments, ids, batch, model.config)
    allowed = allowed_influence(expected)
    influence = _METHODS[method](probe, expected.target_segments > 0, seed)
    tokens = {side: _tokens(tokenizer, rows) for side, rows in ids.items()}
    report = AuditReport(
        source=_relation("source", allowed[0], influence.source, expected, tokens),
        target=_relation("target", allowed[1], influence.target, expected, tokens),
        across=influence.across,
        method=method,
    )
    cause = explain(report, expected, actual) if report.leaks else None
    return replace(report, cause=cause, notes=suspect(report, expected, actual, ids["source"], model.config))


def _relation(side: str, allowed: torch.Tensor, influence: torch.Tensor, expected: BatchMasks, tokens) -> Relation:
    segments = getattr(expected, f"{side}_segments")
    return Relation(side, allowed, influence, expected.target_segments, segments, tokens["target"], tokens[side])


def _tokens(tokenizer: Any, ids: torch.Tensor) -> tuple[tuple[str, ...], ...] | None:
    return None if tokenizer is None else tuple(tuple(tokenizer.decode([i]) for i in row) for row in ids.tolist())
