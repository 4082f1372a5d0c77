"""What `export` takes, leaves as it was, and writes: the same for every engine."""

import copy
from itertools import product

import pytest
import torch
from small_models import small_config, small_model, tokens
from tokenizers import Tokenizer
from trained_models import TEXTS, tokenizer
from transformers import BartConfig, BartForConditionalGeneration

from crossmask import CrossMaskForConditionalGeneration, CrossMaskModel
from crossmask.serving import export
from crossmask.utils.errors import InputError

NEEDS = {"ctranslate2": "ctranslate2", "onnx": "onnxscript", "web": "onnxscript"}
WEIGHTS = ("model.bin", "*.onnx", "onnx/*.onnx")
DTYPES = ("float32", "bfloat16", "moved to bfloat16")
# An export of graphs takes seconds: those are slow tests.
CASES = [
    case if case[0] == "ctranslate2" else pytest.param(*case, marks=pytest.mark.slow)
    for case in product(NEEDS, DTYPES)
]
INPUTS = {"input_ids": tokens(2, 9), "decoder_input_ids": tokens(2, 30, seed=1)}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A model whose weights bfloat16 has exactly, and whose rotary frequencies it has not."""
    folder = tmp_path_factory.mktemp("saved")
    sizes = {"head_dim": 16, "encoder_layers": 1, "decoder_layers": 1, "tie_word_embeddings": "head"}
    small_model(vocab_size=len(tokenizer()), **sizes).to(torch.bfloat16).float().save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder


def load(folder, dtype: str):
    of_file = torch.bfloat16 if dtype == "bfloat16" else torch.float32
    model = CrossMaskForConditionalGeneration.from_pretrained(folder, dtype=of_file)
    return model.to(torch.bfloat16) if dtype == "moved to bfloat16" else model


def state_of(model) -> dict:
    """All that an export could change."""
    with torch.no_grad():
        logits = copy.deepcopy(model).eval()(**INPUTS).logits
    tensors = (*model.named_parameters(), *model.named_buffers())
    return {
        "tensors": {name: (id(value), value.clone()) for name, value in tensors},
        "training": [module.training for module in model.modules()],
        "attention": model.config._attn_implementation,
        "config": model.config.to_dict(),
        "generation": model.generation_config.to_dict(),
        "grad": [parameter.requires_grad for parameter in model.parameters()],
        "logits": logits,
    }


@pytest.fixture(scope="module")
def files_of_folder(saved, tmp_path_factory):
    """By engine, the files of weights that an export of the saved model writes."""
    written = {}

    def of(engine: str) -> dict[str, bytes]:
        if engine not in written:
            written[engine] = weights(export(saved, engine, tmp_path_factory.mktemp("exports") / engine).folder)
        return written[engine]

    return of


def weights(folder) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for pattern in WEIGHTS for path in folder.glob(pattern)}


@pytest.mark.parametrize(("engine", "dtype"), CASES)
def test_a_model_in_memory_stays_as_it_was_and_is_exported_as_from_its_folder(
    engine, dtype, saved, files_of_folder, tmp_path
):
    pytest.importorskip(NEEDS[engine])
    model = load(saved, dtype).train(dtype != "float32")
    model.set_attn_implementation("sdpa" if dtype == "float32" else "eager")
    model.model.encoder.eval()  # a mode of its own
    model.model.decoder.embed_tokens.weight.requires_grad_(False)
    before = state_of(model)
    written = export(model, engine, tmp_path / "new", tokenizer=tokenizer()).folder
    after = state_of(model)
    torch.testing.assert_close(after.pop("logits"), before.pop("logits"), rtol=0, atol=0)
    for name, (identity, value) in after.pop("tensors").items():
        assert identity == before["tensors"][name][0]
        torch.testing.assert_close(value, before["tensors"][name][1], rtol=0, atol=0)
    del before["tensors"]
    assert after == before
    assert weights(written) == files_of_folder(engine)
    assert len(weights(written)) == {"ctranslate2": 1, "onnx": 2, "web": 4}[engine]


@pytest.mark.parametrize("engine", NEEDS)
@pytest.mark.parametrize(
    ("model", "given", "message"),
    [
        (
            lambda: CrossMaskModel(small_config()),
            tokenizer,
            "got CrossMaskModel; load it with its language-model head",
        ),
        (
            lambda: small_model(vocab_size=40),
            tokenizer,
            r"ids below the model's vocab_size=40, got \d\d; give the tokenizer",
        ),
        (lambda: small_model(), lambda: "tokenizer.json", "tokenizer must be a tokenizer of Transformers, got str"),
    ],
)
def test_what_no_engine_can_run_is_refused_before_work(engine, model, given, message, tmp_path):
    pytest.importorskip(NEEDS[engine])
    with pytest.raises(InputError, match=message) as error:
        export(model(), engine, tmp_path / "new", tokenizer=given())
    assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("engine", NEEDS)
def test_a_model_of_another_package_is_refused_with_where_to_go(engine, tmp_path):
    pytest.importorskip(NEEDS[engine])
    bart = BartForConditionalGeneration(
        BartConfig(
            vocab_size=60,
            d_model=8,
            encoder_layers=1,
            decoder_layers=1,
            encoder_attention_heads=2,
            decoder_attention_heads=2,
        )
    )
    with pytest.raises(InputError, match=r"must be a CrossMaskForConditionalGeneration, got .*; (export|use) "):
        export(bart, engine, tmp_path / "new", tokenizer=tokenizer())


def test_the_tokenizer_is_saved_without_what_its_last_call_set(tmp_path):
    pytest.importorskip("ctranslate2")
    used, text = copy.deepcopy(tokenizer()), TEXTS[2]
    used([text], truncation=True, max_length=3, padding="max_length")
    settings = used.backend_tokenizer.truncation, used.backend_tokenizer.padding
    assert None not in settings
    written = export(small_model(vocab_size=len(used)), "ctranslate2", tmp_path / "new", tokenizer=used).folder
    alone = Tokenizer.from_file(str(written / "tokenizer.json"))
    assert alone.encode(text).ids == tokenizer()(text)["input_ids"]
    assert alone.encode("a").ids == tokenizer()("a")["input_ids"]
    assert (used.backend_tokenizer.truncation, used.backend_tokenizer.padding) == settings
