"""Other people's savers and loaders, on every kind of tied embeddings: weights and ties come back as they were."""

import copy
import io
import itertools
import json
import logging
import pickle

import pytest
import torch
from accelerate import Accelerator, init_empty_weights, load_checkpoint_and_dispatch
from new_process import run_code
from safetensors.torch import load_file, load_model, save_model
from small_models import TIES, small_config, small_model, tokens
from transformers import AutoModelForSeq2SeqLM, Trainer, TrainingArguments

from crossmask import CrossMaskForConditionalGeneration, CrossMaskModel

SOURCE, LABELS = tokens(2, 6), tokens(2, 5, seed=1)
GROUPS = {True: ["EDH"], "embedding": ["ED", "H"], "head": ["E", "DH"], False: ["E", "D", "H"]}
NAMES = {"E": "model.encoder.embed_tokens.weight", "D": "model.decoder.embed_tokens.weight", "H": "lm_head.weight"}
every_tie = pytest.mark.parametrize(
    "fields", [{"tie_word_embeddings": t, "embedding_size": e} for t in TIES for e in (None, 6)]
)


@pytest.fixture
def log(caplog):
    """What is logged by Transformers and by us."""
    for name in ("transformers", "crossmask"):
        logging.getLogger(name).addHandler(caplog.handler)
    yield caplog
    for name in ("transformers", "crossmask"):
        logging.getLogger(name).removeHandler(caplog.handler)


def parts(model) -> dict[str, torch.nn.Parameter]:
    return {
        "E": model.get_encoder().embed_tokens.weight,
        "D": model.get_decoder().embed_tokens.weight,
        "H": model.lm_head.weight,
    }


def check_same(model, expected) -> None:
    """The same weights, the same ties, the same function."""
    for name, weight in expected.state_dict().items():
        assert torch.equal(model.state_dict()[name], weight), name
    check_ties(model, expected.config.tie_word_embeddings)
    with torch.no_grad():
        inputs = {"input_ids": SOURCE, "labels": LABELS}
        assert torch.equal(model.eval()(**inputs).logits, expected.eval()(**inputs).logits)


def check_ties(model, ties) -> None:
    assert model.config.tie_word_embeddings == ties
    for one, other in itertools.combinations("EDH", 2):
        together = any(one in group and other in group for group in GROUPS[ties])
        assert (parts(model)[one] is parts(model)[other]) == together, (one, other)


@every_tie
def test_accelerate_saves_and_loads_its_state(fields, tmp_path):
    accelerator = Accelerator(cpu=True)
    model = accelerator.prepare(small_model(**fields))
    accelerator.save_state(tmp_path)
    expected = small_model(**fields)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1)
    accelerator.load_state(tmp_path)
    check_same(accelerator.unwrap_model(model), expected)


@every_tie
def test_safetensors_saves_and_loads_models(fields, tmp_path):
    model = small_model(**fields)
    save_model(model, tmp_path / "own.safetensors")
    model.save_pretrained(tmp_path)
    for name in ("own.safetensors", "model.safetensors"):
        other = small_model(seed=1, **fields)
        assert load_model(other, tmp_path / name) == (set(), [])
        check_same(other, model)
    # Their file holds tied weights under another name than ours.
    (tmp_path / "own.safetensors").replace(tmp_path / "model.safetensors")
    check_same(CrossMaskForConditionalGeneration.from_pretrained(tmp_path), model)


@pytest.mark.parametrize("assign", [False, True])
@every_tie
def test_strict_state_dicts(fields, assign, tmp_path):
    """Whole ones, and such as have tied weights once, whichever name they are under."""
    model = small_model(**fields)
    torch.save(model.state_dict(), tmp_path / "whole.pt")
    model.save_pretrained(tmp_path)
    save_model(model, tmp_path / "own.safetensors")
    whole = torch.load(tmp_path / "whole.pt")
    for state in (whole, load_file(tmp_path / "model.safetensors"), load_file(tmp_path / "own.safetensors")):
        other = small_model(seed=1, **fields)
        keys = set(state)
        assert other.load_state_dict(state, assign=assign) == ([], [])
        assert set(state) == keys
        check_same(other, model)


