"""A teacher: runs of every kind of encoder-decoder, and what is refused. seq2seq/test_distillation.py has its loss."""

import json
import shutil
from itertools import product
from pathlib import Path

import pytest
import torch
from encoder_decoders import model_fields
from saved_parts import save_parts
from training_jobs import SIZES, assert_goes_on, job_of, recipe_file, trained
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer, BertConfig, EncoderDecoderConfig, ProphetNetConfig

from crossmask.seq2seq.loss import cross_entropy
from crossmask.tasks import get_task
from crossmask.training.run import execute
from crossmask.training.run_arguments import RunArguments
from crossmask.utils.errors import InputError

pytestmark = pytest.mark.usefixtures("without_drawing")
MODELS = {"crossmask": {**SIZES, "dropout": 0.2}, "bart": model_fields("bart"), "t5": model_fields("t5")}
ONCE = {"max_steps": 1, "save_strategy": "no"}
NOWHERE = {"format": "tsv", "path": "nowhere.tsv"}


@pytest.fixture(scope="module")
def teachers(tmp_path_factory):
    """The folder of a model of each kind, with the tokenizer that all runs here have."""
    folders = {}
    for name, fields in MODELS.items():
        place = tmp_path_factory.mktemp(name)
        trainer = job_of(recipe_file(place, model=fields)).trainer
        trainer.model.save_pretrained(place / "teacher")
        trainer.processing_class.save_pretrained(place / "teacher")
        folders[name] = str(place / "teacher")
    return folders


@pytest.mark.parametrize(("teacher", "student"), list(product(MODELS, ("crossmask", "bart"))))
@pytest.mark.parametrize("batching", ["examples", "packed", "buckets"])
@pytest.mark.parametrize("r_drop", [None, 3.0])
def test_the_loss_of_a_batch_is_that_of_the_definition(tmp_path, teachers, teacher, student, batching, r_drop):
    """The teacher's logits are those of each example by itself, whatever rows it is packed into."""
    fields = {"model": {**MODELS[student], "dropout": 1e-12}, "batching": batching, "label_smoothing_factor": 0.1}
    default = RunArguments.per_device_train_batch_size  # which buckets do not read
    sizes = {"examples": 4, "packed": 1, "buckets": default}
    fields |= {"per_device_train_batch_size": sizes[batching], "max_source_length": 64, "max_target_length": 64}
    fields |= {"r_drop": r_drop} if r_drop else {}
    job = job_of(recipe_file(tmp_path, **fields, teacher=teachers[teacher], teacher_weight=0.3))
    trainer, alone = job.trainer, AutoModelForSeq2SeqLM.from_pretrained(teachers[teacher]).eval()
    batch = next(iter(trainer.get_train_dataloader()))
    trainer.model.train()
    count = (batch["labels"] != -100).sum()
    with torch.no_grad():
        found = trainer.compute_loss(trainer.model, dict(batch), num_items_in_batch=count)
        given = {name: value for name, value in batch.items() if name != "labels"}
        logits = trainer.model(**given).logits
    own = cross_entropy(logits, batch["labels"], label_smoothing=0.1)
    taught = torch.zeros(())
    for source, inputs, labels, scores in _examples(batch, logits):
        inputs[0] = alone.config.decoder_start_token_id
        with torch.no_grad():
            predicted = alone(input_ids=source[None], decoder_input_ids=inputs[None]).logits[0].softmax(-1)
        taught = taught - (predicted * scores.log_softmax(-1)).sum(-1)[labels != -100].sum()
    torch.testing.assert_close(found, 0.7 * own + 0.3 * taught / count, rtol=1e-4, atol=1e-5)


def _examples(batch, logits):
    """The source, the decoder's inputs, labels and logits of every example, out of padded or packed rows."""
    sources = batch.get("segment_ids", batch.get("attention_mask"))
    targets = batch.get("decoder_segment_ids")
    targets = batch["decoder_attention_mask"] if targets is None else targets
    for row in range(len(logits)):
        for number in range(1, int(targets[row].max()) + 1):
            here = targets[row] == number
            picked = (batch[name][row][here] for name in ("decoder_input_ids", "labels"))
            inputs, labels = picked
            yield batch["input_ids"][row][sources[row] == number], inputs, labels, logits[row][here]


def test_a_student_comes_closer_to_its_teacher(tmp_path, teachers):
    """The divergence from the teacher's predictions after training by them alone, and without them."""
    found = []
    for number, options in enumerate(({}, {"teacher": teachers["crossmask"], "teacher_weight": 1.0})):
        place = tmp_path / str(number)
        place.mkdir()
        job = job_of(recipe_file(place, max_steps=40, save_strategy="no", **options))
        trained(job)
        batch = next(iter(job.trainer.get_train_dataloader()))
        labels = batch.pop("labels")
        teacher = AutoModelForSeq2SeqLM.from_pretrained(teachers["crossmask"]).eval()
        with torch.no_grad():
            ours, its = (one(**batch).logits.log_softmax(-1) for one in (job.trainer.model.eval(), teacher))
        found.append((its.exp() * (its - ours)).sum(-1)[labels != -100].mean())
    assert found[1] < 0.5 * found[0]


