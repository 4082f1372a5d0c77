"""Folders that earlier versions saved: their models load, and saving over them removes their old code files."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForSeq2SeqLM

from crossmask.hub.registration import register
from crossmask.hub.remote_code import write_code_files
from crossmask.modeling.crossmask import CrossMaskForConditionalGeneration

# Saved by version 0.1.0 when each module was a code file of its own; without these files. `expected.safetensors` has
# inputs and what that version made of them.
SAVED = Path(__file__).parents[1] / "data_files" / "saved_by_0_1_0"
NEW = {f"{name}_crossmask.py" for name in ("configuration", "masks", "modeling", "pipelines")}


def old_file(module: str) -> str:
    return f'# SPDX-License-Identifier: Apache-2.0\n# crossmask: {module}, flattened.\n"""Old."""\n'


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_a_folder_of_version_0_1_0_gives_the_same_results(implementation):
    register()
    expected = load_file(SAVED / "expected.safetensors")
    inputs = {name.removeprefix("input."): value for name, value in expected.items() if name.startswith("input.")}
    model = AutoModelForSeq2SeqLM.from_pretrained(SAVED, attn_implementation=implementation).eval()
    assert type(model) is CrossMaskForConditionalGeneration
    with torch.no_grad():
        logits = model(**inputs).logits
        options = {
            "num_beams": 2,
            "max_new_tokens": 8,
            "min_new_tokens": 8,
            "do_sample": False,
            "cross_mask": "prefix(1) | window(3)",
        }
        tokens = model.generate(inputs["input_ids"], **options)
    # Not to the last bit: that depends on the processor's matrix products.
    torch.testing.assert_close(logits, expected[f"logits.{implementation}"], rtol=1e-5, atol=1e-5)
    assert torch.equal(tokens, expected["tokens"])


def test_a_config_of_version_0_1_0_is_saved_again_as_it_was(tmp_path):
    register()
    config = AutoConfig.from_pretrained(SAVED)
    config.save_pretrained(tmp_path)
    old, new = (json.loads((folder / "config.json").read_text()) for folder in (SAVED, tmp_path))
    assert set(new.pop("custom_pipelines")) > {"translation", "summarization"}  # which came later, as this did:
    assert new.pop("residual_initializer_range") is None
    assert {**old, "transformers_version": None} == {**new, "transformers_version": None}


def test_saving_over_an_old_folder_removes_its_code_files_and_no_others(tmp_path):
    register()
    shutil.copytree(SAVED, tmp_path / "m")
    for name, module in {
        "masks_base": "masks/base.py",
        "masks": "masks/__init__.py",
        "modeling_simultaneous_session": "seq2seq/simultaneous/session.py",
        "modeling_crossmask": "modeling/crossmask.py",
        "configuration_crossmask": "configuration/crossmask.py",
    }.items():
        (tmp_path / "m" / f"{name}.py").write_text(old_file(module))
    others = {
        "mine.py": "x = 1\n",
        "licensed.py": "# SPDX-License-Identifier: Apache-2.0\n# crossmask: what I think of it, flattened.\n",
        "quoted.py": f'"""\n{old_file("masks/base.py")}"""\n',
        "other.py": old_file("masks/base.py").replace("crossmask", "othermask"),
        "noise.py": "\udcff\n",
        "masks_base.txt": old_file("masks/base.py"),
        "deeper/masks_base.py": old_file("masks/base.py"),
    }
    for name, text in others.items():
        path = tmp_path / "m" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, errors="surrogateescape")
    (tmp_path / "elsewhere.py").write_text(old_file("masks/base.py"))
    (tmp_path / "m" / "link.py").symlink_to(tmp_path / "elsewhere.py")
    AutoModelForSeq2SeqLM.from_pretrained(SAVED).save_pretrained(tmp_path / "m")
    found = {path.relative_to(tmp_path / "m").as_posix() for path in (tmp_path / "m").rglob("*.py")}
    assert found == NEW | {name for name in others if name.endswith(".py")} | {"link.py"}
    for name, text in others.items():
        assert (tmp_path / "m" / name).read_text(errors="surrogateescape") == text
    assert (tmp_path / "elsewhere.py").exists()


def test_writing_code_files_twice_leaves_them(tmp_path):
    write_code_files(tmp_path)
    write_code_files(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == NEW