@every_tie
def test_a_state_dict_without_a_weight_is_refused(fields):
    model, ties = small_model(**fields), GROUPS[fields["tie_word_embeddings"]]
    for group in ties:
        state = {name: weight for name, weight in model.state_dict().items() if name not in [NAMES[n] for n in group]}
        with pytest.raises(RuntimeError, match="Missing key"):
            model.load_state_dict(state)
        assert set(model.load_state_dict(state, strict=False).missing_keys) == {NAMES[n] for n in group}
    once = {
        name: weight for name, weight in model.state_dict().items() if name not in [NAMES[n] for n in ties[-1][1:]]
    }
    # As safetensors and accelerate expect it.
    assert set(model.load_state_dict(once, strict=False).missing_keys) == {NAMES[n] for n in ties[-1][1:]}


def test_a_state_dict_with_other_ties_is_said_to_lose_weights(log):
    state = small_model(tie_word_embeddings=False).state_dict()
    small_model().load_state_dict(state)
    assert f"tied weights differ in the state dict; the last is kept: {NAMES['D']}, {NAMES['H']}" in log.text


@every_tie
def test_dispatched_checkpoints(fields, tmp_path):
    model = small_model(**fields)
    for size in ("5GB", "16KB"):
        model.save_pretrained(tmp_path / size, max_shard_size=size)
        with init_empty_weights():
            empty = CrossMaskForConditionalGeneration(small_config(**fields))
        empty.tie_weights()
        place = str(tmp_path / size if size == "16KB" else tmp_path / size / "model.safetensors")
        loaded = load_checkpoint_and_dispatch(empty, place, device_map={"": "cpu"})
        for name, weight in model.state_dict().items():
            assert torch.equal(loaded.state_dict()[name], weight), name
        check_ties(loaded, fields["tie_word_embeddings"])


@pytest.mark.parametrize(
    ("size", "how"),
    [
        ("5GB", {}),
        ("16KB", {}),
        ("16KB", {"device_map": "cpu"}),
        ("5GB", {"device_map": "auto"}),
        ("5GB", {"low_cpu_mem_usage": True}),
    ],
)
@every_tie
def test_from_pretrained_in_one_file_and_in_many(fields, size, how, tmp_path, log):
    model = small_model(**fields)
    model.save_pretrained(tmp_path, max_shard_size=size)
    assert (size == "16KB") == (tmp_path / "model.safetensors.index.json").exists()
    loaded, info = CrossMaskForConditionalGeneration.from_pretrained(tmp_path, output_loading_info=True, **how)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    check_same(loaded, model)
    assert log.text == ""


@pytest.mark.parametrize("size", ["5GB", "16KB"])
@pytest.mark.parametrize("tie", TIES)
def test_trainer_goes_on_without_a_warning(tie, size, tmp_path, log, monkeypatch):
    model = small_model(tie_word_embeddings=tie)
    save = type(model).save_pretrained
    monkeypatch.setattr(
        type(model), "save_pretrained", lambda self, f, **k: save(self, f, **(k | {"max_shard_size": size}))
    )
    data = [{"input_ids": tokens(5), "labels": tokens(3)}]
    options = {"save_steps": 1, "report_to": [], "use_cpu": True, "disable_tqdm": True, "learning_rate": 0.1}
    arguments = TrainingArguments(str(tmp_path), max_steps=2, **options)
    Trainer(model, arguments, train_dataset=data).train()
    again = Trainer(small_model(seed=1, tie_word_embeddings=tie), arguments, train_dataset=data)
    again.train(resume_from_checkpoint=str(tmp_path / "checkpoint-1"))
    check_same(again.model, model)
    assert "missing" not in log.text


def as_wanted(wanted, model) -> dict[str, torch.Tensor]:
    """What the embeddings should be: their own values, and the first one's where several become one."""
    values = {name: weight.detach().clone() for name, weight in parts(model).items()}
    return {name: values[group[0]] for group in GROUPS[wanted] for name in group}


