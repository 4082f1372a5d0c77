import json
import re
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file
from small_models import TIES, small_model
from training_jobs import job_of, recipe_file

from crossmask.training.build_trainer import keep_checkpoints
from crossmask.training.checkpoint_averaging import average_weights, load_average, load_average_if_better
from crossmask.utils.errors import InputError


def save(folder, step, **tensors):
    checkpoint = folder / f"checkpoint-{step}"
    checkpoint.mkdir(parents=True)
    save_file(tensors, checkpoint / "model.safetensors")
    (checkpoint / "trainer_state.json").write_text(json.dumps({}))
    return checkpoint


def test_mean_of_every_tensor_in_its_own_dtype(tmp_path):
    # In bfloat16 alone 256 + 1 is 256: sums must be wider.
    values = [256.0, 1.0, 1.0]
    paths = [
        save(tmp_path, step, a=torch.full((2,), float(step)), b=torch.tensor([value], dtype=torch.bfloat16))
        for step, value in enumerate(values, start=1)
    ]
    mean = average_weights(paths)
    assert mean["a"].tolist() == [2.0, 2.0]
    assert mean["b"].dtype == torch.bfloat16
    assert mean["b"].item() == 86.0


def test_checkpoints_that_do_not_match(tmp_path):
    one = save(tmp_path, 1, a=torch.zeros(2))
    with pytest.raises(ValueError, match=r"checkpoint-2 and .*checkpoint-1 do not both have b"):
        average_weights([one, save(tmp_path, 2, a=torch.zeros(2), b=torch.zeros(1))])
    with pytest.raises(ValueError, match=r"a is \(3,\) and \(2,\) in .*checkpoint-3"):
        average_weights([one, save(tmp_path, 3, a=torch.zeros(3))])
    with pytest.raises(ValueError, match="no checkpoints to average"):
        average_weights([])


def level(model) -> float:
    return model.model.encoder.layers[0].mlp.down_proj.weight.mean().item()


def trainer_of(folder, greater_is_better=True, load_best_model_at_end=False, **state) -> SimpleNamespace:
    """After three checkpoints of levels 1, 2 and 3, of which another process finishes the last when waited for."""
    model = small_model()
    for step in (1, 2, 3):
        torch.nn.init.constant_(model.model.encoder.layers[0].mlp.down_proj.weight, float(step))
        (folder / f"checkpoint-{step}").mkdir()
        model.save_pretrained(folder / f"checkpoint-{step}")
        if step < 3:
            (folder / f"checkpoint-{step}" / "trainer_state.json").write_text("{}")
    return SimpleNamespace(
        args=SimpleNamespace(
            metric_for_best_model="eval_level",
            greater_is_better=greater_is_better,
            load_best_model_at_end=load_best_model_at_end,
        ),
        accelerator=SimpleNamespace(
            unwrap_model=lambda model: model,
            wait_for_everyone=lambda: (folder / "checkpoint-3" / "trainer_state.json").write_text("{}"),
        ),
        model=model,
        state=SimpleNamespace(**state),
        evaluate=lambda: {"eval_level": level(model)},
    )


@pytest.mark.parametrize("greater_is_better", [True, False])
def test_the_better_of_mean_and_single_is_kept(tmp_path, greater_is_better):
    trainer = trainer_of(tmp_path, greater_is_better)
    # The single one is 3, the mean of the last two 2.5.
    assert load_average_if_better(trainer, tmp_path, 2) is not greater_is_better
    assert level(trainer.model) == (3.0 if greater_is_better else 2.5)
    assert trainer.model.lm_head.weight is trainer.model.get_input_embeddings().weight


@pytest.mark.parametrize(("measured", "kept"), [(3, False), (4, True)])
def test_the_best_metric_counts_where_it_was_measured_of_what_is_loaded(tmp_path, measured, kept):
    """It is better than the mean, the model that is loaded is not; of step 4 there is no checkpoint."""
    best = str(tmp_path / "checkpoint-3")
    state = {"best_metric": 2.7, "best_global_step": measured, "best_model_checkpoint": best}
    trainer = trainer_of(tmp_path, load_best_model_at_end=True, **state)
    torch.nn.init.constant_(trainer.model.model.encoder.layers[0].mlp.down_proj.weight, 1.0)
    assert load_average_if_better(trainer, tmp_path, 2) is kept


