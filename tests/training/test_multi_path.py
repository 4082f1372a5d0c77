"""One wait for each step, the same whether a run is resumed or not."""

import json

import pytest
import torch
import yaml

from crossmask.masks import wait_k
from crossmask.training.multi_path import Multipath
from crossmask.training.parsing import parse_run
from crossmask.training.run import prepare


def test_every_wait_comes_up_and_hangs_on_seed_and_step_alone():
    paths = Multipath.of([2, 5], seed=3)
    drawn = [paths.mask(step) for step in range(60)]
    assert set(drawn) == {wait_k(k) for k in range(2, 6)}
    assert drawn == [Multipath(2, 5, 3).mask(step) for step in range(60)]
    assert drawn != [Multipath(2, 5, 4).mask(step) for step in range(60)]
    assert Multipath.of([3, 3], seed=0).mask(7) == wait_k(3)


@pytest.mark.parametrize("bounds", [[3], [0, 4], [5, 2], [1, 2.5], [True, 3], "19", [1, 2, 3]])
def test_bad_bounds(bounds):
    with pytest.raises(ValueError, match=r"multipath_k must be \[lowest, highest\] with"):
        Multipath.of(bounds, seed=0)


RECIPE = {
    "train": {"format": "cldr", "split": "train", "size": 300, "held_out_size": 30},
    "validation": {"format": "cldr", "split": "validation", "size": 300, "held_out_size": 30},
    "test": {"format": "cldr", "split": "test", "size": 300, "held_out_size": 30},
    "tokenizer": {"vocab_size": 500, "special_tokens": ["<2de>", "<2fr>", "<2zh>"]},
    "model": {
        "hidden_size": 16,
        "intermediate_size": 16,
        "encoder_layers": 1,
        "decoder_layers": 1,
        "num_attention_heads": 2,
        "encoder_mask": "causal()",
    },
    "max_source_length": 128,
    "max_target_length": 128,
    "multipath_k": [1, 9],
    "batching": "packed",
    "per_device_train_batch_size": 2,
    "max_steps": 4,
    "save_strategy": "steps",
    "save_steps": 2,
    "eval_strategy": "no",
    "load_best_model_at_end": False,
    "gradient_accumulation_steps": 2,
    "learning_rate": 1e-2,
    "report_to": "none",
    "disable_tqdm": True,
}


def trained(tmp_path, name: str, *more: str):
    """The waits that the decoder got, and the parameters after training."""
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(RECIPE))
    command = [str(tmp_path / "recipe.yaml"), "--output_dir", str(tmp_path / name), *more]
    trainer = prepare(parse_run(command, "")).trainer
    waits = []

    def note(module, args, kwargs):
        waits.append(str(kwargs["cross_mask"]))

    trainer.model.get_decoder().register_forward_pre_hook(note, with_kwargs=True)
    checkpoint = str(tmp_path / name / "checkpoint-2") if more else None
    trainer.train(resume_from_checkpoint=checkpoint)
    return waits, {key: value.clone() for key, value in trainer.model.state_dict().items()}


def test_a_resumed_run_draws_what_the_whole_one_drew(tmp_path):
    waits, whole = trained(tmp_path, "a")
    assert waits == [str(Multipath(1, 9, 42).mask(step)) for step in (0, 0, 1, 1, 2, 2, 3, 3)]
    assert len(set(waits)) > 1
    again, resumed = trained(tmp_path, "a", "--resume_from_checkpoint", str(tmp_path / "a" / "checkpoint-2"))
    assert again == waits[4:]
    assert all(torch.equal(value, resumed[key]) for key, value in whole.items())
    assert json.loads((tmp_path / "a" / "checkpoint-4" / "trainer_state.json").read_text())["global_step"] == 4


def test_bad_bounds_stop_a_run_before_it_starts(tmp_path):
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump({**RECIPE, "multipath_k": [4, 2]}))
    with pytest.raises(ValueError, match=r"multipath_k must be .*, got \[4, 2\]"):
        prepare(parse_run([str(tmp_path / "recipe.yaml"), "--output_dir", str(tmp_path / "b")], ""))
