"""Masks as figures: cells, fonts and files."""

import pytest
import torch

from crossmask import masks

figures = pytest.importorskip("crossmask.plotting.masks", reason="needs matplotlib", exc_type=ImportError)


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
    with pytest.raises(ValueError, match="must have at least one mask"):
        figures.gallery([])


def test_fonts_fall_back_to_a_font_of_the_machine(tmp_path, monkeypatch):
    from crossmask.plotting import fonts

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

    monkeypatch.setattr(fonts.fontManager, "ttflist", [f for f in fonts.fontManager.ttflist if "DejaVu" in f.name])
    assert fonts.fit_fonts(["狗a猫猫"]) == (["[72D7]a[732B 732B]"], ["DejaVu Sans"])
    fonts.fontManager.addfont(tmp_path / "kennel.ttf")
    assert fonts.fit_fonts(["狗a猫猫"]) == (["狗a[732B 732B]"], ["DejaVu Sans", "Kennel Sans"])
