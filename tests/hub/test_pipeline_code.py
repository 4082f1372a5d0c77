"""The pipelines that a saved model carries, under the names that Transformers took away."""

import json
from pathlib import Path

import pytest
from new_process import run_code
from pipeline_cases import KINDS, parts
from question_cases import tiny_reader
from streaming_cases import TEXTS
from transformers import AutoConfig, pipeline

import crossmask
from crossmask.hub.remote_code import ENTRIES, PIPELINES, write_code_files
from crossmask.pipelines.registration import CODE_FILE, custom_pipelines

STRANGER = """
import json
from transformers import pipeline

results = []
for number, (task, folder, inputs, options) in enumerate(json.loads(sys.argv[1])):
    pipe = pipeline(task, model=folder, trust_remote_code=True, device="cpu")
    pipe.save_pretrained(f"saved-{number}")
    again = pipeline(task, model=f"saved-{number}", trust_remote_code=True, device="cpu")
    assert again(inputs, **options) == pipe(inputs, **options)
    results.append(pipe(inputs, **options))
print(json.dumps(results))
"""
MODELS = ("crossmask", "bridge", "question answering")


def case_of(kind: str, folder: Path) -> tuple[str, str, list, dict]:
    """A task, a folder with a model, inputs for it, and options of the call."""
    for part in parts(kind) if kind in KINDS else tiny_reader(True):
        part.save_pretrained(folder)
    if kind in KINDS:
        inputs = [TEXTS[0], {"text": TEXTS[1], "cross_mask": "wait_k(1)"}]
        return "translation", str(folder), inputs, {"batch_size": 2}
    question = {"question": "where is ann ?", "context": "bob left . ann is in"}
    return "question-answering", str(folder), [question], {}


@pytest.fixture(scope="module")
def cases(tmp_path_factory) -> dict[str, tuple[str, str, list, dict]]:
    return {kind: case_of(kind, tmp_path_factory.mktemp("model") / "tiny-1.0") for kind in MODELS}


@pytest.fixture(scope="module")
def results(cases, tmp_path_factory) -> dict[str, list]:
    """What the pipelines give someone who has no crossmask, and who saves each and loads it again."""
    printed = run_code(STRANGER, json.dumps(list(cases.values())), cwd=tmp_path_factory.mktemp("stranger"))
    return dict(zip(cases, json.loads(printed.splitlines()[-1]), strict=True))


@pytest.mark.parametrize("kind", MODELS)
def test_a_stranger_has_the_pipeline_and_saves_it(cases, results, kind):
    task, folder, inputs, options = cases[kind]
    mine = pipeline(f"crossmask-{task}", model=folder, device="cpu")(inputs, **options)
    for one, other in zip(results[kind], mine, strict=True):
        score, wanted = one.pop("score", 0.0), other.pop("score", 0.0)
        assert (one, score) == (other, pytest.approx(wanted, abs=1e-5))


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("trust", [None, True])
def test_where_crossmask_is_imported_its_own_pipeline_serves_a_saved_model(cases, kind, trust):
    task, folder, *_ = cases[kind]
    pipe = pipeline(task, model=folder, trust_remote_code=trust, device="cpu")
    assert type(pipe).__module__.startswith("crossmask.pipelines.")


@pytest.mark.parametrize("kind", MODELS)
def test_the_config_on_disk_names_the_pipelines_and_the_one_in_memory_only_those_of_others(cases, kind, tmp_path):
    folder = Path(cases[kind][1])
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
