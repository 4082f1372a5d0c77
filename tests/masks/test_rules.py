"""Rules: what their docstrings show, where they are registered, their parameters, and the docs made from them."""

import os
import re
import sys
from pathlib import Path

import pytest
import torch
from command_line import command
from mask_cases import EXAMPLES, PICTURES, draw

from crossmask import masks
from crossmask.masks import rules
from crossmask.masks.expressions import Not
from crossmask.masks.reference import depends_on_head
from crossmask.masks.rule_docs import built_in_rules, gallery_views, pictures, summary, when_to_use

main = command("mask")

DOCS = Path(masks.__file__).parents[1] / "docs"
HOW_TO_WRITE = "run CROSSMASK_WRITE_DOCS=1 pytest tests/masks/test_rules.py"


@pytest.mark.parametrize("picture", PICTURES, ids=lambda picture: f"{picture.text} {picture.options or ''}".strip())
def test_pictures_in_docstrings_are_true(picture):
    """Of the fast path and of the specification."""
    view = picture.view()
    assert as_rows(view.allowed) == picture.rows
    head = picture.options.get("head", 0)
    mask = picture.mask.for_layer(picture.options.get("layer", 0), 2)
    assert as_rows(masks.naive_mask(mask, view.rows.layout(), view.columns.layout(), heads=head + 1)[0, head]) == (
        picture.rows
    )


def as_rows(allowed: torch.Tensor) -> tuple[str, ...]:
    return tuple("".join("#" if cell else "." for cell in row) for row in allowed.tolist())


@pytest.mark.parametrize("text", EXAMPLES)
def test_text_of_each_rule_is_read_back(text):
    assert masks.parse(str(EXAMPLES[text])) == EXAMPLES[text]
    combined = ~(EXAMPLES[text] & masks.prefix(40)) | masks.prefix(41)
    assert masks.parse(str(combined)) == combined


@pytest.mark.parametrize("text", EXAMPLES)
def test_rules_that_differ_between_heads_read_the_head(text):
    mask = EXAMPLES[text].for_layer(0, 2)
    side = masks.lay_out(8, torch.device("cpu"))
    allowed = masks.naive_mask(mask, side, side, heads=3)
    assert depends_on_head(mask) == (not allowed.equal(allowed[:, :1].expand_as(allowed)))


def test_every_rule_is_imported_by_the_library():
    files = {f"{rules.__name__}.{path.stem}" for path in Path(rules.__file__).parent.glob("[!_]*.py")}
    missing = sorted(files - sys.modules.keys())
    assert not missing, f"masks/rules/__init__.py must have a line for the rules in {missing}"
    for name, builder in built_in_rules().items():
        line = f"from .{builder.__module__.rpartition('.')[2]} import {name} as {name}"
        assert getattr(masks, name, None) is builder, f"masks/rules/__init__.py must have the line: {line}"


