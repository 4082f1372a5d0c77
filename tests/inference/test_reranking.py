"""Hypotheses that a model of the other direction ranks: against all of them scored by hand, one at a time."""

import json
import shutil

import pytest
import torch
from command_line import command
from encoder_decoders import model_fields
from small_models import small_model
from stopped_runs import stopped_at
from streaming_cases import REFERENCES, tiny
from streaming_cases import TEXTS as SOURCES
from transformers import AutoConfig, AutoModelForSeq2SeqLM, StoppingCriteria, StoppingCriteriaList

from crossmask import attach, translate_batch
from crossmask.inference import files
from crossmask.inference.loading import load_model_and_tokenizer
from crossmask.inference.reranking import NoisyChannelReranker
from crossmask.seq2seq import log_probabilities
from crossmask.training.predictions import FILE
from crossmask.utils.errors import InputError

TEXTS = [*SOURCES, "", "two old dogs read on the train, a cat sleeps"]
BEAMS = 4
OPTIONS = {"num_beams": BEAMS, "max_new_tokens": 9}


@pytest.fixture(scope="module", autouse=True)
def tokenizer():
    """With it all models here write whole words only, so that hypotheses are different texts."""
    model, words = tiny()
    OPTIONS["suppress_tokens"] = model.generation_config.suppress_tokens
    return words


def of_transformers(family: str, tokenizer, seed: int):
    torch.manual_seed(seed)
    ids = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1}
    fields = {**model_fields(family), **ids, "vocab_size": len(tokenizer), "forced_eos_token_id": None}
    kind = fields.pop("model_type")
    model = AutoModelForSeq2SeqLM.from_config(AutoConfig.for_model(kind, **fields)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=0.5)
    return model


MODELS = {
    "own": lambda tokenizer, seed: small_model(seed, vocab_size=len(tokenizer)),
    "masked": lambda tokenizer, seed: small_model(seed, vocab_size=len(tokenizer), cross_mask="wait_k(2)"),
    "bart": lambda tokenizer, seed: of_transformers("bart", tokenizer, seed),
    "t5": lambda tokenizer, seed: of_transformers("t5", tokenizer, seed),
    "attached": lambda tokenizer, seed: attach(of_transformers("marian", tokenizer, seed), cross_mask="wait_k(3)"),
}


def log_probability(model, source: list[int], target: list[int], **masks) -> float:
    """The mean over the tokens of one target, each by a forward pass of its own."""
    total, written = 0.0, [model.config.decoder_start_token_id]
    with torch.no_grad():
        for token in target:
            inputs = {"input_ids": torch.tensor([source]), "decoder_input_ids": torch.tensor([written])}
            total += model(**inputs, **masks, use_cache=False).logits[0, -1].double().log_softmax(-1)[token].item()
            written.append(token)
    return total / len(target)


def ranked(model, reverse, tokenizer, text: str, weight: float, **masks) -> list[str]:
    """The hypotheses of a text, the best first."""
    source = tokenizer(text)["input_ids"]
    found = model.generate(input_ids=torch.tensor([source]), num_return_sequences=BEAMS, **OPTIONS, **masks)
    scored = []
    for row in found.tolist():
        target = row[1:]
        target = target[: target.index(2) + 1] if 2 in target else target
        written = tokenizer.decode(row, skip_special_tokens=True)
        score = log_probability(model, source, target, **masks)
        if written.strip():
            score += weight * log_probability(reverse, tokenizer(written)["input_ids"], source)
        else:
            score = float("-inf")
        scored.append((score, written))
    return [written for _, written in sorted(scored, key=lambda one: -one[0])]


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("weight", [0.5, 20])
def test_the_hypothesis_that_is_best_by_hand(kind, weight, tokenizer, monkeypatch):
    model, reverse = (MODELS[kind](tokenizer, seed) for seed in (0, 1))
    reranker = NoisyChannelReranker(reverse, tokenizer, tokenizer, weight)
    wanted = [ranked(model, reverse, tokenizer, text, weight)[0] if text else "" for text in TEXTS]
    for batch_tokens, elements in ((4096, 2**22), (4096, 1), (1, 2**22)):
        monkeypatch.setattr(log_probabilities, "ELEMENTS", elements)
        how = {"batch_tokens": batch_tokens, "progress": False, "custom_generate": reranker, **OPTIONS}
        assert translate_batch(model, tokenizer, TEXTS, **how) == wanted
    assert wanted != translate_batch(model, tokenizer, TEXTS, progress=False, **OPTIONS)


