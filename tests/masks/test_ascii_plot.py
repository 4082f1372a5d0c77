import subprocess
import sys

import pytest
import torch

from crossmask import masks
from crossmask.masks.__main__ import main
from crossmask.masks.ascii_plot import lay_view, printable

figures = pytest.importorskip("crossmask.plotting.masks", reason="needs matplotlib", exc_type=ImportError)


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
        ((torch.ones(2, 3, 4, dtype=torch.bool),), {}, r"one picture shows \(T, S\), got \(2, 3, 4\)"),
        ((torch.ones(3, 4, dtype=torch.bool), 5), {}, "source has 5, the tensor has 4"),
        (("full()", 3), {"source_tokens": ["a"]}, "source has 3, source_tokens has 1"),
        (("full()", 0), {}, "source must be at least 1 token, got 0"),
        (("full()", 2), {"scope": "sideways"}, "scope must be one of 'cross', 'encoder', 'decoder'"),
        (("nothing()",), {}, "no rule is named 'nothing'"),
        ((None,), {}, "got None"),
    ],
)
def test_bad_input_is_one_line_that_says_what(arguments, options, message):
    with pytest.raises(masks.MaskError, match=message) as error:
        masks.picture(*arguments, **options)
    assert "\n" not in str(error.value)


def test_tokens_in_place_of_a_number():
    with pytest.raises(masks.MaskError, match=r"source is a number of tokens, got \['a'\]; write source_tokens="):
        masks.picture(masks.causal(), source=["a"])


def test_command_refuses_a_contradiction(capsys):
    assert main(["window(0) & ~window(0)"]) == 2
    assert "never allows anything" in capsys.readouterr().err
    assert main(["~full()"]) == 0


def test_tokens_are_made_printable():
    assert [printable(token) for token in ("\n", "a\tb", " ", "", "é")] == ["\\n", "a\\tb", "␣", "∅", "é"]
    assert len(printable("x" * 100)) == 16


def test_plot_draws_the_same_cells():
    ax = masks.causal().plot(4, scope="decoder", source_segments=[1, 1, 2, 0])
    cells = torch.as_tensor(ax.images[0].get_array().data)
    assert cells.tolist() == [[1, 0, 0, 2], [1, 1, 0, 2], [0, 0, 1, 2], [2, 2, 2, 2]]
    assert ax.get_title() == "causal()"
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("target", "target")


def test_plot_draws_into_the_axes_given():
    ax = figures.Figure().add_subplot()
    assert masks.full().plot(3, 2, ax=ax) is ax
    assert ax.images[0].get_array().shape == (2, 3)


def test_dollars_and_unknown_scripts_do_not_disturb(tmp_path, recwarn):
    tokens = ["$", "5_{", "\ue0ff", "Übermut"]
    ax = masks.full().plot(source_tokens=tokens)
    file = figures.save_png(ax.figure, tmp_path / "mask.png")
    assert [label.get_text() for label in ax.get_xticklabels()] == ["$", "5_{", "\\ue0ff", "Übermut"]
    assert file.read_bytes().startswith(b"\x89PNG")
    assert not list(recwarn)


def test_figures_are_the_same_bytes_and_leave_no_files_beside(tmp_path):
    for name in ("a.png", "b.png"):
        figures.save_png(masks.causal().plot(4).figure, tmp_path / "new" / name)
    a, b = sorted((tmp_path / "new").iterdir())
    assert a.read_bytes() == b.read_bytes()


def test_a_failed_write_keeps_what_was_there(tmp_path, monkeypatch):
    file = tmp_path / "mask.png"
    file.write_bytes(b"old")

    def fail(*_):
        raise OSError("no space left")

    monkeypatch.setattr(figures.os, "replace", fail)
    with pytest.raises(OSError, match="no space"):
        figures.save_png(masks.full().plot(2).figure, file)
    assert [(entry.name, entry.read_bytes()) for entry in tmp_path.iterdir()] == [("mask.png", b"old")]


def test_gallery_needs_masks():
    with pytest.raises(ValueError, match="at least one mask"):
        figures.gallery([])


def test_command_prints_and_draws(tmp_path, capsys):
    file = tmp_path / "mask.png"
    assert main(["wait_k(3) & window(8)", "--source", "12", "--target", "10", "--png", str(file)]) == 0
    assert capsys.readouterr().out == masks.picture("wait_k(3) & window(8)", 12, 10) + "\n"
    assert file.stat().st_size > 1000


def test_command_takes_tokens(capsys):
    assert main(["causal()", "--source", "a b c", "--target", "2"]) == 0
    assert capsys.readouterr().out == masks.picture("causal()", source_tokens=["a", "b", "c"], target=2) + "\n"


