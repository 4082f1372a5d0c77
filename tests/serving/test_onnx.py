"""A model that was exported to ONNX writes what `generate()` writes: its masks are in the graphs.

An export takes seconds, so that most tests share one, of a model with every kind of mask.
"""

import logging
import sys
import warnings

import pytest
import torch
from mask_cases import EXAMPLES, expressions
from small_models import EndOneByOne, pad, small_model, tokens
from torch.export import Dim
from trained_models import TEXTS, tokenizer, trained_model

from crossmask import translate_batch
from crossmask.masks.layout import Layout, lay_out
from crossmask.masks.materialize import materialize_unchecked
from crossmask.serving import export, load_translator
from crossmask.serving.exports import DTYPES
from crossmask.serving.onnx_export import quantise, save_onnx
from crossmask.serving.onnx_graphs import cache_names
from crossmask.serving.onnx_model import OnnxModel
from crossmask.serving.onnx_program import without_known_warnings
from crossmask.utils.errors import InputError, MissingLibraryError

onnx = pytest.importorskip("onnx", reason="ONNX is not installed")
onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
pytest.importorskip("onnxscript", reason="onnxscript is not installed")

MASKS = {
    "encoder_mask": 'heads({0: window(1), "rest": window(2) | prefix(1)})',
    "decoder_mask": 'layers({0: causal() & window(3), "rest": causal() & dilated(2)})',
    "cross_mask": 'layers({0: monotonic(1.0, 2), "rest": heads({1: wait_k(1), "rest": ~prefix(1)})})',
}
MIXED = {**MASKS, "encoder_layers": 1, "embedding_size": 8, "embedding_act": "gelu", "tie_word_embeddings": False}
FAMILIES = {
    "plain": {},
    "additive": {"cross_attention_score": "additive", "num_key_value_heads": 4},
    "memory": {"memory_length": 3, "encoder_mask": "blocks(3)"},
    "memory of one vector": {"memory_length": 1},
    "lower ties, yarn": {
        "tie_word_embeddings": "head",
        "rope_parameters": {
            "rope_type": "yarn",
            "factor": 2.0,
            "original_max_position_embeddings": 32,
            "rope_theta": 1e4,
        },
    },
}
ROWS = [[tokens(6)], [tokens(1)], [tokens(1, seed=2), tokens(12, seed=3), tokens(7, seed=4), tokens(2, seed=5)]]
MODES = [
    {},
    {"num_beams": 3},
    {"num_beams": 3, "num_return_sequences": 2, "length_penalty": 0.5, "early_stopping": True},
    {"do_sample": True, "top_k": 5},
    {"do_sample": True, "num_beams": 2, "temperature": 2.0},
]


@pytest.fixture(scope="module")
def model():
    return small_model(vocab_size=len(tokenizer()), **MIXED)


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory):
    state = model.config.to_dict(), {name: value.clone() for name, value in model.state_dict().items()}
    written = export(model, "onnx", tmp_path_factory.mktemp("exports") / "onnx", tokenizer=tokenizer()).folder
    assert model.config.to_dict() == state[0]  # nothing of the model is changed
    torch.testing.assert_close(model.state_dict(), state[1], rtol=0, atol=0)
    return written


@pytest.fixture(scope="module")
def graphs(model, folder):
    return OnnxModel(folder, model.config, model.generation_config, threads=1)


def agree(model, graphs, modes=MODES, batches=ROWS) -> list[torch.Tensor]:
    outputs = []
    for rows in batches:
        for side in ("left", "right") if len(rows) > 1 else ("right",):
            ids, attention_mask = pad(rows, side)
            for mode in modes:
                call = {"input_ids": ids, "attention_mask": attention_mask, "max_new_tokens": 12, **mode}
                results = []
                for each in (model, graphs):
                    torch.manual_seed(0)
                    results.append(each.generate(**call))
                assert torch.equal(*results), (len(rows), side, mode)
                outputs.append(results[0])
    return outputs


