"""What is saved beside an attached model: a code file that attaches its masks, and lines in the card that say so."""

import json
from pathlib import Path

import pytest
import torch
from attached_families import attached, ids, plain, source_of
from new_process import run_cases
from transformers import (
    AutoModelForSeq2SeqLM,
    BartForConditionalGeneration,
    BartModel,
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
)

from crossmask import attach, detach
from crossmask.masks import MaskError

pytestmark = pytest.mark.filterwarnings("ignore")

MASKS = {"encoder_mask": "causal()", "cross_mask": "wait_k(2)"}
LINES = "crossmask.attach(AutoModelForSeq2SeqLM.from_pretrained(name))"
FAMILIES = {
    "bart": "AutoModelForSeq2SeqLM",
    "t5gemma": "AutoModelForSeq2SeqLM",
    "bert2gpt2": "AutoModelForSeq2SeqLM",
    "whisper": "AutoModelForSpeechSeq2Seq",
    "headless": "AutoModel",
}
"""The classes that load them, by name."""
SCRIPT = """
import torch, transformers

def check(folder, auto_class):
    auto_class = getattr(transformers, auto_class)
    batch = torch.load(folder + "/batch.pt")
    for trust in (True, False):
        config = transformers.AutoConfig.from_pretrained(folder + "/model", trust_remote_code=trust)
        model = auto_class.from_pretrained(folder + "/model", config=config, trust_remote_code=trust)
        assert type(model).__module__.startswith("transformers.models."), type(model)
        assert torch.equal(model(**batch)[0], torch.load(f"{folder}/{trust}.pt"))
        if trust:
            model.save_pretrained(folder + "/again")
    model, info = auto_class.from_pretrained(folder + "/again", trust_remote_code=True, output_loading_info=True)
    assert not info["missing_keys"] and torch.equal(model(**batch)[0], torch.load(folder + "/True.pt"))
"""
"""What a script does that knows nothing of crossmask."""


@torch.no_grad()
def save_case(family: str, auto_class: str, folder: Path) -> None:
    """A model, a batch, and what the model makes of it with its masks and without."""
    model = (
        attach(BartModel(plain("bart").config).eval(), **MASKS) if family == "headless" else attached(family, **MASKS)
    )
    source = ids(2, 9) if family == "headless" else source_of(family)
    batch = {**({"input_ids": source} if family == "headless" else source), "decoder_input_ids": ids(2, 6)}
    before = model.config.to_dict()
    model.save_pretrained(folder / "model")
    assert model.config.to_dict() == {**before, "architectures": [type(model).__name__], "dtype": "float32"}
    saved = json.loads((folder / "model" / "config.json").read_text())
    assert saved["auto_map"][auto_class] == f"attached_crossmask.{type(model).__name__}"
    assert saved["architectures"] == [type(model).__name__]
    assert saved["model_type"] == before["model_type"]
    torch.save(batch, folder / "batch.pt")
    torch.save(model(**batch)[0], folder / "True.pt")
    torch.save(detach(model)(**batch)[0], folder / "False.pt")


@pytest.fixture(scope="module")
def failed(tmp_path_factory) -> dict[str, str]:
    """The tracebacks of the families that a script could not load, by name."""
    folder, cases = tmp_path_factory.mktemp("attached"), {}
    for family, auto_class in FAMILIES.items():
        (folder / family).mkdir()
        save_case(family, auto_class, folder / family)
        cases[family] = f"check({str(folder / family)!r}, {auto_class!r})"
    return run_cases(SCRIPT, cases, cwd=folder, has_crossmask=True)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_script_that_only_loads_gets_the_masks_with_trust(family, failed):
    assert family not in failed, failed[family]


