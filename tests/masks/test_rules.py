import inspect
import re
from pathlib import Path

import pytest
import torch
from mask_cases import draw, picture

from crossmask import masks
from crossmask.masks.__main__ import SHOWN, even_keys

PICTURES = {
    "full()": "####\n####\n####",
    "causal()": "#...\n##..\n###.",
    "window(0)": "#...\n.#..\n..#.",
    "window(1)": "##..\n###.\n.###",
    "window(left=2, right=0)": "#...\n##..\n###.",
    "window(left=0, right=2)": "###.\n.###\n..##",
    "wait_k(1)": "#...\n##..\n###.",
    "wait_k(2)": "##..\n###.\n####",
    "wait_k(9)": "####\n####\n####",
    "chunked(2)": "##..\n##..\n####",
    "chunked(size=1, lookback=1)": "#...\n##..\n.##.",
    "chunked(size=2, lookback=0)": "##..\n##..\n..##",
    "dilated(1)": "####\n####\n####",
    "dilated(3)": "#..#\n.#..\n..#.",
    "monotonic(slope=1.5, width=0)": "#...\n....\n...#",
    "monotonic(slope=0.5, width=1)": "##..\n##..\n###.",
    "monotonic(slope=0.0, width=0)": "#...\n#...\n#...",
    "alignment((3, 0, 1))": "...#\n#...\n.#..",
    "alignment((3, 0, 1), width=1)": "..##\n##..\n###.",
    "keep((0, 1), (2, 3))": "#.#.\n#.#.\n#.#.",
    "drop((0, 1), (2, 3))": ".#.#\n.#.#\n.#.#",
    "blind((1, 3))": "#..#\n#..#\n#..#",
    "keep()": "....\n....\n....",
    "blind()": "####\n####\n####",
    "heads({0: window(0), 'rest': causal()})": "#...\n.#..\n..#.",
    "~heads({'rest': causal(), 1: full()})": ".###\n..##\n...#",
    "prefix(0)": "....\n....\n....",
    "prefix(2)": "##..\n##..\n##..",
    "blocks(1)": "#...\n.#..\n..#.",
    "blocks(2)": "##..\n##..\n..##",
    "blocks(3)": "###.\n###.\n###.",
    "~causal()": ".###\n..##\n...#",
    "~full()": "....\n....\n....",
    "causal() | prefix(2)": "##..\n##..\n###.",
    "causal() & ~prefix(1)": "....\n.#..\n.##.",
    "wait_k(2) & window(left=1, right=9)": "##..\n###.\n.###",
    "~(causal() | prefix(2))": "..##\n..##\n...#",
    "blocks(2) & (causal() | prefix(1))": "#...\n##..\n..#.",
}


@pytest.mark.parametrize("text", PICTURES)
def test_rule_allows_what_its_picture_shows(text):
    assert draw(masks.parse(text), queries=3, keys=4) == PICTURES[text]


masks.register(even_keys)


@pytest.mark.parametrize("name", ["segments", "passages"])
def test_pictures_of_parted_rows_are_true(name):
    ids = torch.tensor([[1, 1, 2, 2]])
    parts = {"segment_ids": ids} if name == "segments" else {"passage_ids": ids}
    side = masks.lay_out(4, torch.device("cpu"), **parts)
    shown = re.search(r"```\n(.*?)\n```", inspect.getdoc(masks.RULES[name]), re.DOTALL)[1]
    assert picture(masks.compile_mask(masks.RULES[name](), side, side)[0, 0]) == shown
    assert picture(masks.naive_mask(masks.RULES[name](), side, side)[0, 0]) == shown