def test_all_decoding_modes_write_the_same_tokens(model, graphs):
    assert len({tuple(row.tolist()) for output in agree(model, graphs) for row in output}) > 10


def test_texts_that_end_at_different_steps(model, graphs):
    modes = [{**mode, "logits_processor": [EndOneByOne(len(ROWS[-1]))]} for mode in MODES]
    assert min(output.shape[1] for output in agree(model, graphs, modes, [ROWS[-1]])) > 8


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family(family, tmp_path):
    model = small_model(**FAMILIES[family])
    save_onnx(model, tmp_path, {"float32": ""})
    agree(model, OnnxModel(tmp_path, model.config, model.generation_config, threads=1))


def test_one_pass_over_many_tokens_has_the_logits_of_the_model(model, graphs):
    ids, attention_mask = pad(ROWS[2], "left")
    target = tokens(4, 7, seed=9)
    inputs = {"input_ids": ids, "attention_mask": attention_mask, "decoder_input_ids": target}
    with torch.no_grad():
        expected = model(**inputs).logits
    torch.testing.assert_close(graphs(**inputs).logits, expected, rtol=1e-4, atol=1e-4)
    first = graphs(**{**inputs, "decoder_input_ids": target[:, :3]})
    rest = graphs(
        attention_mask=attention_mask,
        decoder_input_ids=target[:, 3:],
        encoder_outputs=(first.encoder_last_hidden_state,),
        past_key_values=first.past_key_values,
        logits_to_keep=2,
    )
    torch.testing.assert_close(rest.logits, expected[:, -2:], rtol=1e-4, atol=1e-4)


def test_prefixes_and_several_sequences(model, graphs):
    ids, attention_mask = pad(ROWS[2], "right")
    for mode in ({}, {"num_beams": 3}):
        call = {"input_ids": ids, "attention_mask": attention_mask, "max_new_tokens": 8, **mode}
        call["decoder_input_ids"] = tokens(4, 3, seed=9)
        assert torch.equal(model.generate(**call), graphs.generate(**call))


def test_tensors_are_taken_as_masks(model, graphs):
    ids, attention_mask = pad(ROWS[2], "right")
    generator = torch.Generator().manual_seed(0)
    heads, length = model.config.num_attention_heads, ids.shape[1]
    masks = {
        "encoder_mask": torch.rand(4, length, length, generator=generator) > 0.3,
        "decoder_mask": torch.rand(1, 1, 16, 16, generator=generator) > 0.3,
        "cross_mask": torch.rand(4, heads, 16, length, generator=generator) > 0.3,
    }
    call = {"input_ids": ids, "attention_mask": attention_mask, "max_new_tokens": 12}
    without = model.generate(**call)
    for given in (
        *({name: mask} for name, mask in masks.items()),
        masks,
        {"cross_mask": masks["cross_mask"][:, 0, 0]},
    ):
        for mode in ({}, {"num_beams": 3}):
            expected = model.generate(**call, **mode, **given)
            assert torch.equal(graphs.generate(**call, **mode, **given), expected)
        assert not torch.equal(model.generate(**call, **given), without)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cross_mask": "wait_k(2)"}, r"cross_mask must be a boolean tensor, got the rule wait_k\(2\)"),
        ({"encoder_mask": "causal()"}, "encoder_mask must be a boolean tensor"),
        ({"use_cache": False}, "use_cache must be true"),
        ({"prompt_lookup_num_tokens": 2}, "prompt_lookup_num_tokens and use_mtp must be left out"),
        ({"output_attentions": True, "return_dict_in_generate": True}, "output_attentions must be false"),
        ({"passage_ids": torch.zeros(1, 6)}, "no argument is called passage_ids"),
        ({"decoder_input_ids": torch.tensor([[0, 1, 5]])}, "decoder_attention_mask must be all ones"),
    ],
)
def test_what_is_not_in_the_graphs_is_refused(graphs, options, message):
    with pytest.raises(ValueError, match=message):
        graphs.generate(input_ids=ROWS[0][0][None], max_new_tokens=4, **options)


