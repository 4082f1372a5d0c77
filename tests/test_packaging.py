"""The package installs: editable, from the root itself, and as a wheel."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import crossmask

ROOT = Path(__file__).parents[1]
LEFT_BEHIND = shutil.ignore_patterns(".*", "runs", "node_modules", "build", "dist", "*.egg-info", "__pycache__")
SCRIPT = """
import json, pathlib, crossmask, crossmask.train, crossmask.tasks.metrics
from crossmask.tasks import get_task
from crossmask.hub.remote_code import write_code_files
root = pathlib.Path(crossmask.__file__).parent
write_code_files("code")
print(json.dumps({"root": str(root), "files": sorted(str(p.relative_to(root)) for p in root.rglob("*") if p.is_file()),
                  "code": sorted(p.name for p in pathlib.Path("code").iterdir()),
                  "task": get_task("translation").name, "mask": str(crossmask.masks.parse("wait_k(3)"))}))
"""


def test_the_editable_install_is_this_folder():
    assert Path(crossmask.__file__).parent == ROOT


def test_the_version_is_written_once_and_other_files_agree(wheel):
    assert "version = " not in (ROOT / "pyproject.toml").read_text().split("[tool.")[0]
    assert wheel.name.split("-")[1] == crossmask.__version__
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == crossmask.__version__
    released = re.search(r"^## (\d\S*) - (\S+)$", (ROOT / "CHANGELOG.md").read_text(), flags=re.M)
    assert released.groups() == (citation["version"], str(citation["date-released"]))


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("wheel")
    shutil.copytree(ROOT, place / "source", ignore=LEFT_BEHIND)
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*build, "--wheel-dir", str(place), str(place / "source")], check=True, capture_output=True)
    return next(place.glob("crossmask-*.whl"))


def test_the_wheel_works_by_itself(wheel, tmp_path):
    target = tmp_path / "installed"
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", str(target)]
    subprocess.run([*install, str(wheel)], check=True, capture_output=True)
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], cwd=tmp_path, env={"PYTHONPATH": str(target)}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["root"] == str(target / "crossmask")
    assert (found["task"], found["mask"]) == ("translation", "wait_k(3)")
    assert {
        "py.typed",
        "recipes/cldr-demo.yaml",
        "model_cards/template.md",
        "train.py",
        "explorer/page/vendor/preact.js",
    } <= set(found["files"])
    names = ("configuration", "masks", "modeling", "pipelines")
    assert found["code"] == [f"{name}_crossmask.py" for name in names]
    assert not [name for name in found["files"] if name.startswith(("tests", "benchmarks", "runs"))]
