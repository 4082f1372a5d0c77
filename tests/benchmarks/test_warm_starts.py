"""The benchmark of warm starts runs with small models in the place of pretrained ones."""

import re

import pytest
from bridge_families import decoder_of
from saved_parts import save_parts
from training_jobs import tiny_tokenizer

from benchmarks.warm_starts import VARIANTS, main


@pytest.mark.slow
def test_a_quick_run_trains_every_variant_and_writes_table_and_picture(tmp_path, tiny_multi30k):
    parts, page = save_parts(tmp_path / "parts"), tmp_path / "page.md"
    encoder, decoder = (parts[f"{name}_name_or_path"] for name in ("encoder", "decoder"))
    deep = decoder_of("llama", num_hidden_layers=4)  # a variant has a block before every 4th layer
    deep.resize_token_embeddings(len(tiny_tokenizer()))
    deep.save_pretrained(decoder)
    given = ["--encoder", encoder, "--decoder", decoder, "--runs", str(tmp_path / "runs"), "--output", str(page)]
    main(["--quick", *given])
    for variant in VARIANTS:
        row = rf"^\| {re.escape(variant)} \| [\d.]+ \| [\d.]+ \| [\d.]+ \|"
        assert re.search(row, page.read_text(), re.MULTILINE), variant
    assert page.with_suffix(".png").exists()
