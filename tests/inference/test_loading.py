"""Models and tokenizers that cannot be loaded: one line that names the file, before anything is translated."""

import json
import shutil
import sys

import pytest
import torch
from command_line import command
from safetensors.torch import load_file, save_file
from streaming_cases import tiny

from crossmask import translate_batch
from crossmask.explorer import load_explored_model
from crossmask.inference import loading
from crossmask.inference.loading import choose_dtype, load_config, load_model_and_tokenizer
from crossmask.server import load_served_model
from crossmask.serving import load_translator
from crossmask.utils.errors import InputError

main = command("translate")


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    for part in tiny():
        part.save_pretrained(folder)
    return folder


@pytest.fixture
def folder(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "model")


def cut_weights(folder):
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data[: len(data) // 2])


def lose_weights(folder):
    weights = load_file(folder / "model.safetensors")
    kept = {name: weight for name, weight in weights.items() if "decoder.layers.0" not in name}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})


def write(name, text):
    return lambda folder: (folder / name).write_text(text)


def remove(*names):
    return lambda folder: [(folder / name).unlink() for name in names]


def change_config(**fields):
    def change(folder):
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | fields))

    return change


FAULTS = {
    "cut_weights": (cut_weights, "model.safetensors must be a complete safetensors file"),
    "empty_weights": (write("model.safetensors", ""), "model.safetensors must be a complete safetensors file"),
    "lost_weights": (lose_weights, "must be complete, got none for model.decoder.layers.0."),
    "no_weights": (remove("model.safetensors"), "model.safetensors"),
    "other_sizes": (change_config(intermediate_size=7), "must fit its config.json"),
    "no_config": (remove("config.json"), "config.json must be a text file"),
    "cut_config": (write("config.json", '{"model_type": "cross'), "config.json, line 1, column "),
    "empty_config": (write("config.json", ""), "config.json must have at least one line"),
    "list_config": (write("config.json", "[]"), "config.json must hold an object"),
    "deep_config": (write("config.json", '{"a":' * 5000), "config.json, line 1: must be valid JSON: nested too deep"),
    "other_type": (change_config(model_type="nonsense"), "the config of"),
    "wrong_field": (change_config(hidden_size="wide"), "hidden_size"),
    "wrong_mask": (change_config(cross_mask="wait(3)"), "wait"),
    "empty_tokenizer": (write("tokenizer.json", "{}"), "tokenizer"),
    "cut_tokenizer": (write("tokenizer.json", '{"version": "1.0", '), "tokenizer.json, line 1, column "),
    "no_tokenizer": (remove("tokenizer.json", "tokenizer_config.json"), "tokenizer"),
    "cut_generation": (write("generation_config.json", '{"max_'), "generation_config.json"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_folder_that_is_not_whole_is_one_line(folder, tmp_path, capsys, fault):
    spoil, message = FAULTS[fault]
    spoil(folder)
    lines = tmp_path / "lines.txt"
    lines.write_text("a small dog\n")
    assert main([str(folder), str(lines), "--quiet", "--device", "cpu"]) == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert line.startswith("crossmask translate: ")
    assert message in line
    assert str(folder) in line or fault in ("wrong_mask",)


@pytest.mark.parametrize("name", ["/no/model", "./model", "runs/model", "a/b/c", "~/model", "model/"])
def test_a_folder_that_is_not_there_is_not_looked_for_on_the_hub(monkeypatch, name):
    monkeypatch.setattr(loading, "AutoConfig", None)
    monkeypatch.setattr(loading, "AutoTokenizer", None)
    with pytest.raises(FileNotFoundError, match="must be a folder that holds a model or an id on the Hub such as"):
        load_model_and_tokenizer(name)


def test_ids_beyond_the_vocabulary_are_those_of_another_tokenizer(folder):
    model, tokenizer = load_model_and_tokenizer(str(folder))
    tokenizer.add_tokens(["barking"])
    with pytest.raises(
        InputError, match=r"ids of the tokenizer must be less than \d+, the model's vocabulary, got \d+"
    ):
        translate_batch(model, tokenizer, ["barking"], progress=False)


@pytest.mark.parametrize("native", [True, False])
def test_auto_asks_the_machine(monkeypatch, caplog, native):
    monkeypatch.setattr(loading, "multiplies_bfloat16", lambda device: native)
    device = torch.device("cpu")
    assert choose_dtype("auto", device) == (torch.bfloat16 if native else torch.float32)
    assert choose_dtype("saved", device) is None
    assert choose_dtype("float16", device) == torch.float16
    assert not caplog.records
    assert choose_dtype("bfloat16", device) == torch.bfloat16
    assert [record.levelname for record in caplog.records] == ([] if native else ["WARNING"])


def test_the_choice_is_printed_and_recorded(saved, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(loading, "multiplies_bfloat16", lambda device: False)
    lines = tmp_path / "lines.txt"
    lines.write_text("a small dog\n")
    assert main([str(saved), str(lines), "--quiet", "--device", "cpu"]) == 0
    assert "generating in float32" in capsys.readouterr().err


@pytest.mark.parametrize("offline", [False, True])
def test_a_model_that_the_hub_does_not_give_says_what_to_do(hub, monkeypatch, offline):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", offline)
    with pytest.raises(OSError, match=r"; check the name and the network, or give a folder that holds it$") as error:
        load_config("nobody/nothing")
    assert "\n" not in str(error.value)


def test_a_model_of_ours_that_is_not_there_is_to_be_trained(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OSError, match=r"got a path that does not exist; train that model first, or correct the path$"):
        load_config("runs/nothing")


def test_code_that_the_texts_of_a_model_folder_name_is_not_imported(folder, tmp_path, monkeypatch, capsys):
    """Only a recipe that the user gives may import; a downloaded folder has recipes, cards and configs of others."""
    planted = "from pathlib import Path\n\nPath(__file__).with_suffix('.imported').touch()\n"
    recipe = "imports: [planted.py, planted]\ntask: translation\ntest: {format: tsv, path: pairs.tsv}\n"
    for place in (folder, tmp_path):
        (place / "planted.py").write_text(planted)
        (place / "pairs.tsv").write_text("1 2\t3 4\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (folder / "recipe.yaml").write_text(recipe)
    (folder / "README.md").write_text(
        f"---\nlanguage: [en, de]\npipeline_tag: translation\n{recipe}---\n```yaml\n{recipe}```\n"
    )
    change_config(imports=["planted.py"], recipe=recipe, auto_map={"AutoConfig": "planted.Config"})(folder)
    load_translator(str(folder), dtype="float32").close()
    load_explored_model(str(folder), device="cpu")
    load_served_model(str(folder), device="cpu", dtype="float32")
    on_cpu = ["--device", "cpu", "--dtype", "float32", "--quiet"]
    data = ["--task", "translation", "--data", "pairs.tsv"]
    assert command("evaluate")([str(folder), *data, *on_cpu]) == 0
    assert list(tmp_path.rglob("*.imported")) == []
    assert command("evaluate")([str(folder), "--recipe", str(folder / "recipe.yaml"), *on_cpu]) == 0
    assert list(tmp_path.rglob("*.imported")) == [tmp_path / "planted.imported"]  # the user gave that one
    sys.modules.pop("planted")
