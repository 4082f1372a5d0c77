"""Generation speed: sentences a second against BART, Marian, T5Gemma and CTranslate2 of the same size.

    python -m benchmarks.generation --threads 2 --compiled

Sources and targets have the lengths of real sentences (Multi30k's test set where `$CROSSMASK_DATA` has it, else the
embedded corpus). Weights are random. All variants take the same batches, and generate the number of tokens that the
longest reference of a batch has. They take turns, batch by batch, in one process; medians are over repeats, of CPU
seconds with one thread, which other processes disturb less, else of wall-clock seconds.
CTranslate2 is measured where it is installed, on the BART of this run.
"""

import argparse
import tempfile
from collections.abc import Callable, Sequence
from copy import deepcopy
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import torch
import transformers
from transformers import CompileConfig, PreTrainedModel, PreTrainedTokenizerBase

from benchmarks.baselines import FAMILIES, SIZES, Size, build
from benchmarks.corpus import MULTI30K
from benchmarks.harness import add_run_options, clock, interleave, machine, medians, parse_options, publish, table
from crossmask.data.cldr import cldr_split
from crossmask.data.text_files import read_lines
from crossmask.data.tokenizer_training import train_tokenizer

SHALLOW, NARROW = "crossmask, 5 + 1 layers", "crossmask, 6 + 1 layers, embeddings of 128"
IN_BFLOAT16 = ("BART", SHALLOW, NARROW)  # as well as in float32
BATCHES = {1: 8, 8: 3, 64: 1}  # how many batches of each size
Batch = tuple[list[list[int]], int]  # sources, and the number of tokens to generate
Generate = Callable[[list[list[int]], int, int], object]  # called with sources, beams and the number of tokens


def sentences(folder: Path | None) -> tuple[str, list[tuple[str, str]], list[str]]:
    """The name of the test set, its sentence pairs, and texts to train a vocabulary on."""
    if folder is None and not MULTI30K.is_dir():
        records = cldr_split("train", 9000, seed=1)
        pairs = list(zip(records["source"], records["target"], strict=True))
        return "embedded corpus", pairs[:1000], [text for pair in pairs for text in pair]

    def lines(name: str) -> list[str]:
        return list(read_lines((folder or MULTI30K) / name))

    pairs = list(zip(lines("test_2016_flickr.en.gz"), lines("test_2016_flickr.de.gz"), strict=True))
    return "Multi30k test_2016_flickr, en-de", pairs, [*lines("train.en.gz"), *lines("train.de.gz")]


