"""Streams of attached models: what `generate()` writes under the same masks, a token at a time."""

import pytest
import torch
from attached_families import attached, ids

from crossmask.seq2seq.simultaneous.policies import AlignAtt

pytestmark = pytest.mark.filterwarnings("ignore")

OPTIONS = {"max_new_tokens": 6, "eos_token_id": None}
MASKS = {"encoder_mask": "causal()", "cross_mask": "wait_k(2)"}
each_family = pytest.mark.parametrize(
    "family", ["bart", "marian", "m2m_100", "t5", "umt5", "bert2bert", "roberta2roberta", "bert2gpt2", "t5gemma2"]
)


@each_family
@torch.no_grad()
def test_a_stream_writes_what_generation_writes(family):
    model, source = attached(family, **MASKS), ids(2, 7)
    expected = model.generate(source, do_sample=False, **OPTIONS)[:, 1:]
    assert [*model.stream(source[0].tolist(), **OPTIONS)] == expected[0].tolist()
    written: list[list[int]] = [[], []]
    for row, token in model.stream_batch(source.tolist(), **OPTIONS):
        written[row].append(token)
    assert written == expected.tolist()


@torch.no_grad()
def test_streams_advance_each_at_its_pace():
    model, source = attached("bart"), ids(2, 7)
    stream = model.open_stream(2, **MASKS, **OPTIONS)
    assert stream.push([source[0, :1].tolist(), source[1, :2].tolist()]) == [[], stream.targets[1]]
    assert len(stream.targets[1]) == 1
    stream.push([source[0, 1:].tolist(), []], ended=[True, False])
    stream.push([[], source[1, 2:].tolist()], ended=[False, True])
    expected = model.generate(source, do_sample=False, **MASKS, **OPTIONS)[:, 1:]
    assert stream.targets == expected.tolist()
    assert stream.delays[1][0] == 2


@torch.no_grad()
def test_a_policy_by_attention():
    model = attached("bart", "eager", encoder_mask="causal()")
    tokens = [*model.stream(ids(7).tolist(), policy=AlignAtt(f=1), **OPTIONS)]
    assert len(tokens) == 6
    model.set_attn_implementation("sdpa")
    with pytest.raises(ValueError, match="needs attention weights"):
        model.open_stream(policy=AlignAtt(f=1))


def test_speech_is_no_stream_of_tokens():
    with pytest.raises(ValueError, match="must be of tokens, got a model that reads input_features"):
        attached("whisper").open_stream()
