"""Back-translation from end to end, as docs/optimization.md has it: a reverse model, its pairs, a model of both."""

import random
from pathlib import Path

import yaml
from transformers import AutoTokenizer

from crossmask.cli.main import main
from crossmask.data.sources import load_split
from crossmask.training.parsing import parse_run
from crossmask.training.run import execute, prepare

WORDS = {"one": "eins", "two": "zwei", "three": "drei", "four": "vier"}


def train(recipe: Path, *options: str) -> None:
    execute(prepare(parse_run([str(recipe), *options], command="c")))


def test_the_reverse_model_makes_training_data(tmp_path, without_drawing, monkeypatch):
    monkeypatch.chdir(tmp_path)
    draw = random.Random(0)
    sources = [draw.choices(list(WORDS), k=draw.randint(1, 5)) for _ in range(80)]
    lines = [" ".join(words) + "\t" + " ".join(WORDS[word] for word in words) for words in sources]
    Path("pairs.tsv").write_text("\n".join(lines[:50]))
    Path("mono.de").write_text("\n".join(line.split("\t")[1] for line in lines[50:]) + "\n\n")
    pairs = {"format": "tsv", "path": "pairs.tsv"}
    recipe = {
        "train": pairs, "validation": {**pairs, "limit": 4}, "test": {**pairs, "limit": 4},
        "tokenizer": {"vocab_size": 290}, "batching": "packed", "source_row_length": 32, "target_row_length": 32,
        "max_source_length": 32, "max_target_length": 32, "per_device_train_batch_size": 4, "max_steps": 2,
        "model": {"hidden_size": 16, "intermediate_size": 16, "encoder_layers": 1, "decoder_layers": 1,
                  "num_attention_heads": 2, "initializer_range": 0.3},
        "eval_strategy": "no", "save_strategy": "no", "load_best_model_at_end": False, "disable_tqdm": True,
        "report_to": [], "generation": {"max_new_tokens": 6},
    }  # fmt: skip
    Path("en-de.yaml").write_text(yaml.safe_dump(recipe))
    swapped = ["--task_options", '{"source_column": "target", "target_column": "source"}']
    train(Path("en-de.yaml"), *swapped, "--output_dir", "de-en")
    first = lines[0].split("\t")
    assert f"- source: {first[1]}\n- reference: {first[0]}\n" in Path("de-en", "samples.md").read_text()

    assert main(["translate", "de-en", "mono.de", "--output", "back.tsv.gz", "--pairs", "--sample", "--quiet"]) == 0
    made = load_split({"format": "tsv", "path": "back.tsv.gz"})
    assert 20 < len(made) <= 30
    assert set(made["target"]) <= set(Path("mono.de").read_text().splitlines())

    recipe["train"] = [pairs, {"format": "tsv", "path": "back.tsv.gz", "tag": "<BT>"}]
    Path("en-de.yaml").write_text(yaml.safe_dump(recipe))
    train(Path("en-de.yaml"), "--output_dir", "both")
    assert f"{50 + len(made)} examples" in Path("both", "README.md").read_text()
    tokenizer = AutoTokenizer.from_pretrained("both")
    assert tokenizer.convert_ids_to_tokens(tokenizer("<BT>one").input_ids)[0] == "<BT>"
