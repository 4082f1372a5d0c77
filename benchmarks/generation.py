"""Generation speed: sentences a second against BART, Marian, T5Gemma and CTranslate2 of the same size.

    python -m benchmarks.generation --threads 2 --compiled

Sources and targets have the lengths of real sentences (Multi30k's test set where `$CROSSMASK_DATA` has it, else the
embedded corpus). Weights are random: all sides take the same batches, and the steps of the longest reference of a
batch has tokens, whatever they say. The sides take turns, batch by batch, in one process; medians are over repeats, of
CPU seconds with one thread, which other processes disturb less, else of wall-clock seconds.
CTranslate2 is measured where it is installed, on the BART of this run.
"""

import argparse
import gzip
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from copy import deepcopy
from importlib.util import find_spec
from pathlib import Path

import torch
import transformers
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    CompileConfig,
    MarianConfig,
    MarianMTModel,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    T5GemmaConfig,
    T5GemmaForConditionalGeneration,
    T5GemmaModuleConfig,
)

from crossmask import CrossMaskConfig, CrossMaskForConditionalGeneration
from crossmask.data.cldr import cldr_split
from crossmask.data.tokenizer_training import train_tokenizer

SPECIAL = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1}
LAYERS = {"encoder_layers": 3, "decoder_layers": 3}
BART = {  # and Marian, which has the same fields
    "d_model": 256, "encoder_attention_heads": 4, "decoder_attention_heads": 4, "encoder_ffn_dim": 1024,
    "decoder_ffn_dim": 1024, "max_position_embeddings": 128, "forced_eos_token_id": None, **LAYERS, **SPECIAL,
}  # fmt: skip
SHALLOW, NARROW = "crossmask, 5 + 1 layers", "crossmask, 6 + 1 layers, embeddings of 128"
HALVED = ("BART", SHALLOW, NARROW)  # in bfloat16 as well
BATCHES = {1: 8, 8: 3, 64: 1}  # how many batches of each size
Side = Callable[[list[list[int]], int, int], object]  # sources, beams, steps


def corpus() -> tuple[str, list[tuple[str, str]], list[str]]:
    """The name of the test set, its sentence pairs, and texts to train a vocabulary on."""
    folder = Path(os.environ.get("CROSSMASK_DATA", Path(__file__).parents[1] / "../shared/data")) / "multi30k"
    if not folder.is_dir():
        records = cldr_split("train", 9000, seed=1)
        pairs = list(zip(records["source"], records["target"], strict=True))
        return "embedded corpus", pairs[:1000], [text for pair in pairs for text in pair]

    def lines(name: str) -> list[str]:
        return gzip.decompress((folder / name).read_bytes()).decode().splitlines()

    pairs = list(zip(lines("test_2016_flickr.en.gz"), lines("test_2016_flickr.de.gz"), strict=True))
    return "Multi30k test_2016_flickr, en-de", pairs, [*lines("train.en.gz"), *lines("train.de.gz")]


