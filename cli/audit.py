"""`crossmask audit`: whether a model reads what its masks don't allow."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from .command import Mask, Model, add, quieten, write_json

LEAKING = 1


def register(app: typer.Typer) -> None:
    """Add the command."""

    @add(app, "audit", "Examine")
    def audit(
        model: Model,
        source: Annotated[str, typer.Option(metavar="TEXT", help="What the encoder reads.", show_default=False)],
        target: Annotated[
            str | None, typer.Option(metavar="TEXT", help="What the decoder reads (what the model generates).")
        ] = None,
        encoder_mask: Mask = None,
        decoder_mask: Mask = None,
        cross_mask: Mask = None,
        method: Annotated[Literal["gradient", "perturbation"], typer.Option(help="How influence is measured.")] = (
            "gradient"
        ),
        png: Annotated[Path | None, typer.Option(metavar="FILE", help="Draw it too (needs matplotlib).")] = None,
        json: Annotated[bool, typer.Option("--json", help="Write the leaks as JSON.")] = False,
    ) -> int:
        """Measure which token can change which output, and compare it with what the masks allow.

        The masks that should hold are those of the model, or those that are given. The exit status is 1 if the model
        reads what they don't allow.
        """
        from dataclasses import asdict

        import torch

        from crossmask import audit as measure
        from crossmask.inference.loading import load_model_and_tokenizer
        from crossmask.inference.texts import token_ids, tokenizers_of
        from crossmask.pipelines.registration import attach_saved_masks
        from crossmask.seq2seq.lengths import longest_source
        from crossmask.utils.errors import InputError

        quieten()
        loaded, tokenizer = load_model_and_tokenizer(model)
        loaded = attach_saved_masks(loaded)
        (ids,) = token_ids(tokenizer, [source], longest_source(loaded))
        if not ids:
            raise InputError(f"--source must have something in it, got {source[:20]!r}; give a text")
        input_ids = torch.tensor([ids])
        own = tokenizers_of(tokenizer)[1]
        if target is None:
            labels = loaded.generate(input_ids, num_beams=1, do_sample=False)[:, 1:]
        else:
            labels = torch.tensor([own(text_target=target, verbose=False)["input_ids"]])
        masks = {"encoder_mask": encoder_mask, "decoder_mask": decoder_mask, "cross_mask": cross_mask}
        given: dict[str, Any] = {name: mask for name, mask in masks.items() if mask is not None}
        batch = {"input_ids": input_ids, "labels": labels}
        report = measure(loaded, batch, method=method, tokenizer=own, **given)
        if json:
            write_json({"ok": report.ok, "leaks": [asdict(leak) for leak in report.leaks]})
        else:
            print(report)
        if png is not None:
            report.plot(png)
        return 0 if report.ok else LEAKING
