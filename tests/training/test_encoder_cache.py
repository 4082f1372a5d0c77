"""`cache_encoder`: what a frozen encoder gives is computed once, and training with it is the same."""

import json
import pickle
from pathlib import Path

import pytest
import torch
from bridge_families import bridge_of, ids, open_blocks
from saved_parts import NO_PARTS, PACKED, save_parts
from training_jobs import assert_goes_on, job_of, recipe_file, trained

from crossmask.data.collator import Seq2SeqCollator
from crossmask.data.encoder_states import EncoderStates, key_of, write_states
from crossmask.masks.rules import full, window
from crossmask.training.encoder_cache import FOLDER, EncoderCache, fingerprint
from crossmask.utils.errors import InputError

BATCHINGS = [
    {"batching": "examples"},
    {"batching": "buckets", "batch_tokens": 120, "per_device_train_batch_size": 8},
    PACKED,
]
FROZEN = {"freeze": ["encoder"], "cache_encoder": True}


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / FOLDER


@pytest.fixture(scope="module")
def parts(tmp_path_factory) -> dict[str, str]:
    fields = save_parts(tmp_path_factory.mktemp("parts"))
    config = Path(fields["encoder_name_or_path"], "config.json")
    # The frozen encoder is in evaluation mode, so this makes no difference.
    config.write_text(json.dumps(json.loads(config.read_text()) | {"hidden_dropout_prob": 0.3}))
    return fields


def count_calls(model) -> list[int]:
    """The rows of every batch that the encoder is given from now on."""
    calls: list[int] = []
    model.encoder.register_forward_pre_hook(
        lambda module, args, kwargs: calls.append(len(kwargs["input_ids"])), with_kwargs=True
    )
    return calls


def steps(job, number: int = 3) -> list[tuple[torch.Tensor, dict[str, torch.Tensor]]]:
    """Loss and gradients of the first batches."""
    trainer = job.trainer
    trainer.model.train()
    trainer.callback_handler.on_train_begin(trainer.args, trainer.state, trainer.control)
    model, found = open_blocks(trainer.model).train(), []
    for _, batch in zip(range(number), trainer.get_train_dataloader(), strict=False):
        assert ("encoder_outputs" in batch) == job.run.recipe.optimization.cache_encoder
        loss = trainer.compute_loss(model, batch)
        loss.backward()
        gradients = {name: one.grad for name, one in model.named_parameters() if one.requires_grad}
        found.append((loss.detach(), gradients))
        model.zero_grad()
    return found


@pytest.mark.parametrize("mask", ["full()", "window(2)"])
@pytest.mark.parametrize("batching", BATCHINGS, ids=lambda fields: fields["batching"])
def test_losses_and_gradients_are_those_without_it(tmp_path, parts, batching, mask):
    fields = {**parts, **batching, "freeze": ["encoder"], "model": {"encoder_mask": mask}}
    expected = steps(job_of(recipe_file(tmp_path, **fields)))
    actual = steps(
        job_of(recipe_file(tmp_path, **fields, cache_encoder=True), "--output_dir", str(tmp_path / "other"))
    )
    assert len(actual) == 3
    assert any(gradient.abs().max() > 1e-3 for gradient in actual[0][1].values())
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-6)


def test_every_source_is_encoded_once_for_all_epochs_and_runs(tmp_path, parts, capsys):
    settings = {"eval_strategy": "steps", "eval_steps": 14, "max_steps": 28, "save_strategy": "no"}
    settings |= {"per_device_train_batch_size": 4, "logging_steps": 7}
    recipe = recipe_file(tmp_path, **parts, **FROZEN, **settings)
    job = job_of(recipe)
    calls = count_calls(job.trainer.model)
    trained(job)
    rows = job.trainer.train_dataset["input_ids"]
    distinct = {tuple(row) for row in rows}
    assert len(distinct) < len(rows)
    assert sum(calls) == len(distinct)
    tokens = sum(map(len, distinct))
    assert f"encoder states: {len(distinct)} sources, {tokens * 32 * 4 / 1e6:,.1f} MB in " in capsys.readouterr().out
    again = job_of(recipe, "--output_dir", str(tmp_path / "again"))
    calls = count_calls(again.trainer.model)
    trained(again)
    assert not calls

    plain = job_of(recipe, "--output_dir", str(tmp_path / "plain"), "--cache_encoder", "false")
    trained(plain)
    for one, other in zip(again.trainer.state.log_history, plain.trainer.state.log_history, strict=True):
        for name in {"loss", "eval_loss", "eval_chrf"} & one.keys():
            assert one[name] == pytest.approx(other[name], rel=1e-4)
    assert again.trainer.predictions == plain.trainer.predictions


@pytest.mark.parametrize("batching", [BATCHINGS[0], PACKED], ids=lambda fields: fields["batching"])
def test_a_run_goes_on_to_the_bit(tmp_path, parts, batching, own_folder):
    recipe = recipe_file(tmp_path, **parts, **FROZEN, **batching)
    assert assert_goes_on(recipe, 2) == 4
    (states,) = own_folder.glob("[!.]*")
    for path in states.iterdir():
        path.unlink()
    states.rmdir()
    torch.testing.assert_close(
        trained(job_of(recipe, "--resume_from_checkpoint", str(tmp_path / "run" / "checkpoint-2")))[1],
        trained(job_of(recipe, "--output_dir", str(tmp_path / "whole")))[1],
        rtol=0,
        atol=0,
    )


def cache_of(folder: Path, sources) -> EncoderCache:
    return EncoderCache(sources, Seq2SeqCollator(0, 1), max_tokens=24, folder=folder)


SOURCES = [ids(length, seed=length).tolist() for length in (3, 9, 5, 12, 7)]


