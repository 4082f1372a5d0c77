"""A saved or pushed model is the same model where crossmask is not installed."""

import importlib
import json
from pathlib import Path

import pytest
import torch
from loopback_hub import LoopbackHub
from new_process import run_cases
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import AutoConfig, AutoModel, AutoModelForSeq2SeqLM, AutoTokenizer, PreTrainedTokenizerFast

import crossmask
from crossmask.configuration.crossmask import CrossMaskConfig
from crossmask.hub.registration import register
from crossmask.hub.remote_code import write_code_files
from crossmask.modeling.crossmask import CrossMaskForConditionalGeneration, CrossMaskModel

# What someone who has no crossmask begins with: a folder or repository, and the folder with what to expect.
STRANGER = """
place, expected = sys.argv[1:3]
import torch
from transformers import AutoConfig, AutoModel, AutoModelForSeq2SeqLM

want = torch.load(f"{expected}/want.pt")

def check(name):
    model = AutoModelForSeq2SeqLM.from_pretrained(name, trust_remote_code=True).eval()
    assert type(model).__module__.startswith("transformers_modules."), type(model)
    with torch.no_grad():
        assert torch.equal(model(**want["inputs"]).logits, want["logits"])
        assert torch.equal(model.generate(want["inputs"]["input_ids"], **want["generate"]), want["tokens"])
    return model
"""
# The tokenizer first, which must load no code.
CASES = {
    "tokenizer": """
        import builtins
        from transformers import AutoTokenizer, PreTrainedTokenizerFast

        def prompt(*_):
            raise AssertionError("asked")

        builtins.input = prompt
        for kind, options in ((AutoTokenizer, {"trust_remote_code": False}), (PreTrainedTokenizerFast, {})):
            assert kind.from_pretrained(f"{place}-tokenizer", **options)("a b").input_ids == [4, 5]
        assert not any(name.startswith("transformers_modules.") for name in sys.modules)
        """,
    "saving": """
        import os

        model = check(place)
        model.save_pretrained(f"{expected}/again")
        names = lambda folder: {name for name in os.listdir(folder) if name != "__pycache__"}
        assert names(f"{expected}/again") == names(place)
        second = check(f"{expected}/again")
        assert type(second) is not type(model)
        base = AutoModel.from_pretrained(f"{expected}/again", trust_remote_code=True)
        assert type(base).__name__ == "CrossMaskModel"
        config = AutoConfig.from_pretrained(f"{expected}/again", trust_remote_code=True)
        left, right = config.to_dict(), model.config.to_dict()
        assert left.pop("_name_or_path") != right.pop("_name_or_path")
        assert left == right
        config.save_pretrained(f"{expected}/config")
        assert "configuration_crossmask.py" in names(f"{expected}/config")
        """,
    "use": """
        import copy
        import multiprocessing
        import operator
        import pickle

        model = check(place)
        remote = sys.modules[type(model).__module__.rpartition(".")[0] + ".masks_crossmask"]
        options = {"encoder_mask": "causal()", "cross_mask": "wait_k(1)", "max_new_tokens": 6}
        streamed = torch.load(f"{expected}/streamed.pt")
        with torch.no_grad():
            assert list(model.stream([5, 6, 7, 8, 2], **options)) == streamed
            text = "wait_k(1) & ~drop((2, 3)) | heads({0: 'prefix(1)', 'rest': 'window(1)'})"
            mask = remote.parse(text)
            assert pickle.loads(pickle.dumps(mask)) == mask
            assert type(pickle.loads(pickle.dumps(mask))) is type(mask)
            by_text = model(**want["inputs"], cross_mask=text).logits
            assert not torch.equal(by_text, want["logits"])
            assert torch.equal(model(**want["inputs"], cross_mask=mask).logits, by_text)
            allowed = torch.tril(torch.ones(2, 7, 9, dtype=torch.bool))
            by_tensor = model(**want["inputs"], cross_mask=allowed).logits
            assert torch.equal(model(**want["inputs"], cross_mask=remote.tensor(allowed)).logits, by_tensor)
            for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
                assert torch.equal(twin(**want["inputs"]).logits, want["logits"])
            for implementation in ("sdpa", "eager", "blockwise"):
                model.set_attn_implementation(implementation)
                logits = model(**want["inputs"], cross_mask=mask).logits
                torch.testing.assert_close(logits, by_text, rtol=1e-3, atol=1e-3)
            model.set_attn_implementation("sdpa")
            try:
                mask.plot()
            except ImportError as error:
                assert "run: pip install 'crossmask[plots]'" in str(error)
            else:
                raise AssertionError("plotted")
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            generate = operator.methodcaller("generate", want["inputs"]["input_ids"], **want["generate"])
            assert torch.equal(pool.apply(generate, (model,)), want["tokens"])
            assert pool.apply(eval, ("'crossmask' not in __import__('sys').modules",))
        """,
}
HUB_CASES = {
    "config": """
        from transformers.dynamic_module_utils import get_class_from_dynamic_module

        code = "modeling_crossmask.CrossMaskForConditionalGeneration"
        home = get_class_from_dynamic_module(code, place).__module__.rpartition(".")[0]
        masks, before = (sys.modules[f"{home}.{name}_crossmask"] for name in ("masks", "configuration"))
        wait_k, config = masks.wait_k, before.CrossMaskConfig
        again = get_class_from_dynamic_module("configuration_crossmask.CrossMaskConfig", place)
        assert again is not config and again.__module__ == config.__module__
        assert masks.wait_k is wait_k
        model = check(place)
        assert type(model.config) is again
        with torch.no_grad():
            wanted = model(**want["inputs"], cross_mask="wait_k(1)").logits
            assert torch.equal(model(**want["inputs"], cross_mask=wait_k(1)).logits, wanted)
        """,
    "push": """
        model = check(place)
        model.push_to_hub("tester/onward")
        check("tester/onward")
        """,
}