MORE_PICTURES = {
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


@pytest.mark.parametrize("text", MORE_PICTURES)
def test_rule_allows_what_its_picture_shows(text):
    assert draw(masks.parse(text), queries=3, keys=4) == MORE_PICTURES[text]


@pytest.mark.parametrize(
    ("docstring", "message"),
    [
        ("Every key.\n\nWhen to use: never.", "must have a picture between ``` and ```: rule(...), and below it"),
        ("Every key.\n\n```\nfull()\n##\n#\n```", "must be a mask's text with lines of # and . of one length"),
        ("Every key.\n\n```\nfull()  causal()\n##  #.\n##\n```", "must be a mask's text with lines of # and ."),
        ("Every key.\n\n```\nfull\n##\n```", "must be a mask's text with lines of # and ."),
        ("Every key.\n\n```\nfull(), row=1\n##\n```", "must be a mask's text with lines of # and ."),
    ],
)
def test_docstrings_without_a_picture_are_errors(docstring, message):
    def rule():
        pass

    rule.__doc__ = docstring
    with pytest.raises(ValueError, match=re.escape(message)):
        pictures(rule)


def test_docstrings_that_do_not_say_when_to_use_a_rule_are_errors():
    def rule():
        """Every key."""

    with pytest.raises(
        ValueError, match="the docstring of rule must have a paragraph that begins with 'When to use: '"
    ):
        when_to_use(rule)


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
        (lambda: masks.random(1, 0), "random: p must be a number of at least 0 and below 1, got 1"),
        (lambda: masks.random(0.1, -1), "random: seed must be an integer of at least 0, got -1"),
        (lambda: masks.keep((2, 2)), "keep: a span must start at 0 or later and have at least one token, got (2, 2)"),
        (
            lambda: masks.keep((-1, 2)),
            "keep: a span must start at 0 or later and have at least one token, got (-1, 2)",
        ),
        (lambda: masks.blind(3), "blind: a span must be a pair (first, one past the last), got 3"),
        (
            lambda: masks.drop((1, 2), examples=((),)),
            "keep must have either spans or examples, got both; give spans for all examples alike, or examples=, a "
            "tuple of spans for each",
        ),
        (lambda: masks.keep(examples=(3,)), "keep: examples must have a tuple of spans for each example, got 3"),
        (lambda: masks.keep(passages=(-1,)), "keep: passages must be a tuple of numbers from 0, got (-1,)"),
        (
            lambda: masks.alignment(()),
            "alignment: points must not be empty, got (); give one for each target position",
        ),
        (lambda: masks.alignment((1, -1)), "alignment: a point must be a source position, counted from 0, got -1"),
        (
            lambda: masks.alignment(),
            "alignment must have either points or examples, got neither; give points for all examples alike, or "
            "examples=, a tuple of points for each",
        ),
        (lambda: masks.heads({}), 'heads must have a mapping like {0: "window(8)", "rest": "full()"}, got {}'),
        (
            lambda: masks.heads({"a": "full()"}),
            'heads: keys must be numbers of heads, got \'a\'; write 0, "0-3" or "rest"',
        ),
        (
            lambda: masks.heads({0: "full()", "0-1": "full()"}),
            "heads: keys must name every head once, got head 0 twice; leave one out",
        ),
        (
            lambda: masks.layers({0: masks.layers({"rest": "full()"})}),
            "layers[0]: a mask in layers(...) must not have layers(...) in it, got layers({'rest': full()}); write "
            "one layers(...)",
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

    with pytest.raises(masks.MaskError, match="must have a new name, got 'causal', which exists already"):
        masks.rule(other)
    assert masks.RULES["causal"] is masks.causal


def test_a_mask_combines_with_masks_only():
    for other in (True, "causal()", 1, None):
        with pytest.raises(TypeError):
            masks.causal() & other
        with pytest.raises(TypeError):
            masks.causal() | other


def as_cell(text: str) -> str:
    """Text for a table in Markdown: papers become links."""
    return re.sub(r"\(([^()]+), (https://[^()\s]+)\)", r"([\1](\2))", text).replace("|", "\\|")


def computed_pairs(mask: masks.Mask) -> str:
    """Of which pairs attention in blocks computes scores, as far as the rule's class says."""
    mask = mask.for_layer(0, 2)
    mask = mask.part if isinstance(mask, Not) else mask
    if mask.reach_is_exact:
        return "the allowed ones"
    return "all" if type(mask).key_ranges is masks.Mask.key_ranges else "some that are not allowed too"


def table() -> str:
    lines = ["| rule | when to use | what it allows | computed pairs |", "|---|---|---|---|"]
    for builder in built_in_rules().values():
        texts = list(dict.fromkeys(picture.text for picture in pictures(builder)))
        cells = (as_cell(text) for text in (when_to_use(builder), summary(builder)))
        code = ", ".join(f"`{as_cell(text)}`" for text in texts)
        lines.append(f"| {code} | {' | '.join(cells)} | {computed_pairs(EXAMPLES[texts[0]])} |")
    return "\n".join(lines)


def test_table_of_rules_in_the_docs_is_made_of_the_docstrings():
    page = DOCS / "masks.md"
    before, _, rest = page.read_text(encoding="utf-8").partition("<!-- table of rules -->\n")
    _, _, after = rest.partition("\n<!-- end of table -->")
    expected = f"{before}<!-- table of rules -->\n{table()}\n<!-- end of table -->{after}"
    if os.environ.get("CROSSMASK_WRITE_DOCS"):
        page.write_text(expected, encoding="utf-8")
    assert page.read_text(encoding="utf-8") == expected, HOW_TO_WRITE


def test_gallery_in_the_docs_shows_every_picture():
    image = pytest.importorskip("PIL.Image", reason="comes with matplotlib")
    file = DOCS / "masks.png"
    if os.environ.get("CROSSMASK_WRITE_DOCS"):
        assert main(["--gallery", str(file)]) == 0
    with image.open(file) as gallery:
        assert gallery.text["Description"].splitlines() == [view.title for view in gallery_views()], HOW_TO_WRITE


def test_reference_in_the_docs_has_every_name_of_masks():
    """It lists the rules by itself."""
    page = (DOCS / "api" / "masks.md").read_text(encoding="utf-8")
    source = Path(masks.__file__).read_text(encoding="utf-8")
    names = set(re.findall(r" as (\w+)$", source, re.MULTILINE))
    assert len(names) > 10
    assert names - {"MaskLike"} <= set(re.findall(r"^::: crossmask\.masks\.(\w+)$", page, re.MULTILINE))
