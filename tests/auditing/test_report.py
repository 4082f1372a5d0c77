"""The report in words, as an error, and as a picture."""

import re

import pytest
import torch
from audit_cases import CASES
from small_models import small_model, tokens

from crossmask import audit
from crossmask.auditing import LeakError

figures = pytest.importorskip("crossmask.plotting.audit", reason="needs matplotlib", exc_type=ImportError)


class Words:
    """A tokenizer that knows how to write a token, and a dollar sign, which is not a formula."""

    def decode(self, ids: list[int]) -> str:
        return "$" if ids[0] == 7 else f"w{ids[0]}"


def report_of(name: str, **options):
    case = CASES[name]()
    return audit(case.model, case.leaking, **case.should, **options)


def test_the_text_says_what_leaks_where_and_why():
    lines = str(report_of("packed_without_segments")).splitlines()
    assert lines[0] == "audit by gradient: 28 leaks from the source and the target (1 row, source of 8, target of 6)"
    assert lines[1].startswith("  the batch has no segment_ids, so examples of one row read each other: pass")
    assert lines[2].startswith("  row 0: target 0-1 reads source 3-7, another example and padding (up to ")
    assert lines[3].startswith("  row 0: target 2-4 reads source 0-2, 7, another example and padding (up to ")
    assert lines[4].startswith("  row 0: target 2-4 reads target 0-1, another example (up to ")
    assert len(lines) == 5


def test_tokens_are_written_where_a_tokenizer_is_given():
    source, words = tokens(2, 7)[0].tolist(), Words()
    read = " ".join(words.decode([i]) for i in source[2:6])
    text = str(report_of("off_by_one", tokenizer=words))
    assert re.search(rf"row 0: target 0-3 'w1 .*' reads source 2 to 5 '{re.escape(read)}', one further each", text)
    assert "row 0: target 0-2 'w1 " in str(report_of("blind_span_through_the_encoder", tokenizer=words))


def test_many_leaks_are_cut_short_and_all_kept():
    batch = {"input_ids": tokens(16, 4), "decoder_input_ids": tokens(16, 2)}
    report = audit(small_model(encoder_mask="causal()", cross_mask="wait_k(2)"), batch, cross_mask="wait_k(1)")
    assert len(report.leaks) == 32
    assert "row 0: target 0-1 reads source 1 to 2, one further each (up to " in str(report)
    assert "and 4 more lines like these: see .leaks" in str(report)
    assert len(str(report).splitlines()) == 15


def test_the_text_of_a_sound_model():
    batch = {"input_ids": tokens(1, 3), "decoder_input_ids": tokens(1, 2)}
    report = audit(small_model(), batch)
    assert str(report) == (
        "audit by gradient: no leak (1 row, source of 3, target of 2; 6 pairs of target and source position have "
        "influence, 3 of target and target, all allowed)"
    )
    report.raise_if_leaking()
    narrow = audit(small_model(encoder_mask="causal()"), {**batch, "cross_mask": "wait_k(1)"}, cross_mask="full()")
    assert narrow.ok
    assert "3 pairs of target and source position may have influence and had none (no leak)" in str(narrow)


def test_the_error_is_one_line_with_the_cause():
    with pytest.raises(LeakError) as error:
        report_of("blind_span_through_the_encoder").raise_if_leaking()
    assert "6 leaks from the source" in str(error.value)
    assert "encoder_mask full(), and blind((2, 4)) should hold" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["packed_without_segments", "left_padded_with_raw_positions"])
def test_the_picture_marks_each_leak(name, tmp_path):
    report = report_of(name, tokenizer=Words())
    figure = report.plot(tmp_path / "folder" / "audit.png")
    assert (tmp_path / "folder" / "audit.png").read_bytes().startswith(b"\x89PNG")
    row = report.leaks[0].row
    for ax, relation in zip(figure.axes, (report.source, report.target), strict=True):
        cells = torch.as_tensor(ax.images[0].get_array().data)
        assert (cells == 3).equal(relation.leaking[row])
        assert ((cells == 1) & relation.counted[row]).equal(
            relation.measured[row] & relation.allowed[row] & relation.counted[row]
        )
        assert len(ax.get_xticklabels()) == relation.allowed.shape[2]
    assert figure.axes[0].get_yticklabels()[0].get_text() == report.source.target_tokens[row][0]


def test_rows_of_the_picture():
    batch = {"input_ids": tokens(6, 3), "decoder_input_ids": tokens(6, 2)}
    report = audit(small_model(), batch)
    assert len(report.plot().axes) == 8
    assert len(report.plot(rows=[5]).axes) == 2
    with pytest.raises(ValueError, match=r"rows must be some of 0 to 5, the batch's, got \[6\]"):
        report.plot(rows=[6])