@pytest.mark.parametrize("form", ["one file", "one file, Auto", "shards", "of safetensors", "bin"])
@pytest.mark.parametrize("wanted", TIES)
@pytest.mark.parametrize("saved", TIES)
def test_ties_changed_at_loading(saved, wanted, form, tmp_path, log):
    load = AutoModelForSeq2SeqLM if "Auto" in form else CrossMaskForConditionalGeneration
    model = small_model(tie_word_embeddings=saved)
    model.save_pretrained(tmp_path / "m", max_shard_size="16KB" if form == "shards" else "5GB")
    if form in ("of safetensors", "bin"):
        (tmp_path / "m" / "model.safetensors").unlink()
    if form == "of safetensors":  # which keeps other names
        save_model(model, tmp_path / "m" / "model.safetensors")
    elif form == "bin":  # which has every name
        torch.save(model.state_dict(), tmp_path / "m" / "pytorch_model.bin")
    expected = as_wanted(wanted, model)
    loaded, info = load.from_pretrained(tmp_path / "m", tie_word_embeddings=wanted, output_loading_info=True)
    check_ties(loaded, wanted)
    for name, weight in parts(loaded).items():
        assert torch.equal(weight, expected[name]), name
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    own = {group[0] for group in GROUPS[saved]}
    for name in own:  # a trained weight that is gone is named
        gone = not torch.equal(expected[name], parts(model)[name])
        assert (f"{NAMES[name]} is dropped" in log.text) == gone, name
    copies = {group[0] for group in GROUPS[wanted]} - own
    if form != "of safetensors":
        assert all(f"{NAMES[name]} starts as a copy" in log.text for name in copies)
    log.clear()
    loaded.save_pretrained(tmp_path / "again")
    check_same(load.from_pretrained(tmp_path / "again"), loaded)
    assert log.text == ""


@pytest.mark.parametrize("wanted", TIES)
@pytest.mark.parametrize("saved", TIES)
def test_ties_changed_by_a_config_of_ones_own_and_in_the_base_model(saved, wanted, tmp_path):
    model = small_model(tie_word_embeddings=saved)
    model.save_pretrained(tmp_path)
    expected = as_wanted(wanted, model)
    config = small_config(tie_word_embeddings=wanted)
    loaded = CrossMaskForConditionalGeneration.from_pretrained(tmp_path, config=config)
    assert all(torch.equal(weight, expected[name]) for name, weight in parts(loaded).items())
    base = CrossMaskModel.from_pretrained(tmp_path, tie_word_embeddings=wanted)
    assert torch.equal(base.encoder.embed_tokens.weight, expected["E"])
    assert torch.equal(base.decoder.embed_tokens.weight, expected["D"])
    # From the base model's file the head is known where it was tied.
    model.model.save_pretrained(tmp_path / "base")
    loaded = CrossMaskForConditionalGeneration.from_pretrained(tmp_path / "base", tie_word_embeddings=wanted)
    check_ties(loaded, wanted)
    for name in "ED" if saved in (False, "embedding") else "EDH":
        assert torch.equal(parts(loaded)[name], expected[name]), name


def test_ties_changed_where_shapes_differ(tmp_path):
    """A weight that was not read is not copied either."""
    small_model().save_pretrained(tmp_path)
    options = {"vocab_size": 50, "ignore_mismatched_sizes": True, "tie_word_embeddings": False}
    loaded, info = CrossMaskForConditionalGeneration.from_pretrained(tmp_path, output_loading_info=True, **options)
    assert info["missing_keys"] == {NAMES["D"], NAMES["H"]}
    assert all(weight.shape == (50, 16) and weight.std() > 0.1 for weight in parts(loaded).values())


def test_ties_cannot_change_on_the_way_to_the_disk(tmp_path):
    small_model().save_pretrained(tmp_path / "m")
    with pytest.raises(ValueError, match="tie_word_embeddings must be True as in the checkpoint"):
        CrossMaskForConditionalGeneration.from_pretrained(
            tmp_path / "m", tie_word_embeddings=False, device_map={"": "disk"}, offload_folder=tmp_path / "off"
        )


def test_saving_writes_the_ties_that_there_are(tmp_path, log):
    """Whatever the config says by then: PEFT sets it to False when it merges, users replace layers."""
    changes = {
        "embedding": lambda model: setattr(model.lm_head, "weight", torch.nn.Parameter(torch.randn(40, 16))),
        "head": lambda model: setattr(
            model.model.encoder.embed_tokens, "weight", torch.nn.Parameter(torch.randn(40, 16))
        ),
        True: lambda model: setattr(model.config, "tie_word_embeddings", False),
    }
    for ties, change in changes.items():
        model = small_model()
        change(model)
        model.save_pretrained(tmp_path)
        assert json.loads((tmp_path / "config.json").read_text())["tie_word_embeddings"] == ties
        assert f"tie_word_embeddings={ties!r}" in log.text
        log.clear()
        check_same(CrossMaskForConditionalGeneration.from_pretrained(tmp_path), model)
        assert log.text == ""


