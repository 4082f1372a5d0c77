"""What docs/serving.md says about folders without this package, run as it is printed: the engines by themselves."""

import contextlib
import io
import re
from pathlib import Path

import pytest
from trained_models import TEXTS, tokenizer, trained_model

from crossmask import translate_batch

PAGE = (Path(__file__).parents[2] / "docs" / "serving.md").read_text(encoding="utf-8")
PACKAGES = {"ctranslate2": ("ctranslate2",), "onnx": ("onnx", "onnxscript", "onnxruntime")}


@pytest.mark.parametrize(
    ("engine", "call", "folder", "options"),
    [
        ("ctranslate2", "ctranslate2.Translator(", "multi30k-int8", {"num_beams": 5}),
        ("onnx", "onnxruntime.InferenceSession(", "multi30k-onnx", {"num_beams": 1}),
    ],
)
def test_the_code_of_the_page_runs_an_export_without_this_package(
    engine, call, folder, options, tmp_path, export_trained
):
    for package in PACKAGES[engine]:
        pytest.importorskip(package)
    export_trained(engine, tmp_path / folder)
    (block,) = (code for code in re.findall(r"```python\n(.*?)```", PAGE, flags=re.S) if call in code)
    assert "crossmask" not in block
    assert block.count(f'"{folder}') >= 1
    assert block.count('"A dog barks."') == 1
    expected = translate_batch(trained_model(), tokenizer(), TEXTS[:8], progress=False, max_new_tokens=63, **options)
    assert len(set(expected)) > 5
    for text, wanted in zip(TEXTS[:8], expected, strict=True):
        code = block.replace(f'"{folder}', f'"{tmp_path}/{folder}').replace('"A dog barks."', repr(text))
        code = code.replace("max_decoding_length=100", "max_decoding_length=63").replace("range(100)", "range(63)")
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            exec(compile(code, "docs/serving.md", "exec"), {})
        assert printed.getvalue() == f"{wanted}\n"
