"""Speed of the engines that a model is exported to, against BART and against our own `generate()`.

    python -m benchmarks.serving --threads 1 --model runs/multi30k-en-de

BART is measured in float32 and bfloat16, under both of its attention implementations; a ratio is to the fastest of
them in its column. Sources and targets have the lengths of real sentences, as in the benchmark of generation. All
variants take the same batches in turns, in one process, and write the number of tokens that the longest reference of a
batch has. Without `--model` our model has random weights; with it, the page has the quality of each engine too, where
it stops by itself. `--quality` measures that alone, and no speed.
"""

import argparse
import tempfile
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import sacrebleu
import torch
import transformers

from benchmarks.baselines import SIZES, Size, build
from benchmarks.corpus import MULTI30K
from benchmarks.generation import BATCHES, Generate, make_batches, measure, of_transformers, sentences
from benchmarks.harness import add_page_options, clock, machine, parse_options, publish, table
from crossmask.data.cldr import cldr_split
from crossmask.data.tokenizer_training import train_tokenizer
from crossmask.inference.loading import load_model_and_tokenizer
from crossmask.serving import export, load_translator
from crossmask.utils.hardware import multiplies_bfloat16

ENGINES = {
    "CTranslate2, float32": ("ctranslate2", "float32"),
    "CTranslate2, int8": ("ctranslate2", "int8"),
    "ONNX, float32": ("onnx", "float32"),
    "ONNX, int8": ("onnx", "int8"),
}
OURS = "crossmask generate()"


def of_bart(size: Size, vocab_size: int) -> dict[str, Generate]:
    """BART in every setting that may be its best."""
    variants = {}
    for attention in ("sdpa", "eager"):
        model = build("BART", size, vocab_size, attn_implementation=attention)
        variants[f"BART, {attention}"] = of_transformers(model)
        if multiplies_bfloat16("cpu"):
            variants[f"BART, {attention}, bf16"] = of_transformers(deepcopy(model).to(torch.bfloat16))
    return variants


def of_ctranslate2(folder: Path, tokenizer: Any, threads: int) -> Generate:
    """CTranslate2 by itself."""
    import ctranslate2

    translator = ctranslate2.Translator(str(folder), intra_threads=threads)

    def generate(sources: list[list[int]], beams: int, tokens: int) -> list:
        texts = [tokenizer.convert_ids_to_tokens(source) for source in sources]
        return translator.translate_batch(
            texts, beam_size=beams, min_decoding_length=tokens, max_decoding_length=tokens, max_input_length=0
        )

    return generate


def of_engine(folder: Path, engine: str, tokenizer: Any, threads: int) -> Generate:
    if engine == "ctranslate2":
        return of_ctranslate2(folder, tokenizer, threads)
    translator: Any = load_translator(folder, threads=threads)
    return of_transformers(translator.model)