def test_what_a_killed_run_left_is_not_used(tmp_path, monkeypatch):
    monkeypatch.setattr("crossmask.data.encoder_states.FILE_BYTES", 1)  # every source has a file
    model, cache = bridge_of(), cache_of(tmp_path, SOURCES)
    encode, calls = cache.encode, []

    def killed(*args):
        for number, pair in enumerate(encode(*args)):
            if number == 3:
                raise KeyboardInterrupt
            yield pair

    monkeypatch.setattr(cache, "encode", killed)
    # A process that is killed outright does not even remove what it had begun.
    monkeypatch.setattr("tempfile.TemporaryDirectory.cleanup", lambda self: None)
    with pytest.raises(KeyboardInterrupt):
        cache.fill(model)
    monkeypatch.undo()
    assert len(cache.states) == 0
    assert not [path for path in tmp_path.iterdir() if path.name[0] != "."]
    whole = cache_of(tmp_path, SOURCES)
    whole.fill(model)
    assert len(whole.states) == len(SOURCES)
    assert not list(tmp_path.glob(".*-*"))
    for source in SOURCES:
        expected = model.encoder(torch.tensor([source])).last_hidden_state[0]
        torch.testing.assert_close(whole.states.get(source), expected, rtol=1e-5, atol=1e-5)

    (file,) = whole.states.folder.iterdir()
    file.write_bytes(file.read_bytes()[:-9])  # damaged
    calls = count_calls(model)
    cache_of(tmp_path, SOURCES).fill(model)
    assert sum(calls) == len(SOURCES)


def test_states_follow_from_all_that_the_fingerprint_has():
    keys = sorted(map(key_of, SOURCES))

    def of(model, autocast=None, keys=keys) -> str:
        return fingerprint(model, autocast, keys)

    same = bridge_of()
    same.encoder.config._name_or_path = "elsewhere"
    expected = of(bridge_of())
    assert of(same) == expected == of(bridge_of(cross_mask="wait_k(2)"))
    weights, config = bridge_of(), bridge_of()
    with torch.no_grad():
        weights.encoder.get_parameter("embeddings.LayerNorm.bias")[3] += 1e-3
    config.encoder.config.layer_norm_eps = 1e-3
    others = [
        of(weights), of(config), of(bridge_of(encoder_mask="window(2)")), of(bridge_of().bfloat16()),
        of(bridge_of(), torch.bfloat16), of(bridge_of(), keys=keys[1:]), of(bridge_of(attention="sdpa")),
        of(bridge_of(attention="eager")),
    ]  # fmt: skip
    assert len({expected, *others}) == len(others)  # one of the attention implementations is the default


def test_states_may_be_kept_in_the_dtype_of_matrix_products(tmp_path):
    model = bridge_of()
    inputs = {"decoder_input_ids": ids(1, 6), "labels": ids(1, 6, seed=1)}
    states = model.encoder(torch.tensor(SOURCES[:1])).last_hidden_state
    with torch.autocast("cpu", torch.bfloat16):
        expected = model(encoder_outputs=(states,), **inputs).logits
        actual = model(encoder_outputs=(states.bfloat16(),), **inputs).logits
        cache = cache_of(tmp_path, SOURCES)
        cache.fill(model, torch.bfloat16)
    assert torch.equal(actual, expected)
    assert cache.states.get(SOURCES[0]).dtype == torch.bfloat16


def test_states_are_read_in_other_processes(tmp_path):
    write_states(tmp_path / "states", [(key_of([4, 5]), torch.ones(2, 3))])
    states = EncoderStates(tmp_path / "states")
    assert pickle.loads(pickle.dumps(states)).get([4, 5]) is None
    states.open()
    assert torch.equal(pickle.loads(pickle.dumps(states)).get([4, 5]), torch.ones(2, 3))
    assert states.get([4, 6]) is None


def test_too_small_a_disk_is_refused_before_anything_is_encoded(tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 10})())
    model = bridge_of()
    calls = count_calls(model)
    with pytest.raises(OSError, match=r"cache_encoder needs .* GB in .*, which has 0.0 GB free; free space there"):
        cache_of(tmp_path, SOURCES).fill(model)
    assert not calls


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"freeze": None}, r"must be for a frozen encoder, got one with encoder\.embeddings.* trained; add encoder"),
        ({"freeze": ["encoder.encoder"]}, r"must be for a frozen encoder, got one with encoder\.embeddings.* trained"),
        ({**NO_PARTS, "model": None, "freeze": ["encoder.layers"]}, "must be for a bridge, got a crossmask model"),
        (
            {"batching": "stream", "max_steps": 3},
            "must be left out, got true; with batching: stream .* packed and buckets",
        ),
    ],
    ids=str,
)
def test_what_cannot_be_kept_is_refused_before_the_data_is_read(tmp_path, parts, changes, message):
    nowhere = {"format": "tsv", "path": str(tmp_path / "nowhere.tsv")}
    with pytest.raises(InputError, match=f"cache_encoder {message}"):
        job_of(recipe_file(tmp_path, **{**parts, **FROZEN, **changes, "train": nowhere}))


def test_a_mask_that_differs_in_training_is_refused(tmp_path, parts, monkeypatch):
    monkeypatch.setattr(window, "for_layer", lambda self, layer, layers, training=True: self if training else full())
    with pytest.raises(
        InputError, match=r"cache_encoder must be for an encoder_mask that is the same in training .* wi"
    ):
        job_of(recipe_file(tmp_path, **{**parts, **FROZEN, "model": {"encoder_mask": "window(2)"}}))


def test_an_encoder_that_is_spread_over_processes_is_refused(tmp_path, parts, monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(InputError, match="cache_encoder must be left out under fsdp"):
        job_of(recipe_file(tmp_path, **parts, **FROZEN))
