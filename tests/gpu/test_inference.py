"""On a GPU pipelines, commands and batches of texts answer what they answer on a processor."""

import copy

import pytest
from command_line import command
from gpu_device import DEVICE, on_gpu
from pipeline_cases import KINDS, parts
from small_models import tokens
from streaming_cases import TEXTS, tiny
from transformers import pipeline

from crossmask import translate_batch
from crossmask.inference.vectors import encode_texts

pytestmark = [*on_gpu, pytest.mark.filterwarnings("ignore")]


@pytest.mark.parametrize("kind", KINDS)
def test_pipelines(kind):
    model, tokenizer = parts(kind)
    answers = []
    for device in ("cpu", DEVICE):
        translate = pipeline("crossmask-translation", model=model.to(device), tokenizer=tokenizer, device=device)
        answers.append([translate(list(TEXTS), batch_size=size) for size in (1, 3)])
    model.to("cpu")
    assert answers[0] == answers[1]
    assert answers[1][0] == answers[1][1]


def test_the_command_translates_and_streams(tmp_path, capsys):
    model, tokenizer = tiny(cross_mask="wait_k(2)")
    for part in (model, tokenizer):
        part.save_pretrained(tmp_path / "model")
    (tmp_path / "texts").write_text("".join(f"{text}\n" for text in TEXTS))
    for name in ("translate", "stream"):
        printed = []
        for device in ("cpu", DEVICE.type):
            assert command(name)([str(tmp_path / "model"), str(tmp_path / "texts"), "--device", device]) == 0
            printed.append(capsys.readouterr().out)
        assert printed[0] == printed[1]
        assert printed[0].strip()


def test_texts_in_batches():
    model, tokenizer = tiny(cross_mask="wait_k(2)")
    texts, vectors = [], []
    for device in ("cpu", DEVICE):
        model.to(device)
        texts.append(translate_batch(model, tokenizer, list(TEXTS), batch_tokens=30, progress=False))
        vectors.append(encode_texts(model, tokenizer, list(TEXTS)).cpu())
    assert texts[0] == texts[1]
    assert (vectors[0] - vectors[1]).abs().max() <= 1e-4 * vectors[0].abs().max()


def test_ids_that_do_not_exist_are_said_before_the_device_sees_them():
    """A GPU would fail for the rest of the process."""
    source, wrong = tokens(1, 5).to(DEVICE), tokens(1, 5).to(DEVICE) + 10**6
    for kind in KINDS:
        model = copy.deepcopy(parts(kind)[0]).to(DEVICE)
        with pytest.raises(ValueError, match=r"ids must be from 0 to .* the vocabulary of"):
            model.generate(wrong, max_new_tokens=2)
        with pytest.raises(ValueError, match=r"ids must be from 0 to .* the vocabulary of"):
            model.generate(source, decoder_input_ids=wrong, max_new_tokens=2)