@pytest.mark.parametrize("tie", TIES)
@pytest.mark.parametrize("size", ["5GB", "16KB"])
def test_checkpoints_in_one_file_or_in_many(tmp_path, tie, size):
    """Whatever is tied, the mean is that of the whole state dicts."""
    states = []
    for step in (1, 2):
        model = small_model(seed=step, tie_word_embeddings=tie)
        model.save_pretrained(tmp_path / f"checkpoint-{step}", max_shard_size=size)
        states.append(model.state_dict())
    assert (size == "16KB") == (tmp_path / "checkpoint-1" / "model.safetensors.index.json").exists()
    model = small_model(tie_word_embeddings=tie)
    load_average(model, [tmp_path / "checkpoint-1", tmp_path / "checkpoint-2"])
    for name, weight in model.state_dict().items():
        torch.testing.assert_close(weight, (states[0][name] + states[1][name]) / 2)
    assert (model.lm_head.weight is model.get_decoder().embed_tokens.weight) == (tie in (True, "head"))


def test_weights_of_another_model(tmp_path):
    for number, (fields, odd) in enumerate(
        [
            ({"tie_word_embeddings": False}, "model.decoder.embed_tokens.weight"),
            ({"decoder_layers": 3}, "model.decoder.layers.2.cross_attn.k_proj.weight"),
            ({"encoder_layers": 1}, "model.encoder.layers.1.mlp.down_proj.weight"),
            ({"vocab_size": 41}, "lm_head.weight"),
        ]
    ):
        small_model(**fields).save_pretrained(tmp_path / f"checkpoint-{number}")
        with pytest.raises(InputError, match=f"{re.escape(odd)} is not the same in .*checkpoint-{number} and in the"):
            load_average(small_model(), [tmp_path / f"checkpoint-{number}"])


def test_weights_that_cannot_be_read(tmp_path):
    def refused(*words):
        with pytest.raises(InputError) as error:
            average_weights([tmp_path])
        assert "\n" not in str(error.value)
        assert all(word in str(error.value) for word in (*words, "--resume_from_checkpoint last"))

    refused(str(tmp_path), "has no model.safetensors")
    small_model().save_pretrained(tmp_path, max_shard_size="16KB")
    shard = sorted(tmp_path.glob("model-*.safetensors"))[1]
    data = shard.read_bytes()
    shard.write_bytes(data[: len(data) // 2])
    refused(str(shard), "cannot be read")
    shard.write_bytes(b"")
    refused(str(shard), "cannot be read")
    shard.unlink()
    refused(str(shard), "is missing")
    for text in ("{", "[]", "{}", '{"weight_map": 3}', "null"):
        (tmp_path / "model.safetensors.index.json").write_text(text)
        refused("model.safetensors.index.json", "is not an index")


@pytest.mark.parametrize(
    ("fields", "variables", "name"),
    [
        ({"fsdp": "full_shard"}, {}, "fsdp"),
        ({"deepspeed": {"zero_optimization": {"stage": 2}}}, {}, "deepspeed"),
        ({}, {"ACCELERATE_USE_FSDP": "true"}, "fsdp"),
        ({}, {"ACCELERATE_USE_DEEPSPEED": "true"}, "deepspeed"),
    ],
)
def test_checkpoints_in_pieces_are_refused_before_training(fields, variables, name, monkeypatch):
    for variable, value in variables.items():
        monkeypatch.setenv(variable, value)
    arguments = SimpleNamespace(save_strategy="epoch", eval_strategy="epoch", save_total_limit=2, **fields)
    with pytest.raises(InputError, match=f"average_checkpoints must be left out under {name}"):
        keep_checkpoints(arguments, 3)


def test_a_run_that_keeps_no_checkpoints_is_refused_before_data_is_read(tmp_path):
    nowhere = {"format": "tsv", "path": "nowhere.tsv"}
    fields = {"average_checkpoints": 3, "save_strategy": "no", "load_best_model_at_end": False}
    with pytest.raises(InputError, match="average_checkpoints=3 needs checkpoints"):
        job_of(recipe_file(tmp_path, **fields, train=nowhere))


def test_enough_checkpoints_are_kept():
    arguments = SimpleNamespace(save_strategy="epoch", eval_strategy="epoch", save_total_limit=2)
    keep_checkpoints(arguments, 5)
    assert arguments.save_total_limit == 6
