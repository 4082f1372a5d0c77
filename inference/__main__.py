"""Translate a file, a line at a time.

    python -m crossmask.inference runs/multi30k-en-de --input lines.en.gz --output lines.de.gz
    python -m crossmask.inference runs/multi30k-de-en --input mono.de.gz --output back.tsv.gz --pairs --sample

A run that was stopped goes on when the command is given again. Without files it reads standard input and writes to
standard output.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from tqdm.auto import tqdm

from ..data.text_files import bounded_lines, decode_lines, read_lines
from ..utils.cli import Parser, finite_number, run_command, whole_number
from ..utils.disk import naming_full_disks
from ..utils.errors import InputError
from .files import LineTranslator, translate_file
from .loading import DTYPES, choose_dtype, load_model_and_tokenizer
from .options import MASKS, check_mask

SAMPLING = ("temperature", "top_k", "top_p")
LENGTHS = ("max_new_tokens", "length_penalty")
IRRELEVANT = ("output", "quiet", "device")  # to what is written


def parser() -> argparse.ArgumentParser:
    made = Parser(
        prog="python -m crossmask.inference", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("model", help="folder or Hub id of an encoder-decoder with its tokenizer")
    made.add_argument("--input", default="-", metavar="FILE", help="text, plain or gzip; - is standard input (-)")
    made.add_argument(
        "--output", default="-", metavar="FILE", help="gzip if it ends with .gz; - is standard output (-)"
    )
    made.add_argument(
        "--pairs",
        action="store_true",
        help="write `translation TAB original`, a source {format: tsv, path: FILE} to train the other direction from",
    )
    made.add_argument("--source-prefix", default="", metavar="TEXT", help="goes before every line, as <2de> might")
    count, above_0 = whole_number(1), finite_number(above=0)
    made.add_argument(
        "--max-source-length",
        type=count,
        metavar="N",
        help="tokens in a line at most (what the model takes)",
    )
    made.add_argument(
        "--overlong",
        choices=("error", "truncate", "drop"),
        default="error",
        help="what becomes of longer lines (error)",
    )
    made.add_argument("--batch-tokens", type=count, default=4096, metavar="N", help="source tokens in a batch (4096)")
    made.add_argument("--num-beams", type=count, metavar="N", help="(the model's; 1 with --sample)")
    made.add_argument(
        "--max-new-tokens", type=count, metavar="N", help="tokens in a translation at most (the model's)"
    )
    made.add_argument("--length-penalty", type=finite_number(), metavar="X", help="of beam search (the model's)")
    made.add_argument("--sample", action="store_true", help="draw tokens, from all of them (Edunov et al. 2018)")
    made.add_argument("--temperature", type=above_0, metavar="X", help="of sampling (1)")
    made.add_argument("--top-k", type=whole_number(0), metavar="N", help="sample from the N likeliest tokens (all)")
    made.add_argument("--top-p", type=above_0, metavar="X", help="sample from the likeliest of this mass (1)")
    made.add_argument("--seed", type=whole_number(0), default=0, metavar="N", help="of sampling (0)")
    for name in MASKS:
        made.add_argument(f"--{name.replace('_', '-')}", metavar="RULE", help="and-ed with the config's: wait_k(3)")
    made.add_argument(
        "--dtype",
        choices=DTYPES,
        default="auto",
        help="auto is bfloat16 where the device multiplies in it natively, float32 elsewhere (auto)",
    )
    made.add_argument("--device", help="(an accelerator where there is one)")
    made.add_argument("--quiet", action="store_true", help="no progress bar")
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Translate what the command line asks for; returns the exit code, 2 where the input is at fault."""
    known = parser()
    options = known.parse_args(arguments)
    return run_command(known.prog, lambda: _translate(options), arguments)


def _translate(options: argparse.Namespace) -> None:
    generation, device = _generation(options), _device(options.device)
    total = None if options.input == "-" else sum(1 for _ in read_lines(options.input))
    model, tokenizer = load_model_and_tokenizer(options.model, choose_dtype(options.dtype, device))
    model = model.to(device)
    if options.dtype == "auto":
        print(f"translating in {str(model.dtype).removeprefix('torch.')}", file=sys.stderr)
    limit = getattr(model.config, "max_position_embeddings", tokenizer.model_max_length)
    translate = LineTranslator(
        model,
        tokenizer,
        max_source_length=limit if options.max_source_length is None else options.max_source_length,
        pairs=options.pairs,
        prefix=options.source_prefix,
        overlong=options.overlong,
        batch_tokens=options.batch_tokens,
        seed=options.seed,
        options=generation,
    )
    with tqdm(total=total, unit="line", disable=options.quiet) as bar:
        if options.output == "-":
            with naming_full_disks("standard output"):
                for text in translate(_lines(options.input), bar):
                    sys.stdout.write(text)
                    sys.stdout.flush()
        else:
            settings = {name: value for name, value in vars(options).items() if name not in IRRELEVANT}
            # What auto stands for, which may be another type on the machine that goes on.
            settings |= {"lines": total, "dtype": str(model.dtype).removeprefix("torch.")}
            translate_file(translate, _lines(options.input), Path(options.output), settings, bar)


def _lines(path: str) -> Iterator[str]:
    if path != "-":
        return read_lines(path)
    return decode_lines(bounded_lines(sys.stdin.buffer, "standard input"), "standard input")


def _device(given: str | None) -> torch.device:
    """What `--device` names, or the accelerator where there is one.

    Raises:
        ValueError: it names nothing that is there.
    """
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    if given is None:
        return accelerator or torch.device("cpu")
    there = ["cpu"]
    if accelerator is not None:
        there += [accelerator.type, *(f"{accelerator.type}:{i}" for i in range(torch.accelerator.device_count()))]
    if given not in there:
        raise InputError(f"--device is {given!r}: there is {', '.join(there)}; give one of these, or leave it out")
    return torch.device(given)


def _generation(options: argparse.Namespace) -> dict[str, Any]:
    """What `model.generate` is given: no more than what was asked for."""
    given = {name: value for name in (*LENGTHS, *SAMPLING, *MASKS) if (value := getattr(options, name)) is not None}
    for name in MASKS:
        check_mask(name, given.get(name))
    if options.sample:
        return {"do_sample": True, "num_beams": options.num_beams or 1, "top_k": 0, **given}
    if odd := [name for name in SAMPLING if name in given]:
        raise InputError(f"--{odd[0].replace('_', '-')} is for sampling: give --sample, or leave it out")
    return {"do_sample": False, **given} | ({} if options.num_beams is None else {"num_beams": options.num_beams})


if __name__ == "__main__":
    sys.exit(main())