@pytest.fixture(scope="module")
def expected(model, tmp_path_factory):
    """A folder with inputs and what the model makes of them."""
    folder = tmp_path_factory.mktemp("expected")
    generator = torch.Generator().manual_seed(1)
    inputs = {
        "input_ids": torch.randint(4, 300, (2, 9), generator=generator),
        "attention_mask": torch.tensor([[1] * 9, [1] * 6 + [0] * 3]),
        "decoder_input_ids": torch.randint(4, 300, (2, 7), generator=generator),
    }
    how = {"max_new_tokens": 8, "num_beams": 2, "do_sample": False, "cross_mask": "prefix(1) | window(3)"}
    with torch.no_grad():
        want = {"inputs": inputs, "logits": model(**inputs).logits, "generate": how}
        want["tokens"] = model.generate(inputs["input_ids"], **how)
    torch.save(want, folder / "want.pt")
    return folder


@pytest.fixture
def code(tmp_path):
    """The code files, by name."""
    write_code_files(tmp_path / "code")
    return {path.name: path.read_bytes() for path in (tmp_path / "code").iterdir()}


def test_registration_knows_the_classes_and_may_run_twice(model, tmp_path):
    register()
    model.save_pretrained(tmp_path)
    assert type(AutoConfig.from_pretrained(tmp_path)) is CrossMaskConfig
    assert type(AutoModel.from_pretrained(tmp_path)) is CrossMaskModel
    for trust in (False, True):
        loaded = AutoModelForSeq2SeqLM.from_pretrained(tmp_path, trust_remote_code=trust)
        assert type(loaded) is CrossMaskForConditionalGeneration


def test_importing_the_package_registers(monkeypatch):
    calls = []
    monkeypatch.setattr("crossmask.hub.registration.register", lambda: calls.append(1))
    importlib.reload(crossmask)
    assert calls


def test_a_saved_folder_holds_weights_config_and_code(model, tmp_path, code):
    model.save_pretrained(tmp_path / "m")
    names = {path.name for path in (tmp_path / "m").iterdir()}
    assert names == {"config.json", "generation_config.json", "model.safetensors", *code}
    for name, data in code.items():
        assert (tmp_path / "m" / name).read_bytes() == data
    auto_map = json.loads((tmp_path / "m" / "config.json").read_text())["auto_map"]
    assert set(auto_map) == {"AutoConfig", "AutoModel", "AutoModelForSeq2SeqLM"}
    for reference in auto_map.values():
        module, name = reference.split(".")
        assert f"class {name}(" in code[f"{module}.py"].decode()


