"""The folder for browsers: what transformers.js reads, and what it writes in a real one."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from small_models import small_model
from trained_models import TEXTS, tokenizer, trained_model

from crossmask import translate_batch
from crossmask.serving import export, load_translator
from crossmask.serving.web import web_config

MODULES = os.environ.get("CROSSMASK_NODE_MODULES")
SCRIPT = Path(__file__).with_name("browser.mjs")


def test_the_config_has_the_sizes_of_an_empty_cache():
    model = small_model(num_attention_heads=4, num_key_value_heads=2, head_dim=6, encoder_layers=3)
    config = web_config(model)
    assert config["model_type"] == "bart"
    assert (config["decoder_attention_heads"], config["d_model"] // config["decoder_attention_heads"]) == (2, 6)
    assert (config["encoder_layers"], config["decoder_layers"]) == (3, 2)
    assert (config["eos_token_id"], config["decoder_start_token_id"]) == (2, 1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    pytest.importorskip("onnxscript", reason="onnxscript is not installed")
    return export(trained_model(), "web", tmp_path_factory.mktemp("exports") / "web", tokenizer=tokenizer()).folder


@pytest.fixture(scope="module")
def expected():
    return translate_batch(trained_model(), tokenizer(), TEXTS, progress=False, num_beams=1)


@pytest.mark.slow
def test_the_folder_runs_in_python_too(folder, expected):
    names = ("encoder_model", "decoder_model_merged")
    assert {path.name for path in (folder / "onnx").iterdir()} == {
        f"{name}{suffix}.onnx" for name in names for suffix in ("", "_quantized")
    }
    with load_translator(folder, threads=1) as translator:
        assert (translator.engine, translator.dtype) == ("onnx", "float32")
        assert translator.translate(TEXTS, 1) == expected
    with load_translator(folder, dtype="int8", threads=1) as translator:
        outputs = translator.translate(TEXTS, 1)
        assert sum(a == b for a, b in zip(outputs, expected, strict=True)) > 0.8 * len(TEXTS)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("node") is None, reason="Node is not installed")
@pytest.mark.skipif(
    not MODULES,
    reason="CROSSMASK_NODE_MODULES must name a folder with @huggingface/transformers, puppeteer-core and "
    "@sparticuz/chromium",
)
def test_a_browser_writes_the_same_texts(folder, expected, tmp_path):
    (tmp_path / "texts.json").write_text(json.dumps(TEXTS))
    command = ["node", str(SCRIPT), MODULES, str(folder), str(tmp_path / "texts.json")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    outputs = json.loads(done.stdout.splitlines()[-1])
    assert outputs["fp32"] == expected
    assert sum(a == b for a, b in zip(outputs["q8"], expected, strict=True)) > 0.8 * len(TEXTS)