def make_batches(pairs: list[tuple[list[int], list[int]]], size: int, count: int) -> list[Batch]:
    """Batches of sources of similar length, spread over all lengths, each with its number of tokens to generate."""
    ordered = sorted(pairs, key=lambda pair: len(pair[0]))
    starts = [int((index + 0.5) / count * len(ordered)) - size // 2 for index in range(count)]
    chosen = [ordered[start : start + size] for start in starts]
    return [([source for source, _ in batch], max(len(target) for _, target in batch)) for batch in chosen]


def of_transformers(model: PreTrainedModel, multiple: int = 1, **options) -> Generate:
    """`generate()`, on sources padded to a multiple of this many tokens."""
    model.eval()
    # Outside of the vocabulary: no model stops before the last token, and none pays for being kept from it.
    model.generation_config.eos_token_id = model.config.vocab_size

    def generate(sources: list[list[int]], beams: int, tokens: int) -> torch.Tensor:
        width = -(-max(map(len, sources)) // multiple) * multiple
        ids = torch.tensor([source + [0] * (width - len(source)) for source in sources], device=model.device)
        lengths = {"max_new_tokens": tokens, "num_beams": beams, "do_sample": False}
        output = model.generate(input_ids=ids, attention_mask=(ids != 0).long(), **lengths, **options)
        if output.shape[1] < tokens:
            raise RuntimeError(f"{type(model).__name__} stopped at {output.shape[1]} of {tokens} tokens")
        return output

    return generate


def of_ctranslate2(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, precision: str) -> Generate:
    import ctranslate2

    with tempfile.TemporaryDirectory() as folder:
        # Transformers 5 has dropped these two from BART's config; CTranslate2's converter still reads them.
        model.config.normalize_before, model.config.add_final_layer_norm = False, False
        model.save_pretrained(f"{folder}/from")
        tokenizer.save_pretrained(f"{folder}/from")
        ctranslate2.converters.TransformersConverter(f"{folder}/from").convert(f"{folder}/to", quantization=precision)
        threads = torch.get_num_threads()
        translator = ctranslate2.Translator(
            f"{folder}/to", device="cpu", compute_type=precision, inter_threads=1, intra_threads=threads
        )

    def generate(sources: list[list[int]], beams: int, tokens: int) -> list:
        texts = [tokenizer.convert_ids_to_tokens(source) for source in sources]
        results = translator.translate_batch(
            texts, beam_size=beams, min_decoding_length=tokens, max_decoding_length=tokens
        )
        if any(len(result.hypotheses[0]) < tokens for result in results):
            raise RuntimeError(f"CTranslate2 stopped before {tokens} tokens")
        return results

    return generate


def make_variants(
    tokenizer: PreTrainedTokenizerBase, size: Size, device: str, compiled: bool
) -> tuple[dict[str, Generate], dict[str, int]]:
    """What is measured, by name, and the models' sizes in parameters."""
    torch.manual_seed(0)
    shallow = {"decoder_layers": 1, "intermediate_size": 816}
    models = {family: build(family, size, len(tokenizer)) for family in FAMILIES}
    models[SHALLOW] = build("crossmask", size, len(tokenizer), encoder_layers=5, **shallow)
    narrow = {"encoder_layers": 6, "embedding_size": size.width // 2}
    models[NARROW] = build("crossmask", size, len(tokenizer), **narrow, **shallow)
    models = {name: model.to(device) for name, model in models.items()}
    parameters = {name: model.num_parameters() for name, model in models.items()}
    variants = {name: of_transformers(model) for name, model in models.items()}
    for name in IN_BFLOAT16:
        variants[f"{name}, bf16"] = of_transformers(deepcopy(models[name]).to(torch.bfloat16))
    if compiled:
        for name in ("BART", "crossmask"):
            config = CompileConfig(fullgraph=True, dynamic=False, mode=None)
            config._compile_all_devices = True  # Transformers' own switch; by default it compiles on GPUs alone
            static = {"cache_implementation": "static", "max_cache_len": 64, "compile_config": config}
            variants[f"{name}, static cache, compiled"] = of_transformers(models[name], multiple=32, **static)
    if device == "cpu" and find_spec("ctranslate2"):
        for name, precision in (("fp32", "float32"), ("int8", "int8")):
            variants[f"CTranslate2 of BART, {name}"] = of_ctranslate2(models["BART"], tokenizer, precision)
    return variants, parameters


def measure(
    variants: dict[str, Generate], batches: list[Batch], beams: int, repeats: int, device: str
) -> tuple[dict[str, float], dict[str, float]]:
    """Sentences a second of every variant, and the seconds of its first batch, which include compiling.

    Speed is all sentences over the sum of each batch's median time.
    """

    def run(generate: Generate, batch: Batch, turn: int) -> None:
        sources, tokens = batch
        generate(sources, beams, tokens)

    runs = {
        (name, index): partial(run, generate, batch)
        for index, batch in enumerate(batches)
        for name, generate in variants.items()
    }
    # The first turn warms up, and is kept for the time that compiling takes.
    times = interleave(runs, 1 + repeats, warm_up=0, device=device)
    median_times = medians({subject: seconds[1:] for subject, seconds in times.items()})
    count = sum(len(sources) for sources, _ in batches)
    speeds = {name: count / sum(median_times[name, index] for index in range(len(batches))) for name in variants}
    return speeds, {name: times[name, 0][0] for name in variants}


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help=f"Multi30k's folder; {MULTI30K} if it is there, else none")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=list(BATCHES), choices=list(BATCHES))
    parser.add_argument("--beams", type=int, nargs="+", default=[1, 5])
    parser.add_argument("--compiled", action="store_true", help="static caches under torch.compile too, greedy")
    add_run_options(parser, "generation", threads=torch.get_num_threads())
    options = parse_options(parser, argv, quick=("data", "repeats", "batch_sizes", "beams"))
    torch.set_num_threads(options.threads)
    transformers.logging.set_verbosity_error()
    if options.quick:
        size, counts, repeats, beam_widths, vocab_size = SIZES["tiny"], {1: 2, 2: 1}, 1, [1, 2], 300
        records = cldr_split("test", 30)
        name, pairs = "embedded corpus", list(zip(records["source"], records["target"], strict=True))
        texts = records["source"][:]
    else:
        size, repeats, beam_widths, vocab_size = SIZES["8M"], options.repeats, options.beams, 8000
        counts = {size: BATCHES[size] for size in options.batch_sizes}
        name, pairs, texts = sentences(options.data)
    tokenizer = train_tokenizer(texts, vocab_size=vocab_size)
    ids = [tuple(tokenizer(list(pair))["input_ids"]) for pair in pairs]
    if options.quick:
        ids = sorted(ids, key=lambda pair: max(map(len, pair)))[:4]
    variants, parameters = make_variants(tokenizer, size, options.device, options.compiled)
    columns: dict[str, dict[str, float]] = {}
    compiling: list[str] = []
    for batch_size, count in counts.items():
        batches = make_batches(ids, batch_size, count)
        for beams in beam_widths:
            # Transformers compiles the step of greedy decoding and sampling, not that of beam search.
            subjects = {key: value for key, value in variants.items() if beams == 1 or "compiled" not in key}
            title = f"batch {batch_size}, {'greedy' if beams == 1 else f'beam {beams}'}"
            columns[title], first = measure(subjects, batches, beams, repeats, options.device)
            compiling += [f"{key}, {title}: {first[key]:.0f} s" for key in subjects if "compiled" in key]
    rows = [
        [
            key,
            *(
                f"{speed[key]:.1f} ({speed[key] / speed['BART']:.2f})" if key in speed else ""
                for speed in columns.values()
            ),
        ]
        for key in variants
    ]
    page = (
        f"# Generation speed\n\n{machine(options.device)}\n\n{name}; float32 where a row does not say bf16. Medians "
        f"of {repeats} interleaved repeats, {clock(options.device)[1]}. Parameters: "
        f"{', '.join(f'{key} {count:,}' for key, count in parameters.items())}.\n\n"
        f"{table(['sentences/s (ratio to BART)', *columns], rows)}"
    )
    if compiling:
        page += f"\n\nThe first batch, compiling included: {'; '.join(compiling)}"
    publish(page, options.output)


if __name__ == "__main__":
    main()
