"""Transformers' own common tests pass on our classes. They come from its source distribution, by `pip download`."""

import os
import subprocess
import sys
import tarfile
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
import transformers

SUITE = Path(__file__).parents[1] / "transformers_suite.py"


def download(requirement: str, folder: Path, *options: str) -> Path:
    """The one file that `pip download` puts into `folder`, which is a cache; the test is skipped if there is none."""
    folder.mkdir(parents=True, exist_ok=True)
    if not any(folder.iterdir()):
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--dest", str(folder), *options, requirement]
        pip = subprocess.run(command, capture_output=True, text=True, timeout=300)
        if pip.returncode:
            reason = (pip.stderr.strip().splitlines() or ["no output"])[-1]
            pytest.skip(f"the package index did not give {requirement}: {reason}")
    return next(folder.iterdir())


@pytest.fixture(scope="module")
def environment(pytestconfig) -> dict[str, str]:
    """What the suite needs: the folder of Transformers' tests, and `parameterized`, which they import."""
    cache = pytestconfig.cache.mkdir("transformers-tests")
    wheel = download("parameterized", cache / "parameterized", "--only-binary=:all:")
    source = Path(os.environ.get("TRANSFORMERS_TESTS", ""))
    if "TRANSFORMERS_TESTS" not in os.environ:
        name = f"transformers-{transformers.__version__}"
        archive = download(f"transformers=={transformers.__version__}", cache / f"{name}-sdist", "--no-binary=:all:")
        source = cache / name / "tests"
        if not source.exists():
            with tarfile.open(archive) as file:
                safely = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}  # not before Python 3.11.4
                file.extractall(cache, [m for m in file if m.name.startswith(f"{name}/tests/")], **safely)
        (source / "__init__.py").touch()  # the tests of configs import it
    return {**os.environ, "TRANSFORMERS_TESTS": str(source), "PYTHONPATH": str(wheel), "HF_HUB_OFFLINE": "1"}


@pytest.mark.slow
@pytest.mark.parametrize("initializer_range", ["0.02", "0.2"])  # at 0.02 a small model's attention is flat
def test_common_tests_pass(environment, tmp_path, initializer_range):
    environment = {**environment, "INITIALIZER_RANGE": initializer_range}
    (tmp_path / "pytest.ini").write_text("[pytest]\n")  # ours deselects, and counts their markers as errors
    report = tmp_path / "report.xml"
    options = ["-q", "--tb=short", "-W", "ignore", "-p", "no:cacheprovider", f"--junitxml={report}"]
    command = [sys.executable, "-m", "pytest", "-c", str(tmp_path / "pytest.ini"), *options, str(SUITE)]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=580, cwd=tmp_path)
    assert run.returncode == 0, run.stdout[-8000:] + run.stderr[-2000:]
    cases = ElementTree.parse(report).getroot().findall(".//testcase")
    passed = {case.get("name") for case in cases if case.find("skipped") is None}
    assert len(passed) > 90
    assert {"test_training_gradient_checkpointing", "test_tp_plan_matches_params", "test_config"} <= passed
