import pytest

from crossmask.seq2seq.sentences import sentence_around, sentence_spans


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("Ann left. Where to?", ["Ann left.", "Where to?"]),
        ("no end", ["no end"]),
        ('She said "Go!" Then (he left.) Really…  yes', ['She said "Go!"', "Then (he left.)", "Really…", "yes"]),
        ("It costs 3.50 today. Good", ["It costs 3.50 today.", "Good"]),
        ("one\ntwo\n\n three ", ["one", "two", "three"]),
        ("Wait... what?!", ["Wait...", "what?!"]),
        ("彼女は行った。どこへ？", ["彼女は行った。", "どこへ？"]),
        ("", []),
        (" \n ", []),
    ],
)
def test_sentences(text, sentences):
    assert [text[start:end] for start, end in sentence_spans(text)] == sentences


def test_the_sentence_of_an_answer():
    text = "Ann left. She took a train to Rome. Bob stayed."
    start = text.index("train")
    assert text[slice(*sentence_around(text, start, start + 5))] == "She took a train to Rome."
    both = text[slice(*sentence_around(text, start, text.index("Bob") + 3))]
    assert both == "She took a train to Rome. Bob stayed."


def test_sentences_leave_out_whitespace_alone():
    text = "  A b. \n\tC?d! E\n"
    covered = {at for start, end in sentence_spans(text) for at in range(start, end)}
    assert all(text[at].isspace() for at in set(range(len(text))) - covered)
