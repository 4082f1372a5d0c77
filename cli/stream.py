"""`crossmask stream`: simultaneous translation of words as they arrive."""

from typing import Annotated, Any

import typer

from .command import Device, Input, Model, add, quieten, read_input, whole_number, write_json


def register(app: typer.Typer) -> None:
    """Add the command."""

    @add(app, "stream", "Use a model")
    def stream(
        model: Model,
        input: Input = "-",
        cross_mask: Annotated[
            str | None,
            typer.Option(metavar="RULE", help="When to write, such as wait_k(3); and-ed with the config's."),
        ] = None,
        align_att: Annotated[
            int | None,
            whole_number("Write by AlignAtt with this margin instead.", 0, metavar="F"),
        ] = None,
        max_new_tokens: Annotated[int | None, whole_number("(The model's.)")] = None,
        json: Annotated[
            bool, typer.Option("--json", help="Write each word with how many were read before it.")
        ] = False,
        device: Device = None,
    ) -> None:
        """Translate while the source is still arriving: each line is a text, whose words are read one by one.

        A target word is written as soon as it is complete.
        """
        import sys

        from crossmask.inference.loading import load_model_and_tokenizer
        from crossmask.inference.options import check_mask
        from crossmask.pipelines.registration import attach_saved_masks
        from crossmask.pipelines.saved_options import saved_prefix
        from crossmask.streaming.text import TextStream
        from crossmask.utils.hardware import device_named

        check_mask("cross_mask", cross_mask)
        on = device_named(device)
        quieten()
        attention: dict[str, Any] = {} if align_att is None else {"attn_implementation": "eager"}
        loaded, tokenizer = load_model_and_tokenizer(model, **attention)
        loaded = attach_saved_masks(loaded).to(on)
        options = _options(cross_mask, align_att, max_new_tokens)
        options["prefix"] = saved_prefix(loaded.config, "translation")
        for number, line in enumerate(read_input(input), start=1):
            words = line.split()
            text = TextStream(loaded, tokenizer, **options) if words else None
            for index, word in enumerate(words, start=1):
                if text is None or text.finished[0]:
                    break
                for new in text.push([[word]], ended=index == len(words))[0]:
                    if json:
                        write_json({"line": number, "word": new, "read": index})
                    else:
                        sys.stdout.write(f"{new} ")
                        sys.stdout.flush()
            if not json:
                print(flush=True)


def _options(cross_mask: str | None, align_att: int | None, max_new_tokens: int | None) -> dict[str, Any]:
    from crossmask.seq2seq.simultaneous.policies import AlignAtt

    options: dict[str, Any] = {} if cross_mask is None else {"cross_mask": cross_mask}
    if align_att is not None:
        options["policy"] = AlignAtt(align_att)
    return options if max_new_tokens is None else {**options, "max_new_tokens": max_new_tokens}
