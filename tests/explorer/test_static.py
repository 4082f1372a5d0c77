"""What `--write-static` refuses before it works, and what the page's files are pinned to."""

import json
import re

import pytest
from small_models import small_model
from streaming_cases import tiny

from crossmask.cli.main import main
from crossmask.explorer import static_site, write_static
from crossmask.explorer.graphs import save_graphs
from crossmask.explorer.page_files import PAGE, POLICY
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