def test_a_memory_takes_no_cross_mask():
    from crossmask.serving.onnx_model import read_tensor

    with pytest.raises(InputError, match="cross_mask must be left out: with memory_length"):
        read_tensor(torch.ones(1, 3, dtype=torch.bool), "cross_mask", small_model(memory_length=2).config)


@pytest.fixture(scope="module")
def memory_model():
    return small_model(memory_length=3, encoder_mask="blocks(3)", decoder_mask=MASKS["decoder_mask"])


@pytest.fixture(scope="module")
def memory_folder(memory_model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exports")
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # of axes without names, too
        save_onnx(memory_model, folder, {"float32": ""})
    return folder


@pytest.mark.parametrize("kind", ["", pytest.param("memory_", marks=pytest.mark.slow)])
def test_inputs_axes_and_outputs_are_those_of_the_page(kind, request):
    """Run by onnxruntime alone: all tokens at first, and then two more over the cache."""
    model, folder = (request.getfixturevalue(f"{kind}{name}") for name in ("model", "folder"))
    sessions = []
    for name in ("encoder_model", "decoder_model_merged"):
        onnx.checker.check_model(str(folder / f"{name}.onnx"))
        sessions.append(onnxruntime.InferenceSession(str(folder / f"{name}.onnx")))
    encoder, decoder = sessions
    batch, source, target = "batch_size", "encoder_sequence_length", "decoder_sequence_length"
    cached = {"decoder": f"past_{target}", "encoder": f"past_{source}"}
    cache = [name.removeprefix("present.") for name in cache_names(2, "present")]
    states = "memory_length" if kind else source
    assert {value.name: value.shape for value in encoder.get_inputs()} == {
        "input_ids": [batch, source],
        "attention_mask": [batch, source],
    }
    assert encoder.get_outputs()[0].shape == [batch, 3 if kind else source, 16]
    padding = {} if kind else {"encoder_attention_mask": [batch, source]}
    assert {value.name: value.shape for value in decoder.get_inputs()} == {
        "input_ids": [batch, target],
        "encoder_hidden_states": [batch, states, 16],
        **padding,
        **{f"past_key_values.{name}": [batch, 2, cached[name.split(".")[1]], 4] for name in cache},
    }
    everything = {"decoder": f"{target} + {cached['decoder']}", "encoder": states}
    assert {value.name: value.shape for value in decoder.get_outputs()} == {
        "logits": [batch, target, model.config.vocab_size],
        **{f"present.{name}": [batch, 2, everything[name.split(".")[1]], 4] for name in cache},
    }
    optional = [value.name for session in (encoder, decoder) for value in session.get_overridable_initializers()]
    assert optional == ["encoder_mask", "decoder_mask", *([] if kind else ["cross_mask"])]
    ids, attention_mask = pad(ROWS[2], "left")
    ids_of_target = tokens(4, 7, seed=9)
    with torch.no_grad():
        expected = model(input_ids=ids, attention_mask=attention_mask, decoder_input_ids=ids_of_target).logits
    (found,) = encoder.run(None, {"input_ids": ids.numpy(), "attention_mask": attention_mask.numpy()})
    feed = {"encoder_hidden_states": found, **{name: attention_mask.numpy() for name in padding}}
    feed |= {f"past_key_values.{name}": torch.zeros(4, 2, 0, 4).numpy() for name in cache}
    logits = []
    for new in (ids_of_target[:, :5], ids_of_target[:, 5:]):
        names = [value.name for value in decoder.get_outputs()]
        outputs = dict(zip(names, decoder.run(names, {**feed, "input_ids": new.numpy()}), strict=True))
        logits.append(torch.from_numpy(outputs.pop("logits")))
        feed |= {name.replace("present", "past_key_values"): value for name, value in outputs.items()}
    torch.testing.assert_close(torch.cat(logits, 1), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_a_memory_decodes_alike_in_every_mode(memory_model, memory_folder):
    graphs = OnnxModel(memory_folder, memory_model.config, memory_model.generation_config, threads=1)
    agree(memory_model, graphs, MODES[:3])


def test_only_warnings_of_every_export_are_hidden(caplog):
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("always")
        with without_known_warnings():
            warnings.warn("# The axis name: batch_size will not be used, since it shares the same shape", stacklevel=1)
            warnings.warn("# ONNX model has different number of inputs than the flatten dynamic_shapes.", stacklevel=1)
    with without_known_warnings():
        for text in ("Please consider to run pre-processing before quantization.", "something else"):
            logging.root.warning(text)
    logging.root.warning("Please consider to run pre-processing before quantization.")
    assert [str(warning.message)[:6] for warning in shown] == ["# ONNX"]
    assert [record.getMessage()[:9] for record in caplog.records] == ["something", "Please co"]


def test_weights_of_8_bits_are_smaller_and_write_almost_the_same(model, folder, graphs, tmp_path):
    for name in ("encoder_model", "decoder_model_merged"):
        quantise(onnx.load(folder / f"{name}.onnx"), tmp_path / f"{name}.onnx")
        assert (tmp_path / f"{name}.onnx").stat().st_size < (folder / f"{name}.onnx").stat().st_size
    small = OnnxModel(tmp_path, model.config, model.generation_config, threads=1)
    inputs = {"input_ids": tokens(3, 9), "decoder_input_ids": tokens(3, 6, seed=1)}
    logits = [each(**inputs).logits for each in (small, graphs)]
    assert torch.corrcoef(torch.stack([each.flatten() for each in logits]))[0, 1] > 0.95
    assert not torch.allclose(*logits)


def test_the_translator_of_the_folder(model, folder):
    with load_translator(folder, threads=1) as translator:
        assert (translator.engine, translator.dtype) == ("onnx", "float32")
        for options in ({"num_beams": 1}, {"num_beams": 3}):
            options["max_new_tokens"] = 8
            expected = translate_batch(model, tokenizer(), TEXTS[:9], progress=False, **options)
            assert translator.translate(TEXTS[:9], batch_tokens=20, **options) == expected
        assert len(set(expected)) > 2
        pieces = list(translator.stream(TEXTS[2], max_new_tokens=8))
        assert "".join(pieces) == translator.translate([TEXTS[2]], 1, max_new_tokens=8)[0]
        with pytest.raises(InputError, match="cross_mask must be a boolean tensor, got the rule"):
            translator.translate(TEXTS[:1], cross_mask="wait_k(2)")
    for options in ({"dtype": "int8"}, {"device": "cuda"}):
        with pytest.raises(InputError, match="device and dtype of these ONNX graphs must be"):
            load_translator(folder, **options)


def test_a_graph_that_is_not_whole_is_refused(folder, tmp_path):
    (tmp_path / "encoder_model.onnx").write_bytes((folder / "encoder_model.onnx").read_bytes()[:1000])
    for place, name in ((tmp_path, "encoder_model"), (tmp_path / "none", "encoder_model")):
        with pytest.raises(InputError, match=f"{name}.onnx must be a complete ONNX graph: .*; export the model again"):
            OnnxModel(place, small_model().config)


def test_a_library_that_is_not_installed_is_named_with_its_command(model, folder, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    for run in (
        lambda: load_translator(folder),
        lambda: export(model, "onnx", tmp_path / "new", tokenizer=tokenizer()),
    ):
        with pytest.raises(MissingLibraryError, match=r"pip install 'crossmask\[onnx\]'"):
            run()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("dtype", DTYPES["onnx"])
def test_a_trained_model(dtype, tmp_path):
    written = export(trained_model(), "onnx", tmp_path / dtype, tokenizer=tokenizer(), dtype=dtype).folder
    with load_translator(written, threads=1) as translator:
        for options in ({}, {"num_beams": 4}, {"num_beams": 4, "length_penalty": 2.0, "early_stopping": True}):
            expected = translate_batch(trained_model(), tokenizer(), TEXTS, progress=False, **options)
            outputs = translator.translate(TEXTS, **options)
            assert sum(a == b for a, b in zip(outputs, expected, strict=True)) >= (
                1 if dtype == "float32" else 0.8
            ) * len(TEXTS)


class MaskGraph(torch.nn.Module):
    """Rules over a target of T tokens behind P cached ones, and a source of S, some of them padding."""

    def __init__(self, rules, scope: str):
        super().__init__()
        self.rules, self.scope = rules, scope

    def forward(self, attention_mask, target, cached):
        batch, length = target.shape
        past = cached.shape[1]
        source = lay_out(attention_mask.shape[1], target.device, attention_mask=attention_mask, rows=batch)
        keys = Layout(torch.arange(past + length)[None], rows=batch, may_grow=True)
        new = keys.pick(past + torch.arange(length))
        query, key = {"encoder": (source, source), "decoder": (new, keys), "cross": (new, source)}[self.scope]
        masks = [materialize_unchecked(rule, query, key, heads=4) for rule in self.rules]
        ones = torch.ones(1, 1, query.length, key.length, dtype=torch.bool)
        return [ones if mask is None else mask & ones for mask in masks]


def masks_agree(rules, scope: str, path) -> None:
    graph = MaskGraph(rules, scope)
    batch, source, target, past = Dim("batch"), Dim("source"), Dim("target"), Dim("past")
    example = (
        torch.ones(2, 7, dtype=torch.long),
        torch.ones(2, 3, dtype=torch.long),
        torch.ones(2, 5, dtype=torch.long),
    )
    axes = ({0: batch, 1: source}, {0: batch, 1: target}, {0: batch, 1: past})
    torch.onnx.export(
        graph, example, path, dynamo=True, verbose=False, dynamic_shapes=axes, input_names=["source", "target", "past"]
    )
    session = onnxruntime.InferenceSession(str(path))
    names = {value.name for value in session.get_inputs()}
    for rows, length, new, cached in ((2, 7, 3, 5), (1, 1, 1, 0), (3, 9, 1, 4), (2, 4, 6, 0)):
        attention_mask = torch.ones(rows, length, dtype=torch.long)
        attention_mask[0, : length // 2] = 0
        inputs = attention_mask, torch.ones(rows, new, dtype=torch.long), torch.ones(rows, cached, dtype=torch.long)
        feed = dict(zip(("source", "target", "past"), (tensor.numpy() for tensor in inputs), strict=True))
        results = session.run(None, {name: value for name, value in feed.items() if name in names})
        for rule, result, expected in zip(rules, results, graph(*inputs), strict=True):
            assert torch.equal(torch.from_numpy(result).expand_as(expected), expected), (scope, str(rule))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("scope", ["encoder", "decoder", "cross"])
def test_every_rule_is_the_same_in_a_graph(scope, tmp_path):
    rules = [mask for mask in EXAMPLES.values() if not any(type(rule).__name__ == "layers" for rule in mask.rules())]
    masks_agree(rules, scope, tmp_path / "masks.onnx")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("scope", ["encoder", "decoder", "cross"])
def test_random_expressions_are_the_same_in_a_graph(scope, tmp_path):
    from hypothesis import given, seed, settings
    from hypothesis import strategies as st

    @seed(0)
    @settings(max_examples=3, deadline=None, database=None)
    @given(st.lists(expressions, min_size=10, max_size=10))
    def check(rules):
        masks_agree(rules, scope, tmp_path / "masks.onnx")

    check()


@pytest.mark.parametrize(("to", "dtype"), [("onnx", "int8"), ("web", None), ("web", "int8")])
def test_int8_is_refused_for_a_model_that_hides_tokens(tmp_path, to, dtype):
    pytest.importorskip("onnxscript", reason="onnxscript is not installed")
    span = "blind((2, 4))"
    model = small_model(vocab_size=len(tokenizer()), encoder_mask=span, cross_mask=f"{span} & wait_k(2)")
    with pytest.raises(InputError, match=r"dtype must be float32 for a model with blind.*, got int8, in which"):
        export(model, to, tmp_path / "new", tokenizer=tokenizer(), dtype=dtype)
    assert not (tmp_path / "new").exists()
