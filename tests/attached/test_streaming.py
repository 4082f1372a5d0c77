"""Streams of attached models: what `generate()` writes under the same masks, a token at a time."""

import pytest
import torch
import transformers
from attached_families import attached, ids

from crossmask.seq2seq.simultaneous.policies import AlignAtt

pytestmark = pytest.mark.filterwarnings("ignore")

OPTIONS = {"max_new_tokens": 6, "eos_token_id": None}
MASKS = {"encoder_mask": "causal()", "cross_mask": "wait_k(2)"}
FAMILIES = [
    *("bart", "marian", "mbart", "m2m_100", "pegasus", "t5", "umt5", "bert2bert", "roberta2roberta", "bert2gpt2"),
    *("t5gemma", "t5gemma2"),
]
each_family = pytest.mark.parametrize("family", FAMILIES)


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


@pytest.mark.parametrize("cross_mask", ["wait_k(2)", "monotonic(slope=1.0, width=2) & window(3)"])
@pytest.mark.parametrize("family", [*FAMILIES, "longt5"])
@torch.no_grad()
def test_a_stream_alone_goes_on_from_its_cache_with_the_scores_of_a_whole_pass(family, cross_mask):
    """Two of the same stream side by side are computed anew at each step."""
    looks_ahead = family == "longt5"  # so that each token that arrives changes the states of those before
    model = attached(family, encoder_mask="full()" if looks_ahead else "causal()", cross_mask=cross_mask)
    source, read = ids(7).tolist(), []
    model.get_decoder().register_forward_pre_hook(
        lambda module, args, kwargs: read.append(kwargs["input_ids"].shape[1]), with_kwargs=True
    )
    alone, anew = Scores(), Scores()
    written = [*model.stream(source, logits_processor=[alone], **OPTIONS)]
    assert read == ([1, 2, 3, 4, 5, 6] if looks_ahead else [1, 1, 1, 1, 1, 1])
    read.clear()
    pairs = [*model.stream_batch([source, source], logits_processor=[anew], **OPTIONS)]
    assert [token for row, token in pairs if row == 0] == written
    assert read == [1, 2, 3, 4, 5, 6]
    for one, other in zip(alone.seen, anew.seen[::2], strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


class Scores(transformers.LogitsProcessor):
    """Keeps the scores of each step."""

    def __init__(self):
        self.seen: list[torch.Tensor] = []

    def __call__(self, input_ids, scores):
        self.seen.append(scores[0].clone())
        return scores


@torch.no_grad()
def test_a_source_is_encoded_when_a_token_is_written_and_not_before():
    model, encoded = attached("bart", encoder_mask="causal()", cross_mask="wait_k(4)"), []
    model.get_encoder().register_forward_hook(lambda *args: encoded.append(args[-1][0].shape[1]))
    stream = model.open_stream(**OPTIONS)
    for token in ids(6).tolist():
        stream.push([[token]])
    assert encoded == [4, 5, 6]
    stream.push([[]], ended=True)
    assert encoded == [4, 5, 6]
    assert len(stream.targets[0]) == 6


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


def recording(family: str, frames: int = 18, seed: int = 0) -> torch.Tensor:
    """Features of one recording, as the family takes them without a batch."""
    features = torch.randn(8, frames, generator=torch.Generator().manual_seed(seed))
    return features if family == "whisper" else features.T.contiguous()


def pieces_of(family: str, features: torch.Tensor, size: int) -> list[torch.Tensor]:
    return [*features.split(size, dim=1 if family == "whisper" else 0)]


SPEECH = {"encoder_mask": "causal()", "cross_mask": "wait_k(2)"}
each_speech_family = pytest.mark.parametrize("family", ["whisper", "speech_to_text"])


@each_speech_family
@pytest.mark.parametrize("size", [1, 5, 18])
@torch.no_grad()
def test_speech_is_streamed_in_chunks_with_the_scores_of_one_pass(family, size):
    model, features, scores = attached(family, **SPEECH), recording(family), Scores()
    stream = model.open_stream(logits_processor=[scores], **OPTIONS)
    for chunk in pieces_of(family, features, size):
        stream.push([[chunk]])
        frames = stream.features.shape[2 if family == "whisper" else 1]
        assert len(stream.arrived[0]) == ((frames - 1) // 2 if family == "whisper" else frames // 2)
    stream.push([[]], ended=True)
    target = torch.tensor([[3, *stream.targets[0][:-1]]])
    whole = model(input_features=features[None], decoder_input_ids=target).logits[0]
    torch.testing.assert_close(torch.stack(scores.seen), whole, atol=1e-4, rtol=1e-4)
    assert whole.argmax(-1).tolist() == stream.targets[0]
    if size < 18:
        assert stream.delays[0][0] < len(stream.arrived[0])


@torch.no_grad()
def test_a_recording_that_is_shorter_than_the_window_ends_in_silence():
    model, features = attached("whisper", **SPEECH), recording("whisper", frames=11)
    written = [*model.stream(pieces_of("whisper", features, 4), **OPTIONS)]
    silence = torch.full((8, 7), float(features.max()) - 2)
    whole = torch.cat([features, silence], dim=1)[None]
    target = torch.tensor([[3, *written[:-1]]])
    assert model(input_features=whole, decoder_input_ids=target).logits[0].argmax(-1).tolist() == written


@each_speech_family
def test_streams_of_speech_that_cannot_be(family):
    model = attached(family, **SPEECH)
    with pytest.raises(ValueError, match="a stream of speech must be one recording, got 2"):
        model.open_stream(2)
    stream = model.open_stream(**OPTIONS)
    shape = r"\(8, frames\)" if family == "whisper" else r"\(frames, 8\)"
    with pytest.raises(ValueError, match=rf"a chunk of features must be {shape}, got \(3, 3\)"):
        stream.push([[torch.zeros(3, 3)]])
    if family == "whisper":
        with pytest.raises(ValueError, match=r"a stream must have at most 18 frames, .* got 19"):
            stream.push([[recording(family, frames=19)]])
    with pytest.raises(ValueError, match="ended without a token"):
        stream.push([[]], ended=True)


def test_a_chunk_of_a_push_that_is_refused_may_come_again():
    model, chunk = attached("whisper", **SPEECH), recording("whisper", frames=6)
    stream = model.open_stream(**OPTIONS)
    with pytest.raises(ValueError, match="1 lists of tokens and 2 ends for 1 streams"):
        stream.push([[chunk]], ended=[False, False])
    stream.push([[chunk]])
    assert stream.features.shape[-1] == 6


def test_speech_whose_encoder_reads_the_whole_first_is_refused():
    with pytest.raises(ValueError, match="must be of tokens or of features, got a model that reads input_values"):
        attached("moonshine").open_stream()
    model = attached("whisper", **SPEECH)
    with torch.no_grad():  # what a normalisation over time does
        model.get_encoder().conv2.register_forward_hook(
            lambda module, args, output: output - output.mean(2, keepdim=True)
        )
    with pytest.raises(ValueError, match="final states before the end, got WhisperEncoder, which reads later frames"):
        model.open_stream()