@pytest.mark.parametrize(
    "changes",
    [
        {"bf16": True},
        {"gradient_checkpointing": True},
        {"optim": "muon"},
        {"lora": {"r": 2, "target_modules": ["q_proj"]}},
        {"multipath_k": [1, 2], "max_source_length": 64},
        pytest.param({"torch_compile": True, "torch_compile_backend": "eager"}, marks=pytest.mark.slow),
    ],
    ids=lambda value: next(iter(value)),
)
@pytest.mark.parametrize("r_drop", [None, 2.0])
def test_it_trains_in_every_way(tmp_path, teachers, changes, r_drop):
    """A step with a teacher of next to no weight is one without; with a weight it is another."""
    weights = []
    model = {**SIZES, "dropout": 1e-12}
    drops = {"r_drop": r_drop} if r_drop else {}
    for number, weight in enumerate((None, 1e-9, 0.9)):
        place = tmp_path / str(number)
        place.mkdir()
        options = {} if weight is None else {"teacher": teachers["crossmask"], "teacher_weight": weight}
        fields = {**ONCE, "model": model, **changes, **drops, **options}
        weights.append(trained(job_of(recipe_file(place, **fields)))[1])
    tolerance = 2e-3 if "bf16" in changes else 1e-4 if "optim" in changes else 1e-6
    torch.testing.assert_close(weights[1], weights[0], rtol=0, atol=tolerance)
    assert max((weights[2][name] - one).abs().max() for name, one in weights[0].items()) > 1e-3


@pytest.mark.parametrize("model", ["crossmask", "t5"])
def test_micro_batches_give_the_step_of_one(tmp_path, teachers, model):
    weights = []
    for size, accumulation in ((4, 1), (1, 4)):
        place = tmp_path / str(size)
        place.mkdir()
        changes = {"per_device_train_batch_size": size, "gradient_accumulation_steps": accumulation, "max_steps": 2}
        fields = {"model": {**MODELS[model], **({"dropout": 0.0} if model == "crossmask" else {})}, **changes}
        weights.append(trained(job_of(recipe_file(place, teacher=teachers["crossmask"], **fields)))[1])
    torch.testing.assert_close(weights[1], weights[0], rtol=0, atol=1e-6)


def test_a_run_goes_on_to_the_bit(tmp_path, teachers):
    fields = {"model": MODELS["crossmask"], "optim": "adamw_torch", "r_drop": 2.0, "teacher": teachers["crossmask"]}
    assert assert_goes_on(recipe_file(tmp_path, **fields), 2) == 4


def test_nothing_of_the_teacher_is_trained_or_saved(tmp_path, teachers):
    job = job_of(recipe_file(tmp_path, teacher=teachers["crossmask"]))
    teacher = job.trainer.teacher.model
    before = {name: one.clone() for name, one in teacher.state_dict().items()}
    trained(job)
    assert not teacher.training
    assert all(one.grad is None for one in teacher.parameters())
    torch.testing.assert_close(teacher.state_dict(), before, rtol=0, atol=0)


REFUSED = [
    ({"teacher": "nowhere/at/all"}, "teacher: "),
    ({"teacher_weight": 0.5}, "teacher_weight must be left out without teacher, got 0.5"),
    *(({"teacher": "t", "teacher_weight": one}, "teacher_weight must be ") for one in (0, -1, 1.5, float("nan"))),
    ({"teacher": "t", "cache_encoder": True}, "teacher must be left out with cache_encoder, got t"),
    *(
        ({"teacher": "t", "task": task, "generation": None}, f"teacher must be left out for task {task}, got t")
        for task in ("language-modeling", "text-classification", "extractive-question-answering")
    ),
]


@pytest.mark.parametrize(("fields", "message"), REFUSED, ids=str)
def test_what_could_only_be_ignored_is_refused_before_data_is_read(tmp_path, fields, message):
    with pytest.raises((InputError, OSError), match=message) as error:
        job_of(recipe_file(tmp_path, **{"train": NOWHERE, **fields}))
    assert "\n" not in str(error.value)


