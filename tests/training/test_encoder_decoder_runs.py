"""`train.py` with encoder-decoders of Transformers: new ones and saved ones, exact losses, runs that go on."""

import json
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
import yaml
from encoder_decoders import FAMILIES, STARTS, model_fields
from language_tokenizers import FAMILIES as LANGUAGE_MODELS
from language_tokenizers import LANGUAGES, tokenizer_of
from new_process import run_code
from training_jobs import assert_goes_on, job_of, recipe_file, tiny_tokenizer, trained
from transformers import (
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    BartConfig,
    BartForConditionalGeneration,
    NllbMoeConfig,
)

from crossmask.attached.attached_model import AttachedModel
from crossmask.tasks import get_task
from crossmask.tasks.base import LengthLimits
from crossmask.training.arguments import ModelArguments
from crossmask.training.build_model import build_model, build_on_meta
from crossmask.training.run import execute
from crossmask.utils.errors import InputError

pytestmark = pytest.mark.usefixtures("without_drawing")
BUCKETS = {"batching": "buckets", "batch_tokens": 100, "per_device_train_batch_size": 8}  # 8 is the default


def run_file(folder: Path, family: str = "bart", **changes) -> str:
    """A recipe of 4 steps of a new model, saved every second step."""
    folder.mkdir(exist_ok=True)
    return recipe_file(folder, **{"model": model_fields(family), **changes})


def steps_of(
    folder: Path, family: str, size: int, accumulation: int, smoothing: float
) -> tuple[list[float], dict[str, torch.Tensor]]:
    """Losses and gradient norms of two steps of 4 examples each, and the weights after them."""
    changes = {
        "per_device_train_batch_size": size, "gradient_accumulation_steps": accumulation, "max_steps": 2,
        "save_strategy": "no", "logging_steps": 1, "label_smoothing_factor": smoothing, "max_grad_norm": 0.0,
    }  # fmt: skip
    job = job_of(run_file(folder / f"{size}", family, **changes))
    _, weights = trained(job)
    logged = [entry for entry in job.trainer.state.log_history if "loss" in entry]
    return [entry[name] for entry in logged for name in ("loss", "grad_norm")], weights


@pytest.mark.parametrize("family", ["bart", "marian", "m2m_100", "t5"])
def test_packed_rows_give_the_loss_and_gradient_of_examples(tmp_path, family):
    logged = []
    for batching in ("examples", "packed"):
        changes = {"batching": batching, "per_device_train_batch_size": 64, "max_steps": 1, "logging_steps": 1,
                   "save_strategy": "no", "max_grad_norm": 0.0}  # fmt: skip
        job = job_of(run_file(tmp_path / batching, family, **changes))
        trained(job)
        entry = next(entry for entry in job.trainer.state.log_history if "loss" in entry)
        logged.append([entry["loss"], entry["grad_norm"]])
    assert logged[1] == pytest.approx(logged[0], rel=1e-5)


# Without smoothing the models would compute the loss, with it Trainer would.
@pytest.mark.parametrize(("family", "smoothing"), [*((name, 0.0) for name in FAMILIES), ("bart", 0.1), ("t5", 0.1)])
def test_accumulated_batches_of_unequal_length_give_the_loss_and_gradient_of_one(tmp_path, family, smoothing):
    expected, weights = steps_of(tmp_path, family, 4, 1, smoothing)
    logged, same = steps_of(tmp_path, family, 1, 4, smoothing)
    assert logged == pytest.approx(expected, rel=1e-5)
    torch.testing.assert_close(same, weights, rtol=0, atol=1e-6)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_new_model_has_the_special_tokens_of_the_tokenizer(family):
    task, tokenizer, limits = get_task("translation"), tiny_tokenizer(), LengthLimits(32, 32)
    model = build_model(ModelArguments(model=model_fields(family)), limits, task, tokenizer)
    config = model.config
    assert (config.pad_token_id, config.eos_token_id) == (tokenizer.pad_token_id, tokenizer.eos_token_id)
    start = getattr(tokenizer, f"{STARTS[family]}_token_id")
    assert config.decoder_start_token_id == model.generation_config.decoder_start_token_id == start
    assert model.generation_config.forced_eos_token_id in (None, tokenizer.eos_token_id)
    assert config.vocab_size == len(tokenizer)
    batch = task.collator(config)([{"input_ids": [5, 2], "labels": [7, 8, 2]}])
    assert batch["decoder_input_ids"].tolist() == [[start, 7, 8]]


