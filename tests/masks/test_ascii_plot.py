"""Masks as text: cells, tokens on the axes, and what cannot be drawn."""

import pytest
import torch
from new_process import run_code

from crossmask import masks
from crossmask.masks.view import lay_view, printable


def grid(text: str) -> list[str]:
    """The marks of a picture, without what stands on the axes."""
    return ["".join(c for c in line if c in "#.") for line in text.splitlines()[2:] if "#" in line or "." in line]


def test_picture_matches_the_mask():
    assert masks.picture("wait_k(2)", 4, 3).splitlines() == [
        "wait_k(2): rows are target, columns source; # allowed, . not",
        "",
        "  0 1 2 3",
        "0 # # . .",
        "1 # # # .",
        "2 # # # #",
    ]


def test_picture_agrees_with_the_specification():
    mask = masks.parse("(causal() | prefix(2)) & ~blocks(3)")
    expected = masks.naive_mask(mask, masks.lay_out(9, torch.device("cpu")), masks.lay_out(7, torch.device("cpu")))[
        0, 0
    ]
    assert torch.equal(lay_view(mask, 7, 9).allowed, expected)
    assert grid(masks.picture(mask, 7, 9)) == ["".join(".#"[int(x)] for x in row) for row in expected.tolist()]


def test_tokens_stand_on_the_axes():
    text = masks.picture("full()", source_tokens=["ein", "Hund"], target_tokens=["a", "dog"])
    assert text.splitlines()[2:] == ["      H", "    e u", "    i n", "    n d", "  a # #", "dog # #"]


def test_wide_characters_keep_the_columns_aligned():
    lines = masks.picture("causal()", source_tokens=["狗", "x"], target_tokens=["u\u0308", "狗"]).splitlines()[2:]
    assert lines == ["   狗 x", " u\u0308 #  .", "狗 #  #"]


def test_packed_rows_restart_and_padding_is_blank():
    text = masks.picture("causal()", scope="decoder", source_segments=[1, 1, 2, 2, 0])
    assert text.splitlines()[2:] == ["  0 1 0 1", "0 # . . .", "1 # # . .", "0 . . # .", "1 . . # #"]
    assert "blank is padding" in text
    assert "rows are target, columns target" in text


def test_boolean_tensors_are_pictured():
    allowed = torch.tensor([[True, False, True]])
    assert grid(masks.picture(allowed)) == ["#.#"]
    assert grid(masks.picture(allowed[None, None], source_segments=[1, 1, 2], target_segments=[1])) == ["#.."]


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((torch.ones(2, 3, 4, dtype=torch.bool),), {}, r"a picture must be of \(T, S\), got \(2, 3, 4\)"),
        (
            (torch.ones(3, 4, dtype=torch.bool), 5),
            {},
            "the numbers of source tokens must be equal, got 5 for source and 4 for the tensor",
        ),
        (
            ("full()", 3),
            {"source_tokens": ["a"]},
            "the numbers of source tokens must be equal, got 3 for source and 1 for source_tokens",
        ),
        (("full()", 0), {}, "source must be at least 1 token, got 0"),
        (("full()", 2), {"scope": "sideways"}, "scope must be one of 'cross', 'encoder', 'decoder'"),
        (("nothing()",), {}, "a rule must have a known name, got 'nothing'"),
        ((None,), {}, "got None"),
    ],
)
def test_bad_input_is_one_line_that_says_what(arguments, options, message):
    with pytest.raises(masks.MaskError, match=message) as error:
        masks.picture(*arguments, **options)
    assert "\n" not in str(error.value)


def test_tokens_in_place_of_a_number():
    with pytest.raises(masks.MaskError, match=r"source must be a number of tokens, got \['a'\]; write source_tokens="):
        masks.picture(masks.causal(), source=["a"])


def test_tokens_are_made_printable():
    assert [printable(token) for token in ("\n", "a\tb", " ", "", "é")] == ["\\n", "a\\tb", "␣", "∅", "é"]
    assert len(printable("x" * 100)) == 16


@pytest.mark.parametrize("options", [{"head": -1}, {"layer": -1}, {"head": True}, {"layer": 0.5}, {"head": 10**5000}])
def test_heads_and_layers_are_counted_from_0(options):
    name = next(iter(options))
    with pytest.raises(masks.MaskError, match=f"{name} must be a number from 0, got"):
        masks.picture("full()", **options)


def test_titles_of_long_masks_are_cut():
    long = masks.parse(" | ".join(f"prefix({n})" for n in range(1000)))
    assert len(masks.picture(long).splitlines()[0]) < 500


def test_a_layer_beyond_all_ranges_is_shown_at_once():
    mask = masks.layers({"0-999999999": "causal()", "rest": "full()"})
    assert masks.picture(mask, 3, layer=5) == masks.picture(mask, 3, layer=10**9 - 1).replace(
        "layer 999999999", "layer 5"
    )


def test_masks_and_terminal_pictures_need_no_matplotlib(tmp_path):
    """Nor does `import crossmask` load what only training and evaluation need, which takes a second."""
    code = (
        "sys.modules['matplotlib'] = None\n"
        "from crossmask import masks\n"
        "assert not {'datasets', 'evaluate'} & set(sys.modules)\n"
        "print(masks.picture('causal()', 2))\n"
        "try: masks.causal().plot(2)\n"
        "except ImportError as error: print(error)\n"
    )
    out = run_code(code, cwd=tmp_path, has_crossmask=True)
    assert "1 # #" in out
    assert "pip install 'crossmask[plots]'" in out