def test_a_teacher_that_does_not_fit_is_refused(tmp_path, teachers):
    parts = save_parts(tmp_path)
    for fields, message in (
        (
            {"teacher": parts["encoder_name_or_path"], "train": NOWHERE},
            "must be a model that AutoModelForSeq2SeqLM loads",
        ),
        (
            {"teacher": teachers["bart"], "max_source_length": 10**6, "train": NOWHERE},
            "teacher .* is too short: max_source_length .* or give another teacher",
        ),
        (
            {"teacher": teachers["bart"], "tokenizer": {"vocab_size": 270}},
            "must have the tokenizer of the run",
        ),
        ({"teacher": teachers["bart"], **parts, "model": {}}, "teacher must be left out for a bridge"),
        (
            {"teacher": teachers["bart"], "model": {**SIZES, "vocab_size": 300}},
            "must have the vocab_size of the model, 300",
        ),
    ):
        with pytest.raises(InputError, match=message) as error:
            job_of(recipe_file(tmp_path, **fields))
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"decoder_start_token_id": None},
            "decoder_start_token_id of its vocabulary, got None; set",
        ),
        (
            {"decoder_start_token_id": 10**6},
            "decoder_start_token_id of its vocabulary, got 1000000",
        ),
        ({"model_type": "crossmask-bridge"}, "teacher"),
    ],
    ids=str,
)
def test_a_teacher_whose_config_does_not_fit_is_refused_before_data_is_read(tmp_path, teachers, change, message):
    folder = shutil.copytree(teachers["bart"], tmp_path / "teacher")
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(InputError, match=message) as error:
        job_of(recipe_file(tmp_path, teacher=str(folder), train=NOWHERE))
    assert "\n" not in str(error.value)
    with pytest.raises(InputError, match=r"teacher must be a folder that holds a finished model, .* got the file"):
        job_of(recipe_file(tmp_path, teacher=str(path), train=NOWHERE))


def test_the_teacher_predicts_in_the_precision_of_the_run(tmp_path, teachers):
    for bf16, dtype in ((True, torch.bfloat16), (False, torch.float32)):
        job = job_of(recipe_file(tmp_path, teacher=teachers["crossmask"], bf16=bf16), "--overwrite")
        seen = []
        teacher = job.trainer.teacher
        predictions = teacher.predictions
        teacher.predictions = lambda batch, own=predictions, seen=seen: seen.append(own(batch)) or seen[-1]
        batch = next(iter(job.trainer.get_train_dataloader()))
        job.trainer.compute_loss(job.trainer.model.train(), batch)
        assert seen[0].logits(torch.tensor([0])).dtype == dtype


def test_nothing_that_it_predicted_is_kept(tmp_path, teachers):
    trainer = job_of(recipe_file(tmp_path, teacher=teachers["bart"], model=MODELS["bart"])).trainer
    before = trainer.compute_loss_func
    trainer.train()
    assert trainer.compute_loss_func is before


def test_the_card_names_the_teacher(tmp_path, teachers):
    execute(job_of(recipe_file(tmp_path, teacher=teachers["bart"], **ONCE)))
    card = (tmp_path / "run" / "README.md").read_text()
    assert f"50% of every target is what `{teachers['bart']}` predicts there (distillation)." in card


def test_home_folders_are_found(tmp_path, teachers, monkeypatch):
    monkeypatch.setenv("HOME", str(Path(teachers["bart"]).parent))
    trained(job_of(recipe_file(tmp_path, teacher="~/teacher", **ONCE)))


def _saved(place: Path, config, tokenizer) -> str:
    """The folder of a model of Transformers, of this config, with the tokenizer of a run."""
    torch.manual_seed(0)
    AutoModelForSeq2SeqLM.from_config(config).save_pretrained(place)
    tokenizer.save_pretrained(place)
    return str(place)


def test_families_in_which_padding_changes_predictions_are_refused(tmp_path, teachers):
    tokenizer = AutoTokenizer.from_pretrained(teachers["bart"])
    sizes = {"hidden_size": 32, "num_encoder_layers": 1, "num_decoder_layers": 1}
    sizes |= {f"num_{side}_attention_heads": 2 for side in ("encoder", "decoder")}
    config = ProphetNetConfig(vocab_size=len(tokenizer), decoder_start_token_id=tokenizer.bos_token_id, **sizes)
    recipe = recipe_file(tmp_path, teacher=_saved(tmp_path / "teacher", config, tokenizer))
    with pytest.raises(InputError, match="must not be a prophetnet model"):
        job_of(recipe)


def test_an_encoder_and_a_decoder_of_bert_may_be_a_teacher(tmp_path, teachers):
    tokenizer = AutoTokenizer.from_pretrained(teachers["bart"])
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24}
    side = BertConfig(vocab_size=len(tokenizer), **sizes)
    config = EncoderDecoderConfig.from_encoder_decoder_configs(side, side)
    config.decoder_start_token_id, config.pad_token_id = tokenizer.bos_token_id, tokenizer.pad_token_id
    trained(job_of(recipe_file(tmp_path, teacher=_saved(tmp_path / "teacher", config, tokenizer), **ONCE)))


@pytest.mark.gpu
def test_the_teacher_is_on_the_device_of_the_run(tmp_path, teachers):
    trained(job_of(recipe_file(tmp_path, teacher=teachers["crossmask"], **ONCE)))


def test_a_task_with_a_loss_of_its_own_has_no_teacher():
    class Own(type(get_task("translation"))):
        def loss_function(self, model, label_smoothing, r_drop=0.0):
            return None

    with pytest.raises(InputError, match="teacher must be left out for task translation"):
        Own().check_loss_field("teacher", "t")
