"""Show a mask: `python -m crossmask.masks "wait_k(3) & window(8)" --source 12 --target 10 [--png FILE]`."""

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..utils.cli import Parser, run_command
from .ascii_plot import lay_view, render
from .equivalence import check_possible
from .expressions import Allowed, MaskError, TokenPosition
from .limits import brief
from .rules import full, parse, register
from .scope import SCOPES

SHOWN = (
    "full()",
    "causal()",
    "window(2)",
    "window(left=2, right=0)",
    "blocks(4)",
    "chunked(4)",
    "chunked(size=3, lookback=1)",
    "dilated(3)",
    "wait_k(3)",
    "monotonic(slope=0.8, width=1)",
    "alignment((0, 1, 1, 4, 3, 2, 5, 7, 8, 8, 10, 11), width=1)",
    "prefix(4)",
    "keep((2, 5), (8, 10))",
    "drop((2, 5))",
    "blind((2, 5))",
    "segments()",
    "passages()",
    "heads({0: dilated(4), 'rest': window(2)})",
    "layers({0: window(2), 'rest': full()})",
    "random(p=0.3, seed=0)",
    "lookup('even_keys')",
    "causal() | prefix(4)",
    "wait_k(3) & window(left=4)",
    "~window(2)",
)
PARTED = (0, 0, 0, 0, 1, 1, 1, 1, 1, 2, 2, 2)
PARTS: dict[str, dict[str, Any]] = {
    "segments()": {"source_segments": [number + 1 for number in PARTED], "scope": "encoder"},
    "passages()": {"source_passages": PARTED, "scope": "encoder"},
}


def even_keys(q: TokenPosition, k: TokenPosition) -> Allowed:
    """A mask of one's own, for the gallery."""
    return k.position % 2 == 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Print or draw what the command line asks for; returns the exit code, 2 for what cannot be shown."""
    parser = Parser(prog="python -m crossmask.masks", description="Show what a mask allows.")
    parser.add_argument("mask", nargs="?", help="for example 'wait_k(3) & window(8)'")
    parser.add_argument("--source", help="number of source tokens (12), or the tokens themselves, parted by spaces")
    parser.add_argument("--target", help="number of target tokens (that of the source), or the tokens")
    parser.add_argument("--scope", choices=SCOPES, default="cross", help="names the axes")
    parser.add_argument("--head", type=int, default=0, help="which one, of a mask that tells heads apart (0)")
    parser.add_argument("--layer", type=int, default=0, help="which one, of a mask that tells layers apart (0)")
    parser.add_argument("--png", metavar="FILE", help="also draw it into FILE (needs matplotlib)")
    parser.add_argument("--gallery", metavar="FILE", help="draw all rules and some combinations into FILE instead")
    options = parser.parse_args(arguments)
    if "" in (options.png, options.gallery):
        parser.error("--png and --gallery need the name of a file")
    if (options.mask is None) == (options.gallery is None):
        parser.error("give either a mask or --gallery FILE")
    return run_command(parser.prog, lambda: _show(options), arguments)


def _show(options: argparse.Namespace) -> None:
    sides: dict[str, Any] = _side("source", options.source) | _side("target", options.target)
    sides |= {"scope": options.scope, "head": options.head, "layer": options.layer}
    file = options.gallery or options.png
    if file is not None and not Path(file).absolute().parent.is_dir():
        raise MaskError(f"the folder of {brief(file)} does not exist; make it first, or choose another")
    register(even_keys)
    if options.mask is not None:
        check_possible([parse(options.mask), full()], "mask")  # a mask that is switched off may be shown
    shown = SHOWN if options.mask is None else [options.mask]
    views = [lay_view(mask, **{**sides, **PARTS.get(mask, {})}) for mask in shown]
    if options.gallery is None:
        print(render(views[0]))
    if file is not None:
        # Late, so that the terminal form needs no matplotlib.
        from ..plotting.masks import gallery, save_png

        save_png(gallery(views), file)


def _side(name: str, text: str | None) -> dict[str, Any]:
    if text is None:
        return {}
    if not re.fullmatch(r"\s*[-+]?[0-9]+\s*", text):
        return {f"{name}_tokens": text.split()}
    if len(text) > 10:
        raise MaskError(f"--{name} must be a number of tokens of at most 9 digits, got {brief(text)}")
    return {name: int(text)}


if __name__ == "__main__":
    sys.exit(main())
