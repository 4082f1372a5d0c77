"""Show a mask: `python -m crossmask.masks "wait_k(3) & window(8)" --source 12 --target 10 [--png FILE]`."""

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..utils.cli import Parser, run_command
from .ascii_plot import render
from .equivalence import check_possible
from .expressions import MaskError
from .limits import brief
from .rule_docs import LENGTH, built_in_rules, pictures
from .rules import full, parse
from .scope import SCOPES
from .view import View, lay_view

COMBINATIONS = ("causal() | prefix(4)", "wait_k(3) & window(left=4)", "~window(2)", "dilated(3) | window(1)")
"""Masks that the gallery shows besides the rules."""


def gallery_views() -> list[View]:
    """Every picture in the docstrings of the rules, larger, and some combinations."""
    shown = [picture for builder in built_in_rules().values() for picture in pictures(builder)]
    return [picture.gallery_view() for picture in shown] + [lay_view(text, LENGTH, LENGTH) for text in COMBINATIONS]


def main(arguments: Sequence[str] | None = None) -> int:
    """Print or draw what the command line asks for; returns the exit code, 2 for what cannot be shown."""
    parser = Parser(prog="python -m crossmask.masks", description="Show what a mask allows.")
    parser.add_argument("mask", nargs="?", help="for example 'wait_k(3) & window(8)'")
    parser.add_argument("--source", help="number of source tokens (12), or the tokens themselves, separated by spaces")
    parser.add_argument("--target", help="number of target tokens (that of the source by default), or the tokens")
    parser.add_argument("--scope", choices=SCOPES, default="cross", help="names the axes")
    parser.add_argument("--head", type=int, default=0, help="which head, for a mask that differs between heads (0)")
    parser.add_argument("--layer", type=int, default=0, help="which layer, for a mask that differs between layers (0)")
    parser.add_argument("--png", metavar="FILE", help="also draw it into FILE (needs matplotlib)")
    parser.add_argument("--gallery", metavar="FILE", help="draw all rules and some combinations into FILE instead")
    options = parser.parse_args(arguments)
    if "" in (options.png, options.gallery):
        parser.error("--png and --gallery need the name of a file")
    if (options.mask is None) == (options.gallery is None):
        parser.error("give either a mask or --gallery FILE")
    ignored = [f"--{name}" for name, value in vars(options).items() if value != parser.get_default(name)]
    if options.gallery is not None and ignored != ["--gallery"]:
        parser.error(f"--gallery must be alone, got {', '.join(ignored)}; leave the others out")
    return run_command(parser.prog, lambda: _show(options), arguments)


def _show(options: argparse.Namespace) -> None:
    sides: dict[str, Any] = _side("source", options.source) | _side("target", options.target)
    sides |= {"scope": options.scope, "head": options.head, "layer": options.layer}
    file = options.gallery or options.png
    if file is not None and not Path(file).absolute().parent.is_dir():
        raise MaskError(f"the folder of a file must exist, got {brief(file)}; make it first, or choose another")
    if options.mask is None:
        views = gallery_views()
    else:
        check_possible([parse(options.mask), full()], "mask")  # beside full(), so that ~full() may be shown
        views = [lay_view(options.mask, **sides)]
        print(render(views[0]))
    if file is not None:
        # Imported here, so that the text form needs no matplotlib.
        from ..plotting.masks import gallery, save_png

        save_png(gallery(views), file, description="\n".join(view.title for view in views))


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
