"""Translate a file, a line at a time.

    python -m crossmask.inference runs/multi30k-en-de --input lines.en.gz --output lines.de.gz
    python -m crossmask.inference runs/multi30k-de-en --input mono.de.gz --output back.tsv.gz --pairs --sample

The same command continues a run that was stopped. Without files it reads standard input and writes to standard output.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, get_args

from tqdm.auto import tqdm

from ..data.text_files import bounded_lines, decode_lines, read_lines
from ..data.tokenization import Overlong
from ..seq2seq.lengths import longest_source
from ..utils.cli import Parser, finite_number, whole_number
from ..utils.disk import naming_full_disks
from ..utils.errors import InputError
from ..utils.hardware import device_named
from .files import LineTranslator, translate_file
from .loading import DTYPES, choose_dtype, load_model_and_tokenizer
from .options import MASKS, check_mask
from .texts import tokenizers_of

SAMPLING = ("temperature", "top_k", "top_p")
LENGTHS = ("max_new_tokens", "length_penalty")
WITHOUT_EFFECT_ON_OUTPUT = ("output", "quiet", "device")


def make_parser() -> Parser:
    parser = Parser(prog="python -m crossmask.inference", description=__doc__)
    add, count, above_0 = parser.add_argument, whole_number(1), finite_number(above=0)
    add("model", help="folder or Hub id of an encoder-decoder with its tokenizer")
    add("--input", default="-", metavar="FILE", help="text, plain or gzip; - is standard input (-)")
    add("--output", default="-", metavar="FILE", help="gzip if it ends with .gz; - is standard output (-)")
    add(
        "--pairs",
        action="store_true",
        help="write `translation TAB original`, a source {format: tsv, path: FILE} to train the other direction from",
    )
    add("--source-prefix", default="", metavar="TEXT", help="goes before every line, such as <2de>")
    add("--max-source-length", type=count, metavar="N", help="tokens in a line at most (what the model takes)")
    add("--overlong", choices=get_args(Overlong), default="error", help="what is done with longer lines (error)")
    add("--batch-tokens", type=count, default=4096, metavar="N", help="source tokens in a batch (4096)")
    add("--num-beams", type=count, metavar="N", help="(the model's; 1 with --sample)")
    add("--max-new-tokens", type=count, metavar="N", help="tokens in a translation at most (the model's)")
    add("--length-penalty", type=finite_number(), metavar="X", help="of beam search (the model's)")
    add("--sample", action="store_true", help="sample from the whole distribution (Edunov et al. 2018)")
    add("--temperature", type=above_0, metavar="X", help="of sampling (1)")
    add("--top-k", type=whole_number(0), metavar="N", help="sample from the N likeliest tokens (all)")
    add("--top-p", type=above_0, metavar="X", help="sample from the likeliest tokens with this total probability (1)")
    add("--seed", type=whole_number(0), default=0, metavar="N", help="of sampling (0)")
    for name in MASKS:
        add(f"--{name.replace('_', '-')}", metavar="RULE", help="and-ed with the config's: wait_k(3)")
    add(
        "--dtype",
        choices=DTYPES,
        default="auto",
        help="auto is bfloat16 where the device multiplies in it natively, float32 elsewhere (auto)",
    )
    add("--device", help="(an accelerator where there is one)")
    add("--quiet", action="store_true", help="no progress bar")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, and return the exit status: 2 with one line on standard error for an error of the input."""
    return make_parser().run(_translate, arguments)


def _translate(options: argparse.Namespace) -> None:
    generation, device = _generation_options(options), device_named(options.device)
    line_count = None if options.input == "-" else sum(1 for _ in read_lines(options.input))
    model, tokenizer = load_model_and_tokenizer(options.model, choose_dtype(options.dtype, device))
    model = model.to(device)
    dtype = str(model.dtype).removeprefix("torch.")
    if options.dtype == "auto":
        print(f"translating in {dtype}", file=sys.stderr)
    limit = longest_source(model) or tokenizers_of(tokenizer)[0].model_max_length
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
    with tqdm(total=line_count, unit="line", disable=options.quiet) as bar:
        if options.output == "-":
            with naming_full_disks("standard output"):
                for text in translate(_lines(options.input), bar):
                    sys.stdout.write(text)
                    sys.stdout.flush()
        else:
            settings = {name: value for name, value in vars(options).items() if name not in WITHOUT_EFFECT_ON_OUTPUT}
            # The dtype in use: `auto` may be another one on the machine that continues the run.
            settings |= {"lines": line_count, "dtype": dtype}
            translate_file(translate, _lines(options.input), Path(options.output), settings, bar)


def _lines(path: str) -> Iterator[str]:
    if path != "-":
        return read_lines(path)
    return decode_lines(bounded_lines(sys.stdin.buffer, "standard input"), "standard input")


def _generation_options(options: argparse.Namespace) -> dict[str, Any]:
    """The options for `model.generate`, no more than those that were given."""
    chosen = {name: value for name in (*LENGTHS, *SAMPLING, *MASKS) if (value := getattr(options, name)) is not None}
    for name in MASKS:
        check_mask(name, chosen.get(name))
    if options.sample:
        return {"do_sample": True, "num_beams": options.num_beams or 1, "top_k": 0, **chosen}
    if idle := [name for name in SAMPLING if name in chosen]:
        flag = f"--{idle[0].replace('_', '-')}"
        raise InputError(f"{flag} must come with --sample, without which it does nothing; give both or neither")
    return {"do_sample": False, **chosen} | ({} if options.num_beams is None else {"num_beams": options.num_beams})


if __name__ == "__main__":
    sys.exit(main())
