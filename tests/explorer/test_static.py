"""What `--write-static` refuses before it works, and what the page's files are pinned to."""

import json
import re

import numpy as np
import pytest
from small_models import small_model
from streaming_cases import tiny
from trained_models import trained_model

from crossmask.cli.main import main
from crossmask.explorer import static_site, write_static
from crossmask.explorer.graphs import save_graphs
from crossmask.explorer.page_files import PAGE, POLICY
from crossmask.serving.onnx_export import quantise
from crossmask.utils.errors import InputError


def test_a_folder_that_exists_is_left_alone(tmp_path, capsys):
    assert main(["explore", "nowhere", "--write-static", str(tmp_path)]) == 2
    assert "must not exist yet" in capsys.readouterr().err
    assert main(["explore", str(tmp_path / "nowhere"), "--write-static", str(tmp_path / "new")]) == 2
    assert "nowhere" in capsys.readouterr().err
    assert not [*tmp_path.iterdir()]


def test_packages_without_static_files_are_refused(tmp_path, capsys):
    assert main(["explore", "nowhere", "--node-modules", str(tmp_path)]) == 2
    assert "--node-modules must be left out without --write-static" in capsys.readouterr().err


def test_a_model_that_no_browser_can_run_is_refused(tmp_path):
    with pytest.raises(InputError, match="crossmask explore MODEL"):
        save_graphs(object(), tmp_path)
    with pytest.raises(InputError, match="must have no memory"):
        save_graphs(small_model(memory_length=3), tmp_path)


@pytest.mark.slow
def test_hidden_words_change_nothing_in_float32_and_something_in_int8(tmp_path):
    """Why the graphs of the page are not int8: activations then have one scale for all tokens."""
    onnx, runtime = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript", reason="onnxscript is not installed")
    model = trained_model()
    save_graphs(model, tmp_path)
    quantise(onnx.load(tmp_path / "encoder.onnx"), tmp_path / "int8.onnx")
    config = model.config
    mask = np.ones((config.encoder_layers, config.num_attention_heads, 8, 8), bool)
    mask[..., 2:4] = False
    seen = [0, 1, 4, 5, 6, 7]

    def states(name: str, hidden: tuple[int, int]) -> np.ndarray:
        ids = np.array([[7, 9, *hidden, 11, 13, 15, 2]])
        session = runtime.InferenceSession(tmp_path / name)
        return session.run(None, {"input_ids": ids, "encoder_mask": mask})[0][0, seen]

    for name, is_exact in (("encoder.onnx", True), ("int8.onnx", False)):
        others = [states(name, hidden) for hidden in ((20, 21), (30, 31), (40, 41), (50, 51))]
        assert all((state == others[0]).all() for state in others) == is_exact


def test_packages_that_are_not_there(tmp_path, monkeypatch):
    with pytest.raises(InputError, match="npm ci beside"), static_site._given(tmp_path):
        pass
    monkeypatch.setattr(static_site.shutil, "which", lambda name: None)
    with pytest.raises(InputError, match="npm must be installed"), static_site._installed():
        pass


def test_an_error_on_the_way_leaves_nothing_behind(tmp_path, monkeypatch):
    model, tokenizer = tiny()
    monkeypatch.setattr(static_site, "load_model_and_tokenizer", lambda *args: (model, tokenizer))
    monkeypatch.setattr(static_site, "save_graphs", lambda model, folder: None)
    with pytest.raises(InputError, match="node-modules"):
        write_static("tiny", tmp_path / "site", node_modules=tmp_path)
    assert not [*tmp_path.iterdir()]


def test_the_page_names_its_engine_and_its_policy():
    page = static_site._for_browser((PAGE / "index.html").read_text(encoding="utf-8"))
    assert '<meta name="engine" content="browser">' in page
    assert POLICY in page


def test_no_script_or_style_is_inside_of_the_page_and_nothing_comes_from_elsewhere():
    for path in PAGE.rglob("*"):
        if path.suffix in (".html", ".js", ".css") and path.parent == PAGE:
            text = path.read_text(encoding="utf-8")
            assert not re.search(r"https?://(?!localhost)[^ ]*\.(?:js|mjs|css|wasm)", text), path.name
            assert not re.search(r"<script(?![^>]*\bsrc=)|<style| style=\"|\bon\w+=\"", text), path.name


def test_packages_are_pinned():
    package = json.loads((PAGE.parent / "package.json").read_text())
    locked = json.loads((PAGE.parent / "package-lock.json").read_text())["packages"]
    for name, version in {**package["dependencies"], **package["devDependencies"]}.items():
        assert locked[f"node_modules/{name}"]["version"] == version
        assert locked[f"node_modules/{name}"]["integrity"]