def test_a_model_whose_scores_depend_on_the_padding_of_a_target_is_refused():
    """ProphetNet's do, so that its loss was 6e-3 off under accumulation."""
    sizes = {"hidden_size": 16, "encoder_ffn_dim": 8, "decoder_ffn_dim": 8, "num_encoder_layers": 1,
             "num_decoder_layers": 1, "num_encoder_attention_heads": 2, "num_decoder_attention_heads": 2}  # fmt: skip
    arguments = ModelArguments(model={"model_type": "prophetnet", **sizes})
    with pytest.raises(InputError, match="a prophetnet model cannot be trained: padding after a target changes"):
        build_model(arguments, LengthLimits(32, 32), get_task("translation"), tiny_tokenizer())


LOADED_WITHOUT_CROSSMASK = """
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer
for folder in sys.argv[1:]:
    model, tokenizer = (kind.from_pretrained(folder) for kind in (AutoModelForSeq2SeqLM, AutoTokenizer))
    output = model.generate(**tokenizer("ha ho", return_tensors="pt"))
    assert output[0, 0] == model.config.decoder_start_token_id
    assert output.shape[1] <= 5
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> dict[str, Path]:
    """The output folders of runs, by family."""
    changes = {"eval_strategy": "steps", "eval_steps": 2, "load_best_model_at_end": True, **BUCKETS}
    folders = {family: tmp_path_factory.mktemp(family) for family in ("bart", "marian", "t5")}
    for family, folder in folders.items():
        execute(job_of(run_file(folder, family, **changes)))
    return {family: folder / "run" for family, folder in folders.items()}


@pytest.mark.parametrize("family", ["bart", "marian", "t5"])
def test_a_finished_model_has_its_results_and_no_code(finished, family):
    folder = finished[family]
    assert {"sacrebleu", "chrf", "loss"} <= set(json.loads((folder / "metrics.json").read_text()))
    names = {path.name for path in folder.iterdir()}
    assert {"learning_curve.png", "alignment_1.png", "samples.md", "tokenizer.json"} <= names
    assert "masks.png" not in names
    assert not list(folder.glob("*.py"))
    card = (folder / "README.md").read_text()
    assert "AutoModelForSeq2SeqLM.from_pretrained(name)\n" in card
    assert f"`{family}` model" in card
    assert "Masks in force" not in card


def test_finished_models_need_nothing_but_transformers(finished, tmp_path):
    run_code(LOADED_WITHOUT_CROSSMASK, *finished.values(), cwd=tmp_path)


def test_a_model_that_was_trained_on_packed_rows_is_saved_without_masks(tmp_path):
    changes = {"batching": "packed", "eval_strategy": "steps", "eval_steps": 2, "load_best_model_at_end": True}
    execute(job_of(run_file(tmp_path, **changes)))
    folder = tmp_path / "run"
    assert {"sacrebleu", "chrf", "loss"} <= set(json.loads((folder / "metrics.json").read_text()))
    config = json.loads((folder / "config.json").read_text())
    assert not {"encoder_mask", "decoder_mask", "cross_mask"} & set(config)
    assert not list(folder.glob("*.py"))
    card = (folder / "README.md").read_text()
    assert "AutoModelForSeq2SeqLM.from_pretrained(name)\n" in card
    assert "Masks in force" not in card


@pytest.mark.parametrize("batching", [{}, BUCKETS], ids=["examples", "buckets"])
@pytest.mark.parametrize("family", ["bart", "t5"])
def test_a_run_goes_on_to_the_bit(tmp_path, family, batching):
    dropout = {"dropout_rate" if family == "t5" else "dropout": 0.1}
    model = {**model_fields(family), **dropout}
    recipe = run_file(tmp_path, family, model=model, optim="adamw_torch", **batching)
    assert assert_goes_on(recipe, 2) == 4


def test_a_saved_model_is_fine_tuned_with_what_it_was_saved_with(tmp_path):
    """In float32, with its own tokenizer and generation config; `model` changes fields of its config."""
    job = job_of(run_file(tmp_path))
    model = job.trainer.model
    model.generation_config.update(num_beams=3, max_length=99, bad_words_ids=[[5]])
    model.half().save_pretrained(tmp_path / "saved")
    job.trainer.processing_class.save_pretrained(tmp_path / "saved")
    changes = {"model_name_or_path": str(tmp_path / "saved"), "tokenizer": None, "freeze": ["encoder.layers.0"]}
    recipe = run_file(
        tmp_path / "again", model={"attention_dropout": 0.1}, generation={"max_new_tokens": 6}, **changes
    )
    again = job_of(recipe)
    assert again.trainer.model.dtype == torch.float32
    assert again.trainer.model.config.attention_dropout == 0.1
    generation = again.trainer.model.generation_config
    assert (generation.num_beams, generation.max_new_tokens, generation.max_length) == (3, 6, None)
    assert generation.bad_words_ids == [[5]]
    assert trained(again)[0] == 4


def test_a_model_of_two_parts_is_fine_tuned(tmp_path):
    """BERT2BERT, whose special tokens are not those of our tokenizers."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import BertConfig, EncoderDecoderConfig, EncoderDecoderModel, PreTrainedTokenizerFast

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "ha", "ho", "hi", "hu"]
    backend = Tokenizer(models.WordLevel({word: at for at, word in enumerate(words)}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    ends = [("[CLS]", 2), ("[SEP]", 3)]
    backend.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, **special)
    sizes = {
        "vocab_size": 8, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24
    }  # fmt: skip
    config = EncoderDecoderConfig.from_encoder_decoder_configs(BertConfig(**sizes), BertConfig(**sizes))
    config.pad_token_id, config.decoder_start_token_id, config.eos_token_id = 0, 2, 3
    EncoderDecoderModel(config).save_pretrained(tmp_path / "saved")
    tokenizer.save_pretrained(tmp_path / "saved")
    changes = {"model_name_or_path": str(tmp_path / "saved"), "tokenizer": None}
    execute(job_of(run_file(tmp_path, model=None, **changes)))
    assert (tmp_path / "run" / "README.md").is_file()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": {"model_type": "llama"}}, "model.model_type must be one of .*bart.*, got 'llama'"),
        ({"model": {"model_type": "barrt"}}, "model.model_type must be one of .*, got 'barrt'; did you mean 'bart'"),
        ({"model": {"model_type": "t5gemma"}}, "model.model_type must be one of .*, got 't5gemma'"),
        ({"model": {"model_type": "bart", "num_layers": 2}}, "model has no setting 'num_layers'"),
        (
            {"model": {"model_type": "bart", "num_attention_heads": 2}},
            "model.num_attention_heads must be left out for model_type bart, where it is encoder_attention_heads",
        ),
        (
            {"max_target_length": 2000, "model": {**model_fields("bart"), "max_position_embeddings": 64}},
            "at most 64, the",
        ),
        ({"attn_implementation": "blockwise"}, "attn_implementation must be .* for a bart model, got blockwise"),
        (
            {"batching": "packed", "model": model_fields("longt5")},
            "batching must be examples or buckets for a longt5 model, got packed rows: LongT5Stack has attention",
        ),
        (
            {"batching": "packed", "model": model_fields("mvp")},
            "a mvp model cannot have masks, which packed rows need",
        ),
        ({"source_language": "en_XX"}, "source_language must be left out for a .*, which has no language codes"),
        ({"model": {**model_fields("bart"), "cross_mask": "wait_k(x)"}}, "cross_mask"),
        ({"model": {**model_fields("bart"), "cros_mask": "wait_k(3)"}}, "model has no setting 'cros_mask'"),
    ],
    ids=str,
)
def test_what_does_not_fit_is_refused(tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        job_of(run_file(tmp_path, **changes))


def test_a_saved_model_without_a_decoder_is_refused(tmp_path):
    from transformers import LlamaConfig

    LlamaConfig().save_pretrained(tmp_path / "saved")
    with pytest.raises(InputError, match="it is a llama model; give an encoder-decoder that AutoModelForSeq2SeqLM"):
        job_of(run_file(tmp_path, model=None, tokenizer=None, model_name_or_path=str(tmp_path / "saved")))


@pytest.mark.parametrize("saved", [None, False, True], ids=["new", "saved without", "saved with"])
@pytest.mark.parametrize("given", [{}, {"output_router_logits": False}, {"output_router_logits": True}], ids=str)
def test_the_loss_that_balances_experts_is_refused_whoever_asks_for_it(tmp_path, saved, given):
    fields = {**model_fields("bart"), "num_experts": 2, "vocab_size": 50}
    del fields["model_type"]
    if saved is None:
        arguments = ModelArguments(model={"model_type": "nllb-moe", **fields, **given})
    else:
        NllbMoeConfig(**fields, output_router_logits=saved).save_pretrained(tmp_path)
        arguments = ModelArguments(model_name_or_path=str(tmp_path), model=given)
    asked = given.get("output_router_logits", bool(saved))
    refused = pytest.raises(InputError, match="output_router_logits must be false, got true")
    with refused if asked else nullcontext():
        build_on_meta(arguments, LengthLimits(32, 32), get_task("translation"), torch.device("cpu"))


@pytest.mark.parametrize("name", ["pad_token_id", "eos_token_id", "vocab_size", "decoder_start_token_id"])
def test_a_tokenizer_of_another_model_is_refused(tmp_path, name):
    job = job_of(run_file(tmp_path))
    config: BartConfig = job.trainer.model.config
    setattr(config, name, {"vocab_size": 50, "decoder_start_token_id": None}.get(name, 9))
    BartForConditionalGeneration(config).save_pretrained(tmp_path / "saved")
    job.trainer.processing_class.save_pretrained(tmp_path / "saved")
    with pytest.raises(InputError, match=f"{name}"):
        job_of(run_file(tmp_path, model=None, tokenizer=None, model_name_or_path=str(tmp_path / "saved")))


def test_a_prefix_stands_before_every_source(tmp_path):
    recipe = run_file(tmp_path, "t5", source_prefix="say: ")
    job = job_of(recipe)
    examples = [*job.train, *job.test.examples, *job.trainer.eval_dataset.examples]
    assert all(example.source.startswith("say: h") for example in examples)
    assert not any(example.target.startswith("say: ") for example in examples)
    execute(job)
    card = (tmp_path / "run" / "README.md").read_text()
    assert 'tokenizer(["say: ' in card
    values = yaml.safe_load(Path(recipe).read_text())
    values["train"] = [{**values["train"], "tag": "<BT> "}]
    Path(recipe).write_text(yaml.safe_dump({**values, "output_dir": str(tmp_path / "tagged")}))
    assert all(example.source.startswith("say: <BT> h") for example in job_of(recipe).train)
    model, tokenizer = (kind.from_pretrained(tmp_path / "run") for kind in (AutoModelForSeq2SeqLM, AutoTokenizer))
    assert model.config.decoder_start_token_id == tokenizer.pad_token_id


def language_run(folder: Path, kind: str, **changes) -> str:
    """A recipe of a new model with such a tokenizer."""
    tokenizer_of(kind).save_pretrained(folder / "tokenizer")
    languages = dict(zip(("source_language", "target_language"), LANGUAGES[kind], strict=True))
    given = {"tokenizer": str(folder / "tokenizer"), **languages, **changes}
    return run_file(folder, LANGUAGE_MODELS[kind], **given)


@pytest.mark.parametrize("kind", LANGUAGES)
def test_a_model_with_language_codes_generates_the_target_language(tmp_path, kind):
    job = job_of(language_run(tmp_path, kind))
    batch = job.trainer.data_collator([job.trainer.train_dataset[0]])
    tokenizer = job.trainer.processing_class
    source, target = (tokenizer.convert_tokens_to_ids(language) for language in LANGUAGES[kind])
    assert source in batch["input_ids"]
    assert target in batch["labels"]
    assert (batch["decoder_input_ids"][0, 0] == target) == (kind == "mbart")
    execute(job)
    model, tokenizer = (kind.from_pretrained(tmp_path / "run") for kind in (AutoModelForSeq2SeqLM, AutoTokenizer))
    inputs = tokenizer("ha ho", return_tensors="pt")
    assert source in inputs.input_ids
    ids = model.generate(**inputs)[0].tolist()
    assert ids[0 if kind == "mbart" else 1] == target
    again = job_of(
        language_run(tmp_path / "again", kind, model=None, tokenizer=None, model_name_or_path=str(tmp_path / "run"))
    )
    assert again.trainer.model.generation_config.forced_bos_token_id == (None if kind == "mbart" else target)
    assert again.trainer.model.config.decoder_start_token_id == (target if kind == "mbart" else tokenizer.eos_token_id)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"target_language": "deutsch"}, "target_language must be a language that the NllbTokenizer has a code for"),
        ({"source_language": None}, "source_language must be .*, got None; give one of deu_Latn"),
        ({"source_prefix": "translate: "}, "source_prefix must be left out, got 'translate: '; a tokenizer with"),
    ],
    ids=str,
)
def test_languages_that_do_not_fit_are_refused(tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        job_of(language_run(tmp_path, "nllb", **changes))


@pytest.mark.parametrize("name", ["source_prefix", "source_language", "target_language"])
def test_a_task_without_a_source_takes_no_prefix_and_no_language(tmp_path, name):
    with pytest.raises(InputError, match=f"{name} must be left out for task language-modeling"):
        job_of(run_file(tmp_path, task="language-modeling", model={"model_type": "llama"}, **{name: "x"}))


MASKS = {"encoder_mask": "causal()", "cross_mask": "wait_k(2)"}


@pytest.mark.parametrize("family", ["bart", "marian", "t5", "m2m_100"])
def test_a_model_is_trained_under_masks_and_saved_with_them(tmp_path, family):
    job = job_of(run_file(tmp_path, family, model={**model_fields(family), **MASKS}, attn_implementation="eager"))
    model = job.trainer.model
    assert isinstance(model, AttachedModel)
    batch = job.trainer.data_collator([{"input_ids": [5, 6, 7, 2], "labels": [7, 8, 2]}])
    batch = {name: tensor.to(model.device) for name, tensor in batch.items()}
    other = {**batch, "input_ids": torch.tensor([[5, 6, 7, 9]], device=model.device)}
    with torch.no_grad():
        one, another = (model.eval()(**inputs).logits for inputs in (batch, other))
    torch.testing.assert_close(another[:, :2], one[:, :2], rtol=0, atol=0)  # which have read less than all of it
    assert not torch.equal(another[:, 2], one[:, 2])
    execute(job)
    folder = tmp_path / "run"
    config = json.loads((folder / "config.json").read_text())
    assert {name: config[name] for name in MASKS} == MASKS
    card = (folder / "README.md").read_text()
    assert "import crossmask\nfrom transformers" in card
    assert "model = crossmask.attach(AutoModelForSeq2SeqLM.from_pretrained(name))\ninputs = " in card
    assert "trust_remote_code" not in card
    assert "<code>wait&#95;k(2)</code>" in card


def test_a_run_under_masks_goes_on_to_the_bit(tmp_path):
    model = {**model_fields("bart"), **MASKS, "dropout": 0.1}
    assert assert_goes_on(run_file(tmp_path, model=model, optim="adamw_torch"), 2) == 4


def test_a_saved_model_keeps_its_masks_and_gets_new_ones(tmp_path):
    execute(job_of(run_file(tmp_path, model={**model_fields("bart"), **MASKS})))
    saved = {"model_name_or_path": str(tmp_path / "run"), "tokenizer": None}
    kept = job_of(run_file(tmp_path / "kept", model=None, **saved)).trainer.model
    assert isinstance(kept, AttachedModel)
    assert {name: getattr(kept.config, name) for name in MASKS} == MASKS
    changed = job_of(run_file(tmp_path / "changed", **{**saved, "model": {"cross_mask": "window(4)"}})).trainer.model
    assert (changed.config.encoder_mask, changed.config.cross_mask) == ("causal()", "window(4)")


@pytest.mark.parametrize("family", ["bart", "marian", "t5"])  # whose weights are tied, each in its own way
def test_checkpoints_of_a_model_under_masks_are_averaged(tmp_path, family):
    changes = {
        "average_checkpoints": 2, "eval_strategy": "steps", "eval_steps": 2, "load_best_model_at_end": True,
        "gradient_checkpointing": True,
    }  # fmt: skip
    execute(job_of(run_file(tmp_path, family, model={**model_fields(family), **MASKS}, **changes)))
    assert (tmp_path / "run" / "README.md").is_file()


def test_every_step_may_have_its_own_wait(tmp_path):
    execute(job_of(run_file(tmp_path, multipath_k=[1, 4])))
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert not set(MASKS) & config.keys()


def test_the_loss_under_masks_is_exact_too(tmp_path):
    weights = []
    for size, accumulation in ((4, 1), (1, 4)):
        changes = {"per_device_train_batch_size": size, "gradient_accumulation_steps": accumulation}
        recipe = run_file(tmp_path / str(size), model={**model_fields("t5"), **MASKS}, save_strategy="no", **changes)
        weights.append(trained(job_of(recipe))[1])
    torch.testing.assert_close(weights[1], weights[0], rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"cross_mask": {"0": "full()", "7": "wait_k(1)"}}, "a bart model cannot have masks: .*names layer 7"),
        ({"cross_mask": "wait_k(0.5)"}, "cross_mask"),
        ({"model_type": "led", "cross_mask": "wait_k(1)"}, "a led model cannot have masks"),
    ],
    ids=str,
)
def test_masks_that_a_model_cannot_have_are_refused_before_data_is_read(tmp_path, model, message):
    nowhere = {"format": "tsv", "path": "nowhere.tsv"}
    with pytest.raises(InputError, match=message):
        job_of(run_file(tmp_path, model={**model_fields("bart"), **model}, train=nowhere))
