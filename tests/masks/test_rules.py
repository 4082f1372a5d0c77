import inspect
import re

import pytest
from mask_cases import draw

from crossmask import masks

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


@pytest.mark.parametrize("name", sorted(masks.RULES))
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