@pytest.mark.parametrize("name", sorted(set(masks.RULES) - {"segments", "passages"}))
def test_pictures_in_the_docs_are_true(name):
    doc = inspect.getdoc(masks.RULES[name])
    lines = re.search(r"```\n(.*?)```", doc, re.DOTALL)[1].splitlines()
    texts = re.split(r"\s{2,}", lines.pop(0).strip()) if "(" in lines[0] else [f"{name}()"]
    for column, text in enumerate(texts):
        shown = [line.split()[column] for line in lines]
        assert draw(masks.parse(text), len(shown), len(shown[0])).splitlines() == shown


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: masks.wait_k(0), "wait_k: k must be an integer of at least 1, got 0"),
        (lambda: masks.wait_k(1.5), "wait_k: k must be an integer of at least 1, got 1.5"),
        (lambda: masks.wait_k(True), "wait_k: k must be an integer of at least 1, got True"),
        (lambda: masks.window(-1), "window: left must be an integer of at least 0, got -1"),
        (lambda: masks.window(1, right=-1), "window: right must be an integer of at least 0, got -1"),
        (lambda: masks.window(1, "2"), "window: right must be an integer of at least 0, got '2'"),
        (lambda: masks.prefix(-1), "prefix: n must be an integer of at least 0, got -1"),
        (lambda: masks.blocks(0), "blocks: size must be an integer of at least 1, got 0"),
        (lambda: masks.chunked(0), "chunked: size must be an integer of at least 1, got 0"),
        (lambda: masks.chunked(2, -1), "chunked: lookback must be an integer of at least 0, got -1"),
        (lambda: masks.dilated(0), "dilated: stride must be an integer of at least 1, got 0"),
        (lambda: masks.monotonic(-1, 2), "monotonic: slope must be a number from 0 to 1000, got -1"),
        (lambda: masks.monotonic("1", 2), "monotonic: slope must be a number from 0 to 1000, got '1'"),
        (lambda: masks.monotonic(1 / 3, 2), f"monotonic: slope must have at most six decimals, got {1 / 3!r}"),
        (lambda: masks.random(1, 0), "random: p must be a number from 0 up and below 1, got 1"),
        (lambda: masks.random(0.1, -1), "random: seed must be an integer of at least 0, got -1"),
        (lambda: masks.keep((2, 2)), "keep: a span must be from 0 up and hold at least one token, got (2, 2)"),
        (lambda: masks.keep((-1, 2)), "keep: a span must be from 0 up and hold at least one token, got (-1, 2)"),
        (lambda: masks.blind(3), "blind: a span must be a pair (first, one past the last), got 3"),
        (
            lambda: masks.drop((1, 2), examples=((),)),
            "keep: give either spans, for all examples, or examples=, spans for each",
        ),
        (lambda: masks.keep(examples=(3,)), "keep: expected a tuple of spans for each example, got 3"),
        (lambda: masks.keep(passages=(-1,)), "keep: passages must be a tuple of numbers from 0, got (-1,)"),
        (lambda: masks.alignment(()), "alignment: an alignment without points; give one for each target position"),
        (lambda: masks.alignment((1, -1)), "alignment: a point must be a source position, counted from 0, got -1"),
        (lambda: masks.alignment(), "alignment: give either points, for all examples, or examples=, points for each"),
        (lambda: masks.heads({}), 'heads: expected a mapping like {0: "window(8)", "rest": "full()"}, got {}'),
        (lambda: masks.heads({"a": "full()"}), 'heads: \'a\' names no heads; write 0, "0-3" or "rest"'),
        (lambda: masks.heads({0: "full()", "0-1": "full()"}), "heads: head 0 is named twice; name every head once"),
        (
            lambda: masks.layers({0: masks.layers({"rest": "full()"})}),
            "layers[0]: layers(...) cannot hold another layers(...)",
        ),
        (lambda: masks.prefix(2**63), f"prefix: n must be smaller than 2**31, got {2**63}"),
    ],
)
def test_bad_parameter_is_refused(build, message):
    with pytest.raises(masks.MaskError) as error:
        build()
    assert str(error.value) == message


def test_largest_parameters_do_not_overflow():
    for text in ("wait_k(2147483647)", "window(2147483647)", "prefix(2147483647)", "blocks(2147483647)"):
        assert draw(masks.parse(text), 2, 2) == "##\n##"


def test_window_is_symmetric_unless_told_otherwise():
    assert masks.window(3) == masks.window(3, 3) == masks.window(left=3, right=3)
    assert masks.window(3) != masks.window(3, 0)


def test_two_rules_cannot_share_a_name():
    class other(masks.Rule):
        name = "causal"

    with pytest.raises(masks.MaskError, match="'causal' exists already"):
        masks.rule(other)
    assert masks.RULES["causal"] is masks.causal


def test_a_mask_combines_with_masks_only():
    for other in (True, "causal()", 1, None):
        with pytest.raises(TypeError):
            masks.causal() & other
        with pytest.raises(TypeError):
            masks.causal() | other


def test_every_rule_is_in_the_docs():
    folder = Path(masks.__file__).parent.parent
    page = (folder / "docs" / "masks.md").read_text(encoding="utf-8")
    for name in masks.RULES:
        assert f"{name}(" in page, f"docs/masks.md does not say when to use {name}"
        assert any(f"{name}(" in shown for shown in SHOWN), f"the gallery does not show {name}"