@every_tie
def test_copies_pickles_and_processes(fields, tmp_path):
    model = small_model(**fields)
    check_same(copy.deepcopy(model), model)
    check_same(pickle.loads(pickle.dumps(model)), model)
    buffer = io.BytesIO()
    torch.save(model, buffer)
    buffer.seek(0)
    check_same(torch.load(buffer, weights_only=False), model)
    assert list(copy.deepcopy(model).state_dict()) == list(model.state_dict())
    check_same(copy.deepcopy(model).share_memory(), model)


def test_a_model_goes_to_another_process(tmp_path):
    model, inputs = small_model(), {"input_ids": SOURCE, "labels": LABELS}
    (tmp_path / "call").write_bytes(pickle.dumps((model, inputs)))
    code = """
        import pickle
        import torch
        with open("call", "rb") as file, torch.no_grad():
            model, inputs = pickle.load(file)
            torch.save(model(**inputs).logits, "logits.pt")
    """
    run_code(code, cwd=tmp_path, has_crossmask=True)
    torch.testing.assert_close(torch.load(tmp_path / "logits.pt"), model(**inputs).logits.detach())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("tie", TIES)
def test_half_precision_is_saved_as_it_is(tie, dtype, tmp_path):
    model = small_model(tie_word_embeddings=tie).to(dtype)
    model.save_pretrained(tmp_path)
    assert {weight.dtype for weight in load_file(tmp_path / "model.safetensors").values()} == {dtype}
    loaded = CrossMaskForConditionalGeneration.from_pretrained(tmp_path)
    check_ties(loaded, tie)
    assert all(torch.equal(loaded.state_dict()[name], weight) for name, weight in model.state_dict().items())


@pytest.mark.parametrize("wrap", [torch.nn.DataParallel, lambda model: torch.compile(model, backend="eager")])
@pytest.mark.parametrize("tie", TIES)
def test_wrapped_models_are_saved(tie, wrap, tmp_path):
    """A wrapper's state dict has a prefix; that of the model inside stays."""
    model, wrapped = small_model(tie_word_embeddings=tie), wrap(small_model(tie_word_embeddings=tie))
    inner = wrapped.module if isinstance(wrapped, torch.nn.DataParallel) else wrapped._orig_mod
    assert list(inner.state_dict()) == list(model.state_dict())
    inner.save_pretrained(tmp_path)
    check_same(CrossMaskForConditionalGeneration.from_pretrained(tmp_path), model)
    other = wrap(small_model(seed=1, tie_word_embeddings=tie))
    other.load_state_dict(wrapped.state_dict())
    for name, weight in wrapped.state_dict().items():
        assert torch.equal(other.state_dict()[name], weight), name
    Accelerator(cpu=True).unwrap_model(wrapped).save_pretrained(tmp_path / "unwrapped")
    check_same(CrossMaskForConditionalGeneration.from_pretrained(tmp_path / "unwrapped"), model)


@pytest.mark.parametrize("multiple", [None, 16])
@every_tie
def test_resized_models_are_saved(fields, multiple, tmp_path):
    model = small_model(**fields)
    for size in (45, 43):
        model.resize_token_embeddings(size, pad_to_multiple_of=multiple, mean_resizing=False)
        assert model.config.vocab_size == (48 if multiple else size)
        assert {weight.shape[0] for weight in parts(model).values()} == {model.config.vocab_size}
        assert model.lm_head.out_features == model.config.vocab_size
        check_ties(model, fields["tie_word_embeddings"])
        model.save_pretrained(tmp_path)
        check_same(CrossMaskForConditionalGeneration.from_pretrained(tmp_path), model)


@every_tie
def test_embeddings_set_as_they_were(fields, tmp_path):
    model, expected = small_model(**fields), small_model(**fields)
    model.set_output_embeddings(model.get_output_embeddings())
    model.set_input_embeddings(model.get_input_embeddings())
    model.tie_weights()
    check_same(model, expected)
    # New ones: the head follows what it is tied to, once the weights are tied again.
    model.set_input_embeddings(type(model.get_input_embeddings())(40, fields["embedding_size"] or 16, 0))
    model.tie_weights()
    check_ties(model, fields["tie_word_embeddings"])
    assert not torch.equal(model.get_input_embeddings().weight, expected.get_input_embeddings().weight)
    model.save_pretrained(tmp_path)
    check_same(CrossMaskForConditionalGeneration.from_pretrained(tmp_path), model)