def batches(pairs: list[tuple[list[int], list[int]]], size: int) -> list[tuple[list[list[int]], int]]:
    """Batches of sources of like length, spread over all lengths, each with its number of steps."""
    ordered = sorted(pairs, key=lambda pair: len(pair[0]))
    starts = [int((at + 0.5) / BATCHES[size] * len(ordered)) - size // 2 for at in range(BATCHES[size])]
    chosen = [ordered[start : start + size] for start in starts]
    return [([source for source, _ in batch], max(len(target) for _, target in batch)) for batch in chosen]


def bart(vocab_size: int) -> PreTrainedModel:
    return BartForConditionalGeneration(BartConfig(vocab_size=vocab_size, **BART))


def marian(vocab_size: int) -> PreTrainedModel:
    return MarianMTModel(MarianConfig(vocab_size=vocab_size, **BART))


def t5gemma(vocab_size: int) -> PreTrainedModel:
    part = {
        "vocab_size": vocab_size, "hidden_size": 256, "intermediate_size": 256, "num_hidden_layers": 3,
        "num_attention_heads": 4, "num_key_value_heads": 4, "head_dim": 64, "query_pre_attn_scalar": 64,
        "layer_types": ["full_attention"] * 3, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
    }  # fmt: skip
    config = T5GemmaConfig(
        encoder=T5GemmaModuleConfig(**part), decoder=T5GemmaModuleConfig(**part), vocab_size=vocab_size, **SPECIAL
    )
    return T5GemmaForConditionalGeneration(config)


def crossmask(vocab_size: int, **fields) -> PreTrainedModel:
    sizes = {"hidden_size": 256, "intermediate_size": 704, "num_attention_heads": 4, "max_position_embeddings": 128}
    return CrossMaskForConditionalGeneration(CrossMaskConfig(vocab_size=vocab_size, **{**LAYERS, **sizes, **fields}))


def of_transformers(model: PreTrainedModel, multiple: int = 1, **options) -> Side:
    """`generate()`, on sources padded to a multiple of this many tokens."""
    model.eval()
    # Outside of the vocabulary: no side stops before the last step, and none pays for being kept from it.
    model.generation_config.eos_token_id = model.config.vocab_size

    def run(sources: list[list[int]], beams: int, steps: int) -> torch.Tensor:
        width = -(-max(map(len, sources)) // multiple) * multiple
        ids = torch.tensor([source + [0] * (width - len(source)) for source in sources])
        lengths = {"max_new_tokens": steps, "num_beams": beams, "do_sample": False}
        output = model.generate(input_ids=ids, attention_mask=(ids != 0).long(), **lengths, **options)
        if output.shape[1] < steps:
            raise RuntimeError(f"{type(model).__name__} stopped at {output.shape[1]} of {steps} tokens")
        return output

    return run


def of_ctranslate2(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, precision: str) -> Side:
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

    def run(sources: list[list[int]], beams: int, steps: int) -> list:
        tokens = [tokenizer.convert_ids_to_tokens(source) for source in sources]
        results = translator.translate_batch(
            tokens, beam_size=beams, min_decoding_length=steps, max_decoding_length=steps
        )
        if any(len(result.hypotheses[0]) < steps for result in results):
            raise RuntimeError(f"CTranslate2 stopped before {steps} tokens")
        return results

    return run


def sides(tokenizer: PreTrainedTokenizerBase, compiled: bool) -> tuple[dict[str, Side], dict[str, int]]:
    """What is measured, and the models' sizes in parameters."""
    vocab_size = len(tokenizer)
    torch.manual_seed(0)
    models = {
        "BART": bart(vocab_size),
        "Marian": marian(vocab_size),
        "T5Gemma": t5gemma(vocab_size),
        "crossmask": crossmask(vocab_size),
        SHALLOW: crossmask(vocab_size, encoder_layers=5, decoder_layers=1, intermediate_size=816),
        NARROW: crossmask(vocab_size, encoder_layers=6, decoder_layers=1, intermediate_size=816, embedding_size=128),
    }
    sizes = {name: model.num_parameters() for name, model in models.items()}
    found = {name: of_transformers(model) for name, model in models.items()}
    for name in HALVED:
        found[f"{name}, bf16"] = of_transformers(deepcopy(models[name]).to(torch.bfloat16))
    if compiled:
        for name in ("BART", "crossmask"):
            config = CompileConfig(fullgraph=True, dynamic=False, mode=None)
            config._compile_all_devices = True  # Transformers' own switch; by default it compiles on GPUs alone
            static = {"cache_implementation": "static", "max_cache_len": 64, "compile_config": config}
            found[f"{name}, static cache, compiled"] = of_transformers(models[name], multiple=32, **static)
    if find_spec("ctranslate2"):
        for name, precision in (("fp32", "float32"), ("int8", "int8")):
            found[f"CTranslate2 of BART, {name}"] = of_ctranslate2(models["BART"], tokenizer, precision)
    return found, sizes


def measure(
    found: dict[str, Side], work: list[tuple[list[list[int]], int]], beams: int, repeats: int
) -> tuple[dict[str, float], dict[str, float]]:
    """Sentences a second of every side, and the seconds of its first batch, which compiles what is compiled.

    Speed is all sentences over the sum of each batch's median time.
    """
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    times = {name: [[] for _ in work] for name in found}
    first: dict[str, float] = {}
    for turn in range(repeats + 1):
        for at, (sources, steps) in enumerate(work):
            for name, run in found.items():
                start = clock()
                run(sources, beams, steps)
                seconds = clock() - start
                first.setdefault(name, seconds)
                if turn:  # the first warms up
                    times[name][at].append(seconds)
    sentences = sum(len(sources) for sources, _ in work)
    return {name: sentences / sum(map(statistics.median, rows)) for name, rows in times.items()}, first


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=list(BATCHES), choices=list(BATCHES))
    parser.add_argument("--beams", type=int, nargs="+", default=[1, 5])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--compiled", action="store_true", help="static caches under torch.compile too, greedy")
    options = parser.parse_args(argv)
    torch.set_num_threads(options.threads)
    transformers.logging.set_verbosity_error()
    name, pairs, texts = corpus()
    tokenizer = train_tokenizer(texts, vocab_size=8000)
    ids = [tuple(tokenizer(list(pair))["input_ids"]) for pair in pairs]
    found, sizes = sides(tokenizer, options.compiled)
    columns: dict[str, dict[str, float]] = {}
    compiling: list[str] = []
    for size in options.batch_sizes:
        for beams in options.beams:
            # Transformers compiles the step of greedy decoding and sampling, not that of beam search.
            here = {side: run for side, run in found.items() if beams == 1 or "compiled" not in side}
            title = f"batch {size}, {'greedy' if beams == 1 else f'beam {beams}'}"
            columns[title], first = measure(here, batches(ids, size), beams, options.repeats)
            compiling += [f"{side}, {title}: {first[side]:.0f} s" for side in here if "compiled" in side]
    print(f"\n{name}; fp32 where a row does not say bf16; {options.threads} threads of {platform.machine()}; ", end="")
    print(f"torch {torch.__version__}, transformers {transformers.__version__}")
    print(", ".join(f"{side} {count:,} parameters" for side, count in sizes.items()))
    print(f"\n| sentences/s (ratio to BART) | {' | '.join(columns)} |\n|---{'|---:' * len(columns)}|")
    for side in found:
        cells = [
            f"{speed[side]:.1f} ({speed[side] / speed['BART']:.2f})" if side in speed else ""
            for speed in columns.values()
        ]
        print(f"| {side} | {' | '.join(cells)} |")
    if compiling:
        print(f"\nThe first batch, compiling included: {'; '.join(compiling)}")


if __name__ == "__main__":
    main()
