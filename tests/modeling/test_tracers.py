"""Traced, exported, compiled and vectorised, the whole model gives what it gives by itself.

Programs are made on a batch without padding, and run on batches of other sizes, down to one token, padded on either
side.
"""

import pytest
import torch
from mask_cases import tiny_model, tokens
from torch.export import Dim
from torch.func import functional_call

from crossmask.modeling.crossmask import CrossMaskForConditionalGeneration

MODELS = {
    "plain": {},
    "memory": {"memory_length": 3},
    "factorised": {"embedding_size": 8, "embedding_act": "gelu", "tie_word_embeddings": False},
    "additive": {"cross_attention_score": "additive"},
    "rules": {
        "encoder_mask": "window(2) | prefix(1)",
        "decoder_mask": "causal() & window(3)",
        "cross_mask": "wait_k(2) & ~prefix(1) | blocks(2)",
    },
    "heads and layers": {
        "encoder_mask": 'heads({0: window(1), "rest": full()})',
        "decoder_mask": 'layers({0: causal() & dilated(2), "rest": causal()})',
        "cross_mask": 'layers({0: monotonic(1.0, 2), "rest": heads({1: wait_k(1), "rest": ~prefix(1)})})',
    },
    "memory and rules": {"memory_length": 2, "encoder_mask": "blocks(3)", "decoder_mask": "causal() & ~window(0, 0)"},
    "lower ties": {"tie_word_embeddings": "head", "num_key_value_heads": 4, "cross_mask": "chunked(2, 1)"},
}
OLD = ("2.9.", "2.10.", "2.11.")  # whose own code for guards does not run
GUARDS = {"check_guards": not torch.__version__.startswith(OLD)}
ATTENTIONS = ["eager", "sdpa", "blockwise"]
SIZES = [(2, 9, 5), (3, 4, 7), (1, 12, 1), (4, 1, 2), (1, 1, 1)]
SHORT = [("memory and rules", "sdpa"), ("heads and layers", "blockwise")]


def every_case(fast: list[tuple[str, str]]) -> list:
    """All models under all attentions; those that are not in `fast` are slow."""
    cases = [(kind, attention) for kind in MODELS for attention in ATTENTIONS]
    return [pytest.param(*case, marks=() if case in fast else pytest.mark.slow) for case in cases]