def quality(folders: dict[str, Path], pairs: Sequence[tuple[str, str]], beams: int, threads: int) -> list[list[str]]:
    """For each engine its size, its sacreBLEU (13a, cased) with the difference to `generate()`, and how many texts it
    writes as that does."""
    texts, references = [source for source, _ in pairs], [target for _, target in pairs]
    rows, expected, first = [], None, 0.0
    for name, folder in folders.items():
        with load_translator(folder, dtype="float32" if name == OURS else "auto", threads=threads) as translator:
            outputs = translator.translate(texts, beams)
        expected = outputs if expected is None else expected
        weights = [file for file in folder.rglob("*") if file.suffix in (".bin", ".onnx", ".safetensors")]
        size = sum(file.stat().st_size for file in weights) / 2**20
        same = sum(output == text for output, text in zip(outputs, expected, strict=True))
        bleu = sacrebleu.corpus_bleu(outputs, [references]).score
        first = first if rows else bleu
        rows.append([name, f"{size:.1f}", f"{bleu:.2f}", f"{bleu - first:+.2f}", f"{same} of {len(texts)}"])
    return rows


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="folder of a trained model; random weights by default")
    parser.add_argument("--quality", action="store_true", help="measure the quality of --model alone")
    parser.add_argument("--data", type=Path, help=f"Multi30k's folder; {MULTI30K} if it is there, else none")
    parser.add_argument("--engines", nargs="+", default=["ctranslate2", "onnx"], choices=["ctranslate2", "onnx"])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--beams", type=int, nargs="+", default=[1, 5])
    parser.add_argument("--threads", type=int, default=1, help="of the processor (1)")
    add_page_options(parser, "serving")
    options = parse_options(parser, argv, quick=("data", "repeats", "beams"))
    if options.quality and options.model is None:
        parser.error("--quality must come with --model: random weights have none")
    torch.set_num_threads(options.threads)
    transformers.logging.set_verbosity_error()
    if options.quick:
        size, counts, repeats, beam_widths, vocab_size = SIZES["tiny"], {1: 2, 2: 1}, 1, [1, 2], 300
        records = cldr_split("test", 30)
        name, pairs = "embedded corpus", list(zip(records["source"], records["target"], strict=True))
        pairs, texts = sorted(pairs, key=lambda pair: len(pair[1]))[:4], records["source"][:]
    else:
        size, counts, repeats = SIZES["8M"], {size: BATCHES[size] for size in (1, 64)}, options.repeats
        beam_widths, vocab_size = options.beams, 8000
        name, pairs, texts = sentences(options.data)
    torch.manual_seed(0)
    if options.model is None:
        tokenizer: Any = train_tokenizer(texts, vocab_size=vocab_size)
        shape = {"encoder_layers": 5, "decoder_layers": 1, "intermediate_size": 816}
        model: Any = build("crossmask", size, len(tokenizer), **({} if options.quick else shape))
    else:
        model, tokenizer = load_model_and_tokenizer(str(options.model), torch.float32)
    layers = f"{model.config.encoder_layers} + {model.config.decoder_layers} layers"
    ids = [tuple(tokenizer(list(pair))["input_ids"]) for pair in pairs]
    with tempfile.TemporaryDirectory() as place:
        engines = {key: value for key, value in ENGINES.items() if value[0] in options.engines}
        folders = {
            key: export(model, engine, Path(place, key), tokenizer=tokenizer, dtype=dtype).folder
            for key, (engine, dtype) in engines.items()
        }
        rows_of_quality = []
        if options.model is not None:
            rows_of_quality = quality({OURS: options.model, **folders}, pairs, beam_widths[-1], options.threads)
        barts, variants, columns = {}, {}, {}
        if not options.quality:
            barts = of_bart(size, len(tokenizer))
            variants = {**barts, OURS: of_transformers(model)}
            for key, (engine, _) in engines.items():
                variants[key] = of_engine(folders[key], engine, tokenizer, options.threads)
            for batch_size, count in counts.items():
                batches = make_batches(ids, batch_size, count)
                for beams in beam_widths:
                    title = f"batch {batch_size}, {'greedy' if beams == 1 else f'beam {beams}'}"
                    columns[title], _ = measure(variants, batches, beams, repeats, "cpu")
    best = {title: max(speed[bart] for bart in barts) for title, speed in columns.items()}
    rows = [
        [key, *(f"{speed[key]:.1f} ({speed[key] / best[title]:.2f})" for title, speed in columns.items())]
        for key in variants
    ]
    weights = "random weights" if options.model is None else "trained"
    page = (
        f"# Engines\n\n{machine()}\n\n{name}; crossmask of {layers}, {model.num_parameters():,} parameters, {weights}."
    )
    if columns:
        page += (
            f" Medians of {repeats} interleaved repeats, {clock()[1]}.\n\n"
            f"{table(['sentences/s (ratio to the fastest BART)', *columns], rows)}"
        )
    if rows_of_quality:
        header = [
            "",
            "MiB of weights",
            f"sacreBLEU, beam {beam_widths[-1]}",
            "difference",
            "texts equal to generate()",
        ]
        page += f"\n\n{table(header, rows_of_quality)}"
    publish(page, options.output)


if __name__ == "__main__":
    main()
