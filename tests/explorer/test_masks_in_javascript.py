"""The page's mask language allows what the Python one allows, and refuses what it refuses."""

import json
import random
import subprocess
from pathlib import Path

import torch
from browsers import find_node
from mask_cases import PICTURES
from mask_texts import mutated
from random_masks import SIZES, random_text

import crossmask
from crossmask import masks
from crossmask.masks import MaskError
from crossmask.masks.layout import Layout
from crossmask.masks.materialize import compile_mask
from crossmask.masks.registry import RULES

PAGE = Path(crossmask.__file__).parent / "explorer" / "page"


def in_javascript(cases: list) -> list[dict]:
    """What the page's language makes of texts, each with sizes or None."""
    script = Path(__file__).with_name("grids.mjs")
    done = subprocess.run(
        [find_node(), str(script), str(PAGE / "masks.js")], input=json.dumps(cases), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


def in_python(text: str, head: int, layer: int, training: bool) -> str | None:
    """The cells of the grid as 0 and 1, or None for a mask that is refused."""
    rows, columns = (Layout(torch.arange(SIZES[side])[None], rows=1) for side in ("rows", "columns"))
    try:
        mask = masks.parse(text).for_layer(layer, SIZES["layers"], training)
        allowed = compile_mask(mask, rows, columns, heads=SIZES["heads"])
    except MaskError:
        return None
    whole = torch.ones(1, SIZES["heads"], SIZES["rows"], SIZES["columns"], dtype=torch.bool)
    cells = whole if allowed is None else whole & allowed
    return "".join("1" if cell else "0" for cell in cells[0, head].flatten().tolist())


def test_a_thousand_random_masks_have_the_same_grids():
    rng = random.Random(17)
    cases, expected = [], []
    while len(cases) < 1000:
        text = random_text(rng)
        chosen = {"head": rng.randrange(3), "layer": rng.randrange(2), "training": rng.random() < 0.5}
        cells = in_python(text, **chosen)
        if cells is not None:
            cases.append([text, {**SIZES, **chosen}])
            expected.append(cells)
    outputs = in_javascript(cases)
    wrong = [
        (case, output, cells)
        for case, output, cells in zip(cases, outputs, expected, strict=True)
        if output.get("cells") != cells
    ]
    assert not wrong, (len(wrong), wrong[:3])
    assert len(set(expected)) > 300


def test_every_picture_of_a_rule_is_the_same():
    """The rules' own docstrings: what a reader sees there, the page draws."""
    cases, expected = [], []
    for picture in PICTURES:
        if picture.options.keys() & {"source_segments", "source_passages"} or "lookup" in picture.text:
            continue  # a page has no packed rows, no passages, and no functions of Python
        sizes = {"rows": len(picture.rows), "columns": len(picture.rows[0]), "heads": 2, "layers": 2, "training": True}
        cases.append([picture.text, {**sizes, **picture.options}])
        expected.append("".join(picture.rows).translate(str.maketrans("#.", "10")))
    assert [output.get("cells") for output in in_javascript(cases)] == expected
    shown = {name for case, _ in cases for name in RULES if name in case}
    assert shown >= {*RULES} - {"lookup", "even_keys", "segments", "passages"}


def test_texts_that_python_refuses_are_refused():
    rng = random.Random(3)
    texts = [text for text in (mutated(rng) for _ in range(1000)) if len(text) <= 2000 and "lookup" not in text]
    outputs = in_javascript([[text, None] for text in texts])
    different = [
        (text, output) for text, output in zip(texts, outputs, strict=True) if is_mask(text) != ("error" not in output)
    ]
    assert not different, (len(different), different[:5])
    assert 0.1 < sum("error" in output for output in outputs) / len(outputs) < 0.9


def is_mask(text: str) -> bool:
    try:
        masks.parse(text)
    except MaskError:
        return False
    return True


PARTS = {
    "wait_k(3) & windw(2)": "windw",
    "wait_k(3) & window(-1)": "window(-1)",
    "wait_k(0)": "wait_k(0)",
    "causal": "causal",
    "wait_k(3) &": "&",
    "(wait_k(3)": ")",
    "wait_k(3) window(2)": "window",
    "heads({0: 'windw(2)', 'rest': full()})": "windw",
    "full() & 3": "3",
    "keep((2, 1))": "keep((2, 1))",
    "full() + causal()": "+",
    "window(left=1, left=2)": "left",
    "lookup('even_keys')": "lookup('even_keys')",
    "~é()": "é",
}
"""Texts that are not masks, and the part at fault."""

REASONS = {
    "keep((2, 12))": "within the 11 tokens",
    "heads({3: full(), 'rest': full()})": "from 0 to 2",
    "heads({0: full()})": "got none for head 1",
    "layers({2: full(), 'rest': full()})": "from 0 to 1",
    "alignment((1, 2))": "each of 9 target positions",
    "alignment((0, 0, 0, 0, 0, 0, 0, 0, 11))": "which has 11 tokens",
    "keep(passages=(1,))": "a passage must be 0",
}
"""Masks that do not fit `SIZES`, and why."""


def test_an_error_names_the_part_at_fault():
    outputs = in_javascript([[text, None] for text in PARTS])
    assert [output["part"] for output in outputs] == [*PARTS.values()]
    assert not [output for output in outputs if output["error"].endswith(".")]


def test_a_mask_that_does_not_fit_is_refused_as_in_python():
    outputs = in_javascript([[text, SIZES] for text in REASONS])
    for (text, reason), output in zip(REASONS.items(), outputs, strict=True):
        assert reason in output["error"]
        assert in_python(text, 0, 0, False) is None, text
