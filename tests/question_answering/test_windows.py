from itertools import pairwise

import pytest
import torch
from question_cases import model_of
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import DataCollatorWithPadding, PreTrainedTokenizerFast

from crossmask.question_answering.windows import WindowCollator, encode_windows

CONTEXT = (
    "Ann is in the garden,  they say.\nBob (who else?) sits in the kitchen!\n\n \nNaïve Carl went to Köln in 1987. "
)
QUESTION = "Where is Ann now?"


def word_pieces() -> PreTrainedTokenizerFast:
    """As BERT's: no whitespace in tokens, token types."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(vocab_size=120, special_tokens=["[PAD]", "[UNK]", "[CLS]", "[SEP]"])
    tokenizer.train_from_iterator([CONTEXT, QUESTION], trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        "[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1", [("[CLS]", 2), ("[SEP]", 3)]
    )
    names = ["input_ids", "token_type_ids", "attention_mask"]
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", model_input_names=names
    )


def bytes_with_spaces() -> PreTrainedTokenizerFast:
    """As RoBERTa's, but that a word's token has the space before it; no token types; a letter may be two tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=["<s>", "<pad>", "</s>"], initial_alphabet=alphabet)
    tokenizer.train_from_iterator([CONTEXT, QUESTION], trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        "<s> $A </s>", "<s> $A </s> </s> $B </s>", [("<s>", 0), ("</s>", 2)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>")


def pieces_with_metaspace() -> PreTrainedTokenizerFast:
    """As T5's: a space is a letter of the token behind it, or a token of its own."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Replace(Regex(" {2,}"), " ")
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(vocab_size=90, special_tokens=["<pad>", "</s>", "<unk>"], unk_token="<unk>")
    tokenizer.train_from_iterator([CONTEXT, QUESTION], trainer)
    tokenizer.post_processor = processors.TemplateProcessing("$A </s>", "$A </s> $B </s>", [("</s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>")


def words_with_the_space_behind() -> PreTrainedTokenizerFast:
    """Whole words, each with the whitespace that follows it."""
    tokenizer = Tokenizer(models.WordLevel(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"\s+|[.,?!()]"), behavior="merged_with_previous")
    trainer = trainers.WordLevelTrainer(special_tokens=["<pad>", "</s>", "<unk>"])
    tokenizer.train_from_iterator([CONTEXT, QUESTION], trainer)
    tokenizer.post_processor = processors.TemplateProcessing("$A </s>", "$A </s> $B </s>", [("</s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", unk_token="<unk>")


MAKERS = (word_pieces, bytes_with_spaces, pieces_with_metaspace, words_with_the_space_behind)


@pytest.fixture(scope="module", params=MAKERS, ids=lambda maker: maker.__name__)
def tokenizer(request):
    return request.param()


def limits(tokenizer, context_tokens: int) -> int:
    """The length of windows that have this many tokens of the context."""
    return (
        len(tokenizer(QUESTION, "x")["input_ids"])
        - len(tokenizer("x", add_special_tokens=False)["input_ids"])
        + (context_tokens)
    )


def texts(window) -> list[str]:
    return [CONTEXT[first:last] for first, last in window["offsets"]]


def test_one_window_has_everything(tokenizer):
    ((window,),) = encode_windows(tokenizer, [QUESTION], [CONTEXT], max_length=400)
    assert window["input_ids"] == tokenizer(QUESTION, CONTEXT)["input_ids"]
    assert len(window["passage_ids"]) == len(window["offsets"]) == len(window["input_ids"])
    assert ("token_type_ids" in window) == ("token_type_ids" in tokenizer.model_input_names)
    covered = {at for first, last in window["offsets"] for at in range(first, last)}
    assert {CONTEXT[at] for at in set(range(len(CONTEXT))) - covered} <= {" ", "\n"}
    assert all(text == text.strip() for text in texts(window))
    assert set(window["passage_ids"]) == {-1, 0, 1, 2}
    for passage, words in ((0, "they say."), (1, "kitchen!"), (2, "Naïve")):
        start = CONTEXT.index(words)
        of_word = [p for p, (first, last) in zip(window["passage_ids"], window["offsets"], strict=True)
                   if start <= first < last <= start + len(words)]  # fmt: skip
        assert set(of_word) == {passage}


def test_question_and_special_tokens_are_in_no_passage(tokenizer):
    ((window,),) = encode_windows(tokenizer, [QUESTION], [CONTEXT], max_length=400)
    inside = [passage >= 0 for passage in window["passage_ids"]]
    assert inside == [part == 1 for part in tokenizer(QUESTION, CONTEXT).sequence_ids(0)]
    assert not inside[0]
    assert not inside[-1]
    assert all(window["offsets"][at] == (0, 0) for at, within in enumerate(inside) if not within)


@pytest.mark.parametrize("stride", [0, 5])
def test_windows_overlap_and_miss_nothing(tokenizer, stride):
    length = limits(tokenizer, 12)
    (windows,) = encode_windows(tokenizer, [QUESTION], [CONTEXT], max_length=length, stride=stride)
    assert len(windows) > 2
    question = tokenizer(QUESTION, "x")["input_ids"][: windows[0]["passage_ids"].index(0)]
    contexts = []
    for window in windows:
        assert len(window["input_ids"]) <= length
        assert window["input_ids"][: len(question)] == question
        contexts.append([token for token, p in zip(window["input_ids"], window["passage_ids"], strict=True) if p >= 0])
    joined = contexts[0]
    for before, after in pairwise(contexts):
        assert before[len(before) - stride :] == after[:stride]
        joined = joined + after[stride:]
    whole = tokenizer(CONTEXT, add_special_tokens=False)["input_ids"]
    assert joined == whole
    passages = [[p for p in window["passage_ids"] if p >= 0] for window in windows]
    assert passages[0][0] == 0
    assert passages[-1][-1] == 2


@pytest.mark.parametrize("side", ["left", "right"])
def test_windows_are_in_the_order_of_the_text_whatever_side_a_tokenizer_truncates(tokenizer, side):
    tokenizer.truncation_side = side
    (windows,) = encode_windows(tokenizer, [QUESTION], [CONTEXT], max_length=limits(tokenizer, 10), stride=2)
    assert tokenizer.truncation_side == side
    tokenizer.truncation_side = "right"
    starts = [next(first for first, last in window["offsets"] if last) for window in windows]
    assert starts == sorted(starts)


@pytest.mark.parametrize("context_tokens", [24, 400])
def test_every_word_is_found_in_the_windows_that_have_it(tokenizer, context_tokens):
    spans = [(at, at + len(word)) for word in ("garden", "they say", "(who else?)", "Naïve Carl", "Köln", "1987")
             for at in [CONTEXT.index(word)]]  # fmt: skip
    number = len(spans)
    encoded = encode_windows(
        tokenizer, [QUESTION] * number, [CONTEXT] * number, max_length=limits(tokenizer, context_tokens), stride=16,
        answers=spans,
    )  # fmt: skip
    for (start, end), windows in zip(spans, encoded, strict=True):
        found = 0
        for window in windows:
            first, last = window["start_positions"], window["end_positions"]
            inside = [span for span in window["offsets"] if span[0] < span[1]]
            if first == -1:
                assert last == -1
                assert inside[0][0] > start or inside[-1][1] < end
                continue
            found += 1
            assert window["offsets"][first][0] <= start < window["offsets"][first][1]
            assert window["offsets"][last][0] < end <= window["offsets"][last][1]
            assert window["passage_ids"][first] >= 0
        assert found


def test_a_question_without_an_answer(tokenizer):
    ((window,), (other,)) = encode_windows(
        tokenizer, [QUESTION] * 2, [CONTEXT] * 2, max_length=400, answers=[None, (0, 3)]
    )
    assert (window["start_positions"], window["end_positions"]) == (-1, -1)
    assert other["start_positions"] == other["passage_ids"].index(0)


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding(tokenizer, side):
    tokenizer.padding_side = side
    contexts = [CONTEXT, "Ann is there."]
    encoded = encode_windows(tokenizer, [QUESTION] * 2, contexts, max_length=400, answers=[(0, 3), (0, 3)])
    tokenizer.padding_side = side
    windows = [window for (window,) in encoded]
    collate = WindowCollator(tokenizer.pad_token_id, side, keep_offsets=True)
    batch = collate(windows)
    tokenizer.padding_side = "right"
    for row, window in enumerate(windows):
        number = len(window["input_ids"])
        part = slice(-number, None) if side == "left" else slice(0, number)
        for name in ("input_ids", "passage_ids", "offsets"):
            assert batch[name][row, part].tolist() == [list(x) if isinstance(x, tuple) else x for x in window[name]]
        assert batch["attention_mask"][row].sum() == number
        assert batch["attention_mask"][row, part].all()
        at = batch["start_positions"][row].item()
        assert batch["passage_ids"][row, at] == 0
        assert batch["offsets"][row, at].tolist()[0] == 0
    assert "offsets" not in WindowCollator.for_tokenizer(tokenizer)(windows)


def test_collator_of_transformers_is_enough_where_there_are_token_types():
    tokenizer = word_pieces()
    encoded = [tokenizer(QUESTION, context) for context in (CONTEXT, "Ann is there.")]
    batch = DataCollatorWithPadding(tokenizer)(encoded)
    windows = [window for (window,) in encode_windows(tokenizer, [QUESTION] * 2, [CONTEXT, "Ann is there."])]
    own = WindowCollator.for_tokenizer(tokenizer)(windows)
    model = model_of("bert")
    model.resize_token_embeddings(len(tokenizer))
    with torch.no_grad():
        scores = [model(**inputs).start_logits for inputs in (batch, own)]
    assert torch.equal(scores[0] > -1e30, scores[1] > -1e30)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"questions": []}, "0 questions and 1 contexts"),
        ({"questions": QUESTION}, r"questions must be a list of texts, got str; write \[text\]"),
        ({"contexts": [3]}, r"contexts\[0\] must be text, got int"),
        ({"contexts": [" "]}, r"contexts\[0\] is empty"),
        ({"answers": []}, "0 answers and 1 contexts"),
        ({"answers": [(3, 3)]}, r"answers\[0\] must be \(first character, one past the last\) within the 106"),
        ({"answers": [(0, 999)]}, r"answers\[0\] must be"),
        ({"max_length": 20, "stride": 12}, r"questions\[0\] has \d+ tokens, which leave .* no more than stride=12"),
        ({"stride": -1}, "stride must be at least 0, got -1"),
    ],
)
def test_bad_input(change, message):
    given = {"questions": [QUESTION], "contexts": [CONTEXT], **change}
    with pytest.raises(ValueError, match=message):
        encode_windows(word_pieces(), given.pop("questions"), given.pop("contexts"), **given)


def test_a_slow_tokenizer_is_refused():
    with pytest.raises(ValueError, match="object does not tell from which characters a token is"):
        encode_windows(object(), [QUESTION], [CONTEXT])