def test_all_of_them_in_order_under_the_masks_of_the_call(tokenizer):
    model, reverse = (MODELS["own"](tokenizer, seed) for seed in (0, 1))
    masks = {"encoder_mask": "causal()", "cross_mask": "wait_k(2)"}
    inputs = tokenizer(TEXTS[0], return_tensors="pt")
    reranker = NoisyChannelReranker(reverse, tokenizer, tokenizer)
    rows = model.generate(
        input_ids=inputs["input_ids"], num_return_sequences=BEAMS, custom_generate=reranker, **OPTIONS, **masks
    )
    wanted = ranked(model, reverse, tokenizer, TEXTS[0], 0.5, **masks)
    assert tokenizer.batch_decode(rows, skip_special_tokens=True) == wanted
    assert wanted != ranked(model, reverse, tokenizer, TEXTS[0], 0.5)


def test_prefixes_belong_to_their_models(tokenizer):
    model, reverse = (MODELS["own"](tokenizer, seed) for seed in (0, 1))
    seen = []
    forward = reverse.forward
    reverse.forward = lambda **inputs: (seen.append(inputs), forward(**inputs))[1]
    reranker = NoisyChannelReranker(reverse, tokenizer, tokenizer, prefix="two ", reverse_prefix="old ")
    translate_batch(model, tokenizer, ["two cats"], progress=False, custom_generate=reranker, **OPTIONS)
    (inputs,) = seen
    assert tokenizer.decode(inputs["labels"][0], skip_special_tokens=True) == "cats"
    assert all(text.startswith("old ") for text in tokenizer.batch_decode(inputs["input_ids"]))


def test_what_the_reverse_model_cannot_take_is_cut_off(tokenizer):
    model = MODELS["own"](tokenizer, 0)
    reverse = small_model(1, vocab_size=len(tokenizer), max_position_embeddings=6)
    seen = []
    forward = reverse.forward
    reverse.forward = lambda **inputs: (seen.append(inputs), forward(**inputs))[1]
    reranker = NoisyChannelReranker(reverse, tokenizer, tokenizer)
    translate_batch(model, tokenizer, TEXTS[:1], progress=False, custom_generate=reranker, **OPTIONS)
    (inputs,) = seen
    whole = tokenizer(TEXTS[0])["input_ids"]
    assert inputs["labels"].tolist() == [[*whole[:5], whole[-1]]] * BEAMS
    assert inputs["input_ids"].shape[1] == 6


class AfterToken(StoppingCriteria):
    def __call__(self, input_ids, scores, **kwargs):
        return input_ids[:, -1] % 3 == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_beams": 1}, "num_beams must be at least 2 with a reranker"),
        ({"return_dict_in_generate": True}, "return_dict_in_generate must be left out with a reranker"),
        ({"stopping_criteria": StoppingCriteriaList([AfterToken()])}, "stopping_criteria must be left out"),
        ({"input_ids": None}, "input_ids must be given with a reranker"),
    ],
)
def test_what_a_reranker_cannot_use_is_refused(options, message, tokenizer):
    model = MODELS["own"](tokenizer, 0)
    ids = torch.tensor([[5, 6, 7, 2]])
    given = {"input_ids": ids, **OPTIONS, **options}
    if given["input_ids"] is None:
        given["encoder_outputs"] = model.get_encoder()(ids)
    with pytest.raises(InputError, match=message):
        model.generate(**given, custom_generate=NoisyChannelReranker(model, tokenizer, tokenizer))


def test_options_are_checked_before_a_list_is_read(tokenizer):
    model, reverse = (MODELS["own"](tokenizer, seed) for seed in (0, 1))
    reranker = NoisyChannelReranker(reverse, tokenizer, tokenizer)
    for options, message in (
        ({"stop_strings": ["dog"]}, "stop_strings must be"),
        ({"num_beams": 1}, "num_beams must"),
    ):
        with pytest.raises(InputError, match=message):
            translate_batch(model, tokenizer, [1], **{**OPTIONS, **options}, custom_generate=reranker)