def test_configs_do_not_share_their_auto_map(model, tmp_path):
    config = CrossMaskConfig()
    config.save_pretrained(tmp_path)
    config.auto_map["AutoModel"] = "other.Model"
    CrossMaskConfig().save_pretrained(tmp_path)
    assert AutoConfig.from_pretrained(tmp_path).auto_map["AutoModel"] == "modeling_crossmask.CrossMaskModel"


@pytest.fixture(scope="module")
def failed(model, expected, tmp_path_factory) -> dict[str, str]:
    """The tracebacks of the cases that failed on a saved folder, by name."""
    folder = tmp_path_factory.mktemp("saved")
    for name in ("first-1.0", "first-1.0-tokenizer"):
        model.save_pretrained(folder / name)
    add_tokenizer(folder / "first-1.0-tokenizer")
    with torch.no_grad():
        options = {"encoder_mask": "causal()", "cross_mask": "wait_k(1)", "max_new_tokens": 6}
        torch.save(list(model.stream([5, 6, 7, 8, 2], **options)), expected / "streamed.pt")
    return run_cases(STRANGER, CASES, folder / "first-1.0", expected, cwd=folder)


def test_a_stranger_loads_saves_and_loads_again(model, expected, failed):
    assert "saving" not in failed, failed["saving"]
    loaded = AutoModelForSeq2SeqLM.from_pretrained(expected / "again")
    assert type(loaded) is CrossMaskForConditionalGeneration
    for name, value in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value)


def test_a_stranger_masks_streams_copies_and_spawns(failed):
    """Everything that a model does, in the copy of the code that lies beside it."""
    assert "use" not in failed, failed["use"]


def test_a_pushed_model_is_the_same_for_a_stranger_who_can_push_it_on(model, expected, tmp_path, hub, code):
    """And who may ask for the config after the model: Transformers then runs the module of the config again; the masks
    are in another one, so there is one of each."""
    model.push_to_hub("tester/pushed")
    files = hub.files("tester/pushed")
    assert set(files) == {
        ".gitattributes",
        "README.md",
        "config.json",
        "generation_config.json",
        "model.safetensors",
        *code,
    }
    assert {name: files[name] for name in code} == code
    assert "library_name: transformers" in files["README.md"].decode()
    environment = hub.environment(tmp_path / "home")
    assert run_cases(STRANGER, HUB_CASES, "tester/pushed", expected, cwd=tmp_path, **environment) == {}
    assert set(hub.files("tester/onward")) == set(files)


def test_saving_with_push_uploads_the_code_even_where_it_lay_before(model, tmp_path, hub, code):
    model.save_pretrained(tmp_path / "m")
    model.save_pretrained(tmp_path / "m", push_to_hub=True, repo_id="tester/m")
    assert set(code) <= set(hub.files("tester/m"))


def test_a_config_alone_carries_its_code(model, tmp_path, hub, code):
    model.config.push_to_hub("tester/config")
    assert set(code) <= set(hub.files("tester/config"))


def test_a_card_that_is_there_stays(model, tmp_path, hub):
    from crossmask.hub.upload import push_folder

    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "README.md").write_text("---\nlicense: mit\n---\n\n# Mine\n")
    push_folder(tmp_path / "m", "tester/m")
    model.push_to_hub("tester/m")
    assert b"# Mine" in hub.files("tester/m")["README.md"]


def add_tokenizer(folder: Path) -> None:
    words = Tokenizer(WordLevel({"<pad>": 0, "<s>": 1, "</s>": 2, "<unk>": 3, "a": 4, "b": 5}, unk_token="<unk>"))
    words.pre_tokenizer = Whitespace()
    named = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    PreTrainedTokenizerFast(tokenizer_object=words, **named).save_pretrained(folder)


def test_a_tokenizer_needs_none_of_our_code(model, failed, tmp_path, monkeypatch):
    """Nor a prompt. (Without crossmask, Transformers asks about any config with code, unless it is told not to.)"""
    assert "tokenizer" not in failed, failed["tokenizer"]
    model.save_pretrained(tmp_path / "m")
    add_tokenizer(tmp_path / "m")
    assert "auto_map" not in json.loads((tmp_path / "m" / "tokenizer_config.json").read_text())
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("asked"))
    assert AutoTokenizer.from_pretrained(tmp_path / "m")("a b").input_ids == [4, 5]


def test_the_hub_of_the_tests_listens_on_loopback_only():
    with LoopbackHub() as hub:
        assert hub.endpoint.startswith("http://127.0.0.1:")
