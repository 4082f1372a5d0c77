"""The explorer as a folder of static files, whose model runs in the reader's browser."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from ..inference.loading import load_model_and_tokenizer
from ..utils.disk import naming_full_disks
from ..utils.errors import InputError
from .graphs import save_graphs
from .model import ExploredModel
from .page_files import PAGE, POLICY

_LOCK = ("package.json", "package-lock.json")
_PACKAGES = {
    "onnxruntime-web/dist/ort.wasm.bundle.min.mjs": "ort.mjs",
    "onnxruntime-web/dist/ort-wasm-simd-threaded.wasm": "ort-wasm-simd-threaded.wasm",
    "@huggingface/tokenizers/dist/tokenizers.min.mjs": "tokenizers.mjs",
    "@huggingface/tokenizers/LICENSE": "tokenizers.LICENSE",
}
"""Files of the packages that a page runs a model with, and their names in `runtime/`."""
_CARD = """---
title: crossmask explorer
emoji: 🔎
colorFrom: blue
colorTo: indigo
sdk: static
pinned: false
license: apache-2.0
short_description: What an attention mask does to a translation
---

A page that shows what masks do to the output of an encoder-decoder. The model runs in the reader's browser.
It was written by `crossmask explore MODEL --write-static FOLDER`. `runtime/` has files of onnxruntime-web (MIT) and of
@huggingface/tokenizers (Apache-2.0), and `vendor/` has Preact (MIT) and htm (Apache-2.0).
"""


def write_static(
    name: str, output: str | os.PathLike[str], *, node_modules: str | os.PathLike[str] | None = None
) -> Path:
    """Write the page, the model and what runs it in a browser into a folder, which a static Space can have.

    Args:
        name: a folder or a name on the Hub, of a model of our own. output: a folder that does not exist yet.
        node_modules: a folder with the packages of `package.json`; npm installs them by default.

    Raises:
        InputError: another kind of model, an output that exists, packages that are not there.
        MissingLibraryError: ONNX is not installed. OSError: the model does not exist, or npm cannot install.
    """
    folder = Path(output)
    if folder.exists():
        raise InputError(f"{folder} must not exist yet; delete it, or choose another folder")
    model, tokenizer = load_model_and_tokenizer(name, torch.float32)
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    try:
        with naming_full_disks(folder.parent):
            shutil.copytree(PAGE, temporary)
            page = temporary / "index.html"
            page.write_text(_for_browser(page.read_text(encoding="utf-8")), encoding="utf-8")
            (temporary / "model").mkdir()
            save_graphs(model, temporary / "model")
            explored = ExploredModel(model, tokenizer, Path(name).name)
            facts = {**explored.facts, "kind": "browser", **_special_tokens(explored)}
            (temporary / "model" / "facts.json").write_text(json.dumps(facts) + "\n")
            tokenizer.save_pretrained(temporary / "model")
            _copy_runtime(temporary / "runtime", node_modules)
            (temporary / "README.md").write_text(_CARD, encoding="utf-8")
            os.replace(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder


def _for_browser(html: str) -> str:
    """The page with the engine of the browser, and with the policy that a server sends as a header."""
    engine, charset = '<meta name="engine" content="server">', '<meta charset="utf-8">'
    assert html.count(engine) == html.count(charset) == 1
    policy = f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
    html = html.replace(engine, engine.replace("server", "browser"))
    return html.replace(charset, f"{charset}\n    {policy}")


def _special_tokens(explored: ExploredModel) -> dict[str, object]:
    config = explored.model.generation_config
    ends = config.eos_token_id
    return {
        "start": config.decoder_start_token_id,
        "ends": ends if isinstance(ends, list) else [ends],
        "special": sorted({*explored.tokenizer.all_special_ids, *explored.tokenizer.added_tokens_decoder}),
        "others": explored.others,
    }


def _copy_runtime(folder: Path, node_modules: str | os.PathLike[str] | None) -> None:
    with _installed() if node_modules is None else _given(Path(node_modules)) as modules:
        folder.mkdir()
        for source, target in _PACKAGES.items():
            shutil.copyfile(modules / source, folder / target)


@contextmanager
def _given(modules: Path) -> Iterator[Path]:
    for path in _PACKAGES:
        if not (modules / path).is_file():
            raise InputError(
                f"--node-modules must have {path}, got {modules} without it; run npm ci beside explorer/package.json"
            )
    yield modules


@contextmanager
def _installed() -> Iterator[Path]:
    """The packages, as npm installs what the lock file names."""
    npm = shutil.which("npm")
    if npm is None:
        raise InputError(
            "npm must be installed to write the static page, which has packages of its registry; install Node.js, or "
            "give --node-modules FOLDER"
        )
    with TemporaryDirectory() as place:
        for name in _LOCK:
            shutil.copyfile(PAGE.parent / name, Path(place, name))
        command = [npm, "ci", "--ignore-scripts", "--omit=dev", "--no-audit", "--no-fund"]
        done = subprocess.run(command, cwd=place, capture_output=True, text=True)
        if done.returncode:
            reason = " ".join(done.stderr.split())[-300:]
            raise OSError(f"npm must install the packages of the page, got an error: {reason}; check the network")
        yield Path(place, "node_modules")