def batch(rows: int, source: int, target: int, side: str | None = None) -> tuple[torch.Tensor, ...]:
    """Ids and padding masks of both sides, the first row's source and the last row's target padded on one side."""
    masks = [torch.ones(rows, source, dtype=torch.long), torch.ones(rows, target, dtype=torch.long)]
    for mask, row in zip(masks, (0, -1), strict=True):
        length = mask.shape[1]
        if side == "left":
            mask[row, : length // 2] = 0
        elif side == "right":
            mask[row, (length + 1) // 2 :] = 0
    return tokens(rows, source), masks[0], tokens(rows, target, seed=1), masks[1]


def model_of(kind: str, attention: str) -> CrossMaskForConditionalGeneration:
    """One layer on either side, unless the masks tell layers apart: tracers take their time."""
    layers = {} if "layers" in str(MODELS[kind]) else {"encoder_layers": 1, "decoder_layers": 1}
    return tiny_model(attention, **MODELS[kind], **layers)


class Logits(torch.nn.Module):
    """The model with positional inputs, which some tracers ask for."""

    names = ("input_ids", "attention_mask", "decoder_input_ids", "decoder_attention_mask")

    def __init__(self, model: CrossMaskForConditionalGeneration, names: tuple[str, ...] = names):
        super().__init__()
        self.model = model
        self.names = names

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        given = dict(zip(self.names, inputs, strict=True))
        return self.model(**given, use_cache=False, return_dict=False)[0]


def agree(program, model: torch.nn.Module, sizes: list[tuple[int, int, int]] = SIZES) -> None:
    for size in sizes:
        for side in (None, "left", "right"):
            inputs = batch(*size, side)
            with torch.no_grad():
                torch.testing.assert_close(
                    program(*inputs), model(*inputs), rtol=1e-4, atol=1e-3, msg=f"{size} {side}"
                )


@pytest.mark.parametrize(("kind", "attention"), every_case([(kind, "eager") for kind in MODELS] + SHORT))
@pytest.mark.parametrize("gradients", [False, True])
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_jit_trace(kind, attention, gradients):
    model = Logits(model_of(kind, attention))
    with torch.set_grad_enabled(gradients):
        traced = torch.jit.trace(model, batch(2, 9, 5), check_trace=False)
    agree(traced, model)
    if gradients:
        results = []
        for call in (traced, model):
            model.zero_grad()
            call(*batch(3, 4, 6, "right")).square().mean().backward()
            results.append([parameter.grad.clone() for parameter in model.parameters()])
        torch.testing.assert_close(*results, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
@torch.no_grad()
def test_a_trace_made_on_one_token(kind):
    """And without any padding mask: what is skipped for one token is not for more.

    Under eager: Transformers' SDPA packs grouped heads where there is one query, and such a trace refuses more.
    """
    model = Logits(model_of(kind, "eager"), ("input_ids", "decoder_input_ids"))
    traced = torch.jit.trace(model, (tokens(1, 1), tokens(1, 1)), check_trace=False)
    for rows, source, target in SIZES:
        inputs = tokens(rows, source), tokens(rows, target, seed=1)
        torch.testing.assert_close(traced(*inputs), model(*inputs), rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(("kind", "attention"), every_case(SHORT))
@pytest.mark.parametrize("strict", [pytest.param(True, marks=pytest.mark.slow), False])
def test_export_with_sizes_that_vary(kind, attention, strict):
    model = Logits(model_of(kind, attention))
    rows, source, target = Dim("rows"), Dim("source"), Dim("target")
    shapes = ({0: rows, 1: source},) * 2 + ({0: rows, 1: target},) * 2
    program = torch.export.export(model, batch(2, 9, 5), dynamic_shapes=(shapes,), strict=strict)
    agree(program.module(**GUARDS), model)


def packed(rows: int, source: list[int], target: list[int]) -> tuple[torch.Tensor, ...]:
    segments = [torch.tensor(side).expand(rows, -1).clone() for side in (source, target)]
    return tokens(rows, len(source)), segments[0], tokens(rows, len(target), seed=1), segments[1]


PACKED = ("input_ids", "segment_ids", "decoder_input_ids", "decoder_segment_ids")
ROWS = [([1, 1, 2, 2, 2, 0], [1, 2, 2, 0]), ([1, 2, 2, 3, 4, 4, 4], [1, 2, 3, 3, 4]), ([1, 1, 1], [1, 1])]


PACKED_CASES = [(kind, attention) for kind in ("packed", "packed memory") for attention in ("sdpa", "blockwise")]


def make_trace(model, inputs):
    return torch.jit.trace(model, inputs, check_trace=False)


def make_export(model, inputs):
    rows, source, target = Dim("rows"), Dim("source"), Dim("target")
    shapes = ({0: rows, 1: source},) * 2 + ({0: rows, 1: target},) * 2
    return torch.export.export(model, inputs, dynamic_shapes=(shapes,), strict=False).module(**GUARDS)


def make_compiled(model, inputs):
    torch._dynamo.reset()
    return torch.compile(model, fullgraph=True, backend="eager", dynamic=True)


@pytest.mark.parametrize("fields", [{}, {"memory_length": 2}], ids=["plain", "memory"])
@pytest.mark.parametrize(
    ("make", "attention"),
    [
        (make_trace, "eager"),
        (make_trace, "blockwise"),
        (make_export, "blockwise"),
        pytest.param(make_compiled, "blockwise", marks=pytest.mark.slow),
    ],
)
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_packed_rows(make, fields, attention):
    """The number of examples in a row is not that of the row that the program was made on."""
    model = Logits(tiny_model(attention, **fields, encoder_layers=1, decoder_layers=1), PACKED)
    program = make(model, packed(2, *ROWS[0]))
    with torch.no_grad():
        for index, row in enumerate(ROWS):
            inputs = packed(2 + index, *row)
            kept = inputs[3] > 0
            torch.testing.assert_close(program(*inputs)[kept], model(*inputs)[kept], rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(
    ("kind", "attention", "sizes"),
    [
        ("memory and rules", "blockwise", SIZES[:2]),  # one token makes another graph
        *(pytest.param(*case.values, SIZES, marks=pytest.mark.slow) for case in every_case([])),
    ],
)
def test_compiled_without_graph_breaks(kind, attention, sizes):
    model = Logits(model_of(kind, attention))
    agree(make_compiled(model, ()), model, sizes)


@pytest.mark.parametrize(
    ("skip_logits", "r_drop"),
    [
        (False, 3.0),
        (True, 0.0),
        *(pytest.param(*case, marks=pytest.mark.slow) for case in ((False, 0.0), (True, 3.0))),
    ],
)
def test_a_compiled_loss_without_graph_breaks(skip_logits, r_drop):
    model = tiny_model("sdpa", encoder_layers=1, decoder_layers=1).train()
    labels = tokens(1, 4, seed=1)
    labels[0, 2] = -100
    inputs = {"input_ids": tokens(2, 5), "labels": torch.cat([labels, labels])}  # two passes that differ
    inputs |= {"skip_logits": skip_logits, "r_drop": r_drop}
    torch._dynamo.reset()
    results = []
    for call in (model, torch.compile(model, fullgraph=True, backend="aot_eager")):
        model.zero_grad()
        output = call(**inputs)
        assert (output.logits is None) == skip_logits
        output.loss.backward()
        results.append([output.loss.detach(), *(parameter.grad.clone() for parameter in model.parameters())])
    torch.testing.assert_close(*results, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("kind", "attention"), [*every_case([(kind, "eager") for kind in MODELS] + SHORT), *PACKED_CASES]
)
@pytest.mark.parametrize("skip_logits", [False, True])
def test_gradients_of_each_example(kind, attention, skip_logits):
    """`vmap` over `grad` gives what a loop over the examples gives."""
    model = model_of({"packed": "plain", "packed memory": "memory"}.get(kind, kind), attention).train()
    ids, mask, target, target_mask = batch(3, 7, 5, "right")
    inputs = {"input_ids": ids, "attention_mask": mask, "labels": target.masked_fill(target_mask == 0, -100)}
    if "packed" in kind:
        del inputs["attention_mask"]
        inputs["segment_ids"] = torch.tensor([[1, 1, 2, 2, 3, 3, 0], [1, 2, 2, 2, 2, 2, 2], [1] * 6 + [0]])
        inputs["decoder_segment_ids"] = torch.tensor([[1, 1, 2, 2, 3], [1, 2, 2, 2, 2], [1] * 5])

    def loss(weights, inputs):
        one = {name: tensor[None] for name, tensor in inputs.items()}
        return functional_call(model, weights, (), {**one, "skip_logits": skip_logits}).loss

    weights = {name: parameter.detach() for name, parameter in model.named_parameters()}
    together = torch.vmap(torch.func.grad(loss), (None, 0))(weights, inputs)
    for row in range(3):
        model.zero_grad()
        model(
            **{name: tensor[row : row + 1] for name, tensor in inputs.items()}, skip_logits=skip_logits
        ).loss.backward()
        for name, parameter in model.named_parameters():
            torch.testing.assert_close(together[name][row], parameter.grad, rtol=1e-3, atol=1e-3)