def test_the_card_says_that_masks_need_crossmask_once(tmp_path):
    model = attached("bart", **MASKS)
    model.save_pretrained(tmp_path)
    model.save_pretrained(tmp_path)
    card = (tmp_path / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: transformers\ntags:\n- crossmask\n---\n\n## Masks\n")
    assert card.count(LINES) == 1
    assert "trust_remote_code=True" in card


def test_a_card_that_is_there_gets_the_lines_at_its_end(tmp_path):
    (tmp_path / "README.md").write_text("---\nlicense: mit\n---\n\n# Mine\n")
    attached("bart", **MASKS).save_pretrained(tmp_path)
    card = (tmp_path / "README.md").read_text()
    assert card.startswith("---\nlicense: mit\n---\n\n# Mine\n\n## Masks\n")
    assert LINES in card
    (tmp_path / "README.md").write_text("Load it by crossmask.attach.\n")
    attached("bart", **MASKS).save_pretrained(tmp_path)
    assert (tmp_path / "README.md").read_text() == "Load it by crossmask.attach.\n"


def test_nothing_is_written_where_nothing_is_masked(tmp_path):
    model = attached("bart")
    model.save_pretrained(tmp_path / "attached")
    attached("bart", **MASKS).save_pretrained(tmp_path / "other_process", is_main_process=False)
    detach(attached("bart", **MASKS)).save_pretrained(tmp_path / "detached")
    for name in ("attached", "detached"):
        assert not {"attached_crossmask.py", "README.md"} & {path.name for path in (tmp_path / name).iterdir()}
        assert "auto_map" not in json.loads((tmp_path / name / "config.json").read_text())
    assert not (tmp_path / "other_process" / "attached_crossmask.py").exists()


class Own(BartForConditionalGeneration):
    """A class that Transformers does not have, so that no code file could load it."""


def test_a_class_from_elsewhere_has_no_code_file(tmp_path):
    attach(Own(plain("bart").config), **MASKS).save_pretrained(tmp_path)
    assert not (tmp_path / "attached_crossmask.py").exists()
    assert "auto_map" not in json.loads((tmp_path / "config.json").read_text())
    assert "crossmask.attach(Own.from_pretrained(name))" in (tmp_path / "README.md").read_text()


def test_pushing_uploads_code_and_card(tmp_path, hub):
    model = attached("bart", **MASKS)
    model.push_to_hub("tester/pushed")
    model.save_pretrained(tmp_path / "model")
    model.save_pretrained(tmp_path / "model", push_to_hub=True, repo_id="tester/saved")
    for repo in ("tester/pushed", "tester/saved"):
        files = hub.files(repo)
        assert "attached_crossmask.py" in files, repo
        assert LINES in files["README.md"].decode(), repo
        assert json.loads(files["config.json"])["cross_mask"] == "wait_k(2)"


def test_masks_that_do_not_fit_are_refused_when_such_a_model_is_loaded(tmp_path):
    attached("bart", **MASKS).save_pretrained(tmp_path / "model")
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    (tmp_path / "model" / "config.json").write_text(json.dumps({**config, "cross_mask": {"7": "wait_k(2)"}}))
    with pytest.raises(MaskError, match="7"):
        AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "model", trust_remote_code=True)


def test_what_a_trainer_saves_is_loaded_with_masks_again(tmp_path):
    """The steps of Transformers' run_translation.py, which knows nothing of crossmask."""
    attached("bart", **MASKS).save_pretrained(tmp_path / "model")
    model = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "model", trust_remote_code=True)
    model.resize_token_embeddings(70)
    rows = [{"input_ids": ids(5, seed=n).tolist(), "labels": ids(4, seed=n).tolist()} for n in range(4)]
    arguments = Seq2SeqTrainingArguments(
        tmp_path / "run", max_steps=1, per_device_train_batch_size=4, predict_with_generate=True, report_to=[],
        use_cpu=True, disable_tqdm=True,
    )  # fmt: skip
    trainer = Seq2SeqTrainer(model, arguments, train_dataset=rows, eval_dataset=rows, data_collator=collate)
    trainer.train()
    trainer.predict(rows, max_new_tokens=3)
    trainer.save_model()
    loaded = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "run", trust_remote_code=True)
    with torch.no_grad():
        batch = {"input_ids": ids(2, 9), "decoder_input_ids": ids(2, 6)}
        expected = model.eval()(**batch).logits
        assert torch.equal(loaded(**batch).logits, expected)
        assert not torch.equal(detach(loaded)(**batch).logits, expected)


def collate(rows):
    return {name: torch.tensor([row[name] for row in rows]) for name in rows[0]}
