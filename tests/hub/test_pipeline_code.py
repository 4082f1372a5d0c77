"""The pipelines that a saved model carries, under the names that Transformers took away."""

import json
import os
import subprocess
import sys
import textwrap

import pytest
from pipeline_cases import KINDS, parts
from question_cases import tiny_reader
from streaming_cases import TEXTS
from transformers import AutoConfig, pipeline

import crossmask
from crossmask.hub.remote_code import ENTRIES, PIPELINES, write_code_files
from crossmask.pipelines.registration import CODE_FILE, custom_pipelines

STRANGER = """
import json, sys
from transformers import pipeline

task, folder, saved, inputs, options = sys.argv[1], sys.argv[2], sys.argv[3], *map(json.loads, sys.argv[4:])
pipe = pipeline(task, model=folder, trust_remote_code=True, device="cpu")
assert "crossmask" not in sys.modules
pipe.save_pretrained(saved)
again = pipeline(task, model=saved, trust_remote_code=True, device="cpu")
assert again(inputs, **options) == pipe(inputs, **options)
print(json.dumps(pipe(inputs, **options)))
"""


@pytest.fixture(scope="module", params=["crossmask", "bridge", "question answering"])
def saved(request, tmp_path_factory):
    """A task, a folder, inputs for them, and options of the call."""
    folder = tmp_path_factory.mktemp("model") / "tiny-1.0"
    generates = request.param in KINDS
    for part in parts(request.param) if generates else tiny_reader(True):
        part.save_pretrained(folder)
    if generates:
        return "translation", folder, [TEXTS[0], {"text": TEXTS[1], "cross_mask": "wait_k(1)"}], {"batch_size": 2}
    return "question-answering", folder, [{"question": "where is ann ?", "context": "bob left . ann is in"}], {}


def test_a_stranger_has_the_pipeline_and_saves_it(saved, tmp_path):
    task, folder, inputs, options = saved
    arguments = [task, str(folder), str(tmp_path / "saved"), json.dumps(inputs), json.dumps(options)]
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(STRANGER), *arguments],
        cwd=tmp_path,
        env={**os.environ, "HF_MODULES_CACHE": str(tmp_path / "modules"), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    mine = pipeline(f"crossmask-{task}", model=str(folder), device="cpu")(inputs, **options)
    found = json.loads(done.stdout)
    for one, other in zip(found, mine, strict=True):
        score, wanted = one.pop("score", 0.0), other.pop("score", 0.0)
        assert (one, score) == (other, pytest.approx(wanted, abs=1e-5))


@pytest.mark.parametrize("trust", [None, True])
def test_where_crossmask_is_imported_its_own_pipeline_serves_a_saved_model(saved, trust):
    task, folder, *_ = saved
    pipe = pipeline(task, model=str(folder), trust_remote_code=trust, device="cpu")
    assert type(pipe).__module__.startswith("crossmask.pipelines.")


def test_the_config_on_disk_names_the_pipelines_and_the_one_in_memory_only_those_of_others(saved, tmp_path):
    _, folder, _, _ = saved
    written = json.loads((folder / "config.json").read_text())
    code = (folder / f"{CODE_FILE}.py").read_text()
    for info in written["custom_pipelines"].values():
        module, name = info["impl"].split(".")
        assert (module, f"class {name}(" in code) == (CODE_FILE, True)
    config = AutoConfig.from_pretrained(folder)
    assert not config.custom_pipelines
    config.custom_pipelines = {**written["custom_pipelines"], "rhyme": {"impl": "rhymes.Rhyme"}}
    assert set(config.custom_pipelines) == {"rhyme"}
    config.save_pretrained(tmp_path)
    again = json.loads((tmp_path / "config.json").read_text())["custom_pipelines"]
    assert again == {**written["custom_pipelines"], "rhyme": {"impl": "rhymes.Rhyme"}}
    assert set(config.custom_pipelines) == {"rhyme"}


@pytest.mark.parametrize("model_type", PIPELINES)
def test_every_model_type_with_pipelines_writes_their_code(model_type, tmp_path):
    assert model_type in ENTRIES
    write_code_files(tmp_path, model_type)
    code = (tmp_path / f"{CODE_FILE}.py").read_text()
    for info in custom_pipelines(PIPELINES[model_type]).values():
        assert f"class {info['impl'].split('.')[1]}(" in code
    assert "crossmask.attached" not in code
    assert crossmask.__version__ in code