@pytest.mark.parametrize("weight", [0.0, -1.0, float("nan"), float("inf")])
def test_a_weight_without_effect_is_refused(weight, tokenizer):
    with pytest.raises(InputError, match="weight must be a finite number above 0"):
        NoisyChannelReranker(MODELS["own"](tokenizer, 0), tokenizer, tokenizer, weight)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A model, and two of the other direction."""
    found = []
    for seed in range(3):
        model, words = tiny()
        torch.manual_seed(seed)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.1)
        found.append(str(tmp_path_factory.mktemp(f"model-{seed}")))
        for part in (model, words):
            part.save_pretrained(found[-1])
    return found


QUIET = ("--quiet", "--device", "cpu", "--dtype", "float32")
HOW = ("--num-beams", "3", "--reverse-weight", "3", "--reverse-model")


def reranked(folders) -> list[str]:
    model, tokenizer = load_model_and_tokenizer(folders[0])
    how = {"num_beams": 3, "progress": False}
    reranker = NoisyChannelReranker.load(folders[1], tokenizer, weight=3.0)
    wanted = translate_batch(model, tokenizer, SOURCES, custom_generate=reranker, **how)
    assert wanted != translate_batch(model, tokenizer, SOURCES, **how)
    return wanted


def test_a_saved_model_is_evaluated_with_it(folders, tmp_path, capsys):
    rows = zip(SOURCES, REFERENCES, strict=True)
    (tmp_path / "test.tsv").write_text("".join(f"{source}\t{target}\n" for source, target in rows))
    data = ["--task", "translation", "--data", str(tmp_path / "test.tsv")]
    output = ["--output", str(tmp_path / "scores")]
    assert command("evaluate")([folders[0], *data, *output, *QUIET, *HOW, folders[1]]) == 0
    lines = (tmp_path / "scores" / FILE).read_text().splitlines()
    assert [json.loads(line)["prediction"] for line in lines] == reranked(folders)
    capsys.readouterr()
    assert command("evaluate")([folders[0], "--task", "text-classification", *data[2:], *QUIET, *HOW, folders[1]]) == 2
    assert (
        "reverse_model must be left out with task text-classification: it is for translation"
        in capsys.readouterr().err
    )


def test_a_file_is_continued_with_the_same_reverse_model_only(folders, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(files, "PORTION", 2)
    lines, output, place = tmp_path / "lines.txt", tmp_path / "out.txt", tmp_path / "reverse"
    lines.write_text("\n".join(SOURCES))
    shutil.copytree(folders[1], place)
    arguments = [folders[0], str(lines), "--output", str(output), *QUIET, *HOW, str(place)]
    with stopped_at(1, monkeypatch):
        assert command("translate")(arguments) == 130
    shutil.copytree(folders[2], place, dirs_exist_ok=True)
    capsys.readouterr()
    assert command("translate")(arguments) == 2
    assert "was begun with, got another reverse model" in capsys.readouterr().err
    shutil.copytree(folders[1], place, dirs_exist_ok=True)
    assert command("translate")(arguments) == 0
    assert output.read_text().splitlines() == reranked(folders)


def test_beams_that_were_forgotten_leave_nothing_behind(folders, tmp_path, capsys):
    lines, output = tmp_path / "lines.txt", tmp_path / "out.txt"
    lines.write_text("dogs")
    arguments = [folders[0], str(lines), "--output", str(output), "--reverse-model", folders[1], *QUIET]
    assert command("translate")(arguments) == 2
    assert "num_beams must be at least 2 with a reranker" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [lines]
    assert command("translate")([*arguments, "--num-beams", "2"]) == 0


def test_a_summary_does_not_give_its_source_back(folders, capsys):
    assert command("summarize")([folders[0], "--reverse-model", folders[1], *QUIET]) == 2
    assert "No such option" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--reverse-weight", "2"], "--reverse-weight must come with --reverse-model"),
        (["--reverse-model", "MODEL", "--sample"], "--reverse-model must be left out beside --sample"),
        (["--reverse-model", "MODEL", "--ray"], "--reverse-model must be left out beside --ray"),
        (["--reverse-model", "MODEL", "--num-beams", "1"], "num_beams must be at least 2"),
        (["--reverse-model", "nowhere/at/all"], "nowhere/at/all"),
        (["--reverse-model", "MODEL", "--reverse-weight", "-1"], "--reverse-weight"),
    ],
)
def test_flags_that_cannot_act_are_refused(folders, tmp_path, capsys, given, message):
    lines = tmp_path / "lines.txt"
    lines.write_text("dogs")
    given = [folders[1] if one == "MODEL" else one for one in given]
    assert command("translate")([folders[0], str(lines), *QUIET, *given]) == 2
    assert message in " ".join(capsys.readouterr().err.split())
