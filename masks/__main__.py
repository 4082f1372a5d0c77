"""Show a mask: `python -m crossmask.masks "wait_k(3) & window(8)" --source 12 --target 10 [--png FILE]`."""

import argparse
import sys
from collections.abc import Sequence
from typing import NoReturn

from .picture import lay_view, render

SHOWN = (
    "full()",
    "causal()",
    "window(2)",
    "wait_k(3)",
    "prefix(4)",
    "blocks(4)",
    "causal() | prefix(4)",
    "wait_k(3) & window(left=4)",
)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Print or draw what the command line asks for; returns the exit code, 2 for what cannot be shown."""
    parser = _Parser(prog="python -m crossmask.masks", description="Show what a mask allows.")
    parser.add_argument("mask", nargs="?", help="for example 'wait_k(3) & window(8)'")
    parser.add_argument("--source", help="number of source tokens (12), or the tokens themselves, parted by spaces")
    parser.add_argument("--target", help="number of target tokens (as many as source tokens), or the tokens")
    parser.add_argument("--scope", choices=("cross", "encoder", "decoder"), default="cross", help="names the axes")
    parser.add_argument("--png", metavar="FILE", help="also draw it into FILE (needs matplotlib)")
    parser.add_argument("--gallery", metavar="FILE", help="draw all rules and two combinations into FILE instead")
    options = parser.parse_args(arguments)
    if (options.mask is None) == (options.gallery is None):
        parser.error("give either a mask or --gallery FILE")
    try:
        _show(options)
    except (ValueError, OSError, ImportError) as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 2
    return 0


def _show(options: argparse.Namespace) -> None:
    sides = _side("source", options.source) | _side("target", options.target)
    views = [lay_view(mask, scope=options.scope, **sides) for mask in ([options.mask] if options.mask else SHOWN)]
    if options.gallery is None:
        print(render(views[0]))
    file = options.gallery or options.png
    if file is not None:
        # Late, so that the terminal form needs no matplotlib.
        from .figures import gallery, save_png

        save_png(gallery(views), file)


def _side(name: str, text: str | None) -> dict[str, int | list[str]]:
    if text is None:
        return {}
    return {name: int(text)} if text.strip().lstrip("-").isdecimal() else {f"{name}_tokens": text.split()}


if __name__ == "__main__":
    sys.exit(main())
