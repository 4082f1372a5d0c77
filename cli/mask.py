"""`crossmask mask`: what a mask allows."""

import re
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from .command import add


def register(app: typer.Typer) -> None:
    """Add the command."""

    @add(app, "mask", "Examine")
    def mask(
        mask: Annotated[
            str | None, typer.Argument(metavar="MASK", help="Such as 'wait_k(3) & window(8)'.", show_default=False)
        ] = None,
        source: Annotated[
            str | None, typer.Option(help="Number of source tokens (12), or the tokens, separated by spaces.")
        ] = None,
        target: Annotated[
            str | None, typer.Option(help="Number of target tokens (that of the source), or the tokens.")
        ] = None,
        scope: Annotated[Literal["encoder", "decoder", "cross"], typer.Option(help="Names the axes.")] = "cross",
        head: Annotated[int, typer.Option(metavar="N", help="Of a mask that differs between heads.")] = 0,
        layer: Annotated[int, typer.Option(metavar="N", help="Of a mask that differs between layers.")] = 0,
        png: Annotated[str | None, typer.Option(metavar="FILE", help="Draw it too (needs matplotlib).")] = None,
        gallery: Annotated[
            str | None, typer.Option(metavar="FILE", help="Draw all rules and some combinations instead.")
        ] = None,
    ) -> None:
        """Show what a mask allows: # allowed, . not."""
        from crossmask.utils.errors import InputError

        if "" in (png, gallery):
            raise InputError("--png and --gallery must name a file, got an empty name")
        if (mask is None) == (gallery is None):
            raise InputError("a mask or --gallery FILE must be given, and not both")
        sides = {"scope": scope, "head": head, "layer": layer, "source": source, "target": target, "png": png}
        without = {"scope": "cross", "head": 0, "layer": 0, "source": None, "target": None, "png": None}
        ignored = [f"--{name}" for name, value in sides.items() if value != without[name]]
        if gallery is not None and ignored:
            raise InputError(f"--gallery must be alone, got {', '.join(ignored)}; leave the others out")
        _show(
            mask, {**_side("source", source), **_side("target", target), **{k: sides[k] for k in _KEPT}}, png, gallery
        )


_KEPT = ("scope", "head", "layer")


def _show(mask: str | None, sides: dict[str, Any], png: str | None, gallery: str | None) -> None:
    from crossmask.masks import MaskError, parse
    from crossmask.masks.ascii_plot import render
    from crossmask.masks.equivalence import check_possible
    from crossmask.masks.limits import brief
    from crossmask.masks.rule_docs import gallery_views
    from crossmask.masks.rules import full
    from crossmask.masks.view import lay_view

    file = gallery or png
    if file is not None and not Path(file).absolute().parent.is_dir():
        raise MaskError(f"the folder of a file must exist, got {brief(file)}; make it first, or choose another")
    if mask is None:
        views = gallery_views()
    else:
        check_possible([parse(mask), full()], "mask")  # beside full(), so that ~full() may be shown
        views = [lay_view(mask, **sides)]
        print(render(views[0]))
    if file is not None:
        # Imported here, so that the text form needs no matplotlib.
        from crossmask.plotting.masks import gallery as draw
        from crossmask.plotting.masks import save_png

        save_png(draw(views), file, description="\n".join(view.title for view in views))


def _side(name: str, text: str | None) -> dict[str, Any]:
    from crossmask.masks import MaskError
    from crossmask.masks.limits import brief

    if text is None:
        return {}
    if not re.fullmatch(r"\s*[-+]?[0-9]+\s*", text):
        return {f"{name}_tokens": text.split()}
    if len(text) > 10:
        raise MaskError(f"--{name} must be a number of tokens of at most 9 digits, got {brief(text)}")
    return {name: int(text)}