def test_command_draws_a_small_gallery(tmp_path):
    file = tmp_path / "gallery.png"
    assert main(["--gallery", str(file)]) == 0
    assert 10_000 < file.stat().st_size < 300_000


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["full()", "--head", "-1"], "head must be a number from 0, got -1"),
        (["full()", "--layer", "-1"], "layer must be a number from 0, got -1"),
        (["full()", "--head", "9" * 30], "head must be a number from 0"),
        (["full()", "--head", "1000000"], "a picture must have at most 4,194,304 cells"),
        (["heads({'0-999999999': full()})"], "a picture must have at most 4,194,304 cells"),
        (["full()", "--source", "100000000"], "got 100000000 rows, 100000000 columns and 1 head"),
        (["full()", "--source", "3000", "--target", "3000"], "got 3000 rows, 3000 columns and 1 head"),
        (["full()", "--source", "9" * 5000], "--source must be a number of tokens of at most 9 digits"),
        (["full()", "--source", "0"], "source must be at least 1 token, got 0"),
        (["full()", "--target", "-3"], "target must be at least 1 token, got -3"),
        (["full()", "--source", ""], "source must be at least 1 token"),
        ([""], "it is an empty text"),
        (["\udcff()"], "must be valid Unicode"),
        (["full()", "--png", "there/is/none/mask.png"], "the folder of 'there/is/none/mask.png' does not exist"),
        (["--gallery", "there/is/none/\udcff.png"], "argument 2 of the command line must be valid Unicode"),
    ],
)
def test_command_refuses_what_it_cannot_show(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert error.rstrip().isprintable()
    assert not list(tmp_path.iterdir())


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


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["wait_k(0)"], "k must be an integer of at least 1"),
        (["full()", "--source", "-1"], "source must be at least 1"),
        (["full()", "--source", "9" * 5000], "--source must be a number of tokens of at most 9 digits"),
        (["full()", "--png", "/proc/nowhere/mask.png"], "/proc/nowhere"),
    ],
)
def test_command_reports_errors_in_one_line(arguments, message, capsys):
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    "arguments", [[], ["full()", "--gallery", "x.png"], ["full()", "--sauce", "3"], ["full()", "--png", ""]]
)
def test_command_reports_usage_in_one_line(arguments, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(arguments)
    assert capsys.readouterr().err.count("\n") == 1


def test_masks_and_terminal_pictures_need_no_matplotlib():
    code = (
        "import sys; sys.modules['matplotlib'] = None\n"
        "from crossmask import masks\n"
        "print(masks.picture('causal()', 2))\n"
        "try: masks.causal().plot(2)\n"
        "except ImportError as error: print(error)\n"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "1 # #" in out
    assert "pip install 'crossmask[plots]'" in out


def test_glyphs_fall_back_to_a_font_of_the_machine(tmp_path, monkeypatch):
    from crossmask.masks import glyphs

    builder = pytest.importorskip("fontTools.fontBuilder", reason="comes with matplotlib").FontBuilder(1000)
    glyph = pytest.importorskip("fontTools.pens.ttGlyphPen").TTGlyphPen(None)
    for point, draw in (((0, 0), glyph.moveTo), ((900, 0), glyph.lineTo), ((450, 900), glyph.lineTo)):
        draw(point)
    glyph.closePath()
    shape = glyph.glyph()
    builder.setupGlyphOrder([".notdef", "dog"])
    builder.setupCharacterMap({ord("狗"): "dog"})
    builder.setupGlyf({".notdef": shape, "dog": shape})
    builder.setupHorizontalMetrics({".notdef": (1000, 0), "dog": (1000, 0)})
    builder.setupHorizontalHeader(ascent=900, descent=-100)
    builder.setupNameTable({"familyName": "Kennel Sans", "styleName": "Regular"})
    builder.setupOS2(usWeightClass=400)
    builder.setupPost()
    builder.save(tmp_path / "kennel.ttf")

    monkeypatch.setattr(glyphs.fontManager, "ttflist", [f for f in glyphs.fontManager.ttflist if "DejaVu" in f.name])
    assert glyphs.fit_fonts(["狗a猫猫"]) == (["[72D7]a[732B 732B]"], ["DejaVu Sans"])
    glyphs.fontManager.addfont(tmp_path / "kennel.ttf")
    assert glyphs.fit_fonts(["狗a猫猫"]) == (["狗a[732B 732B]"], ["DejaVu Sans", "Kennel Sans"])
