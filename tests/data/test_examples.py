import doctest
import importlib
import textwrap

import pytest
import torch

MODULES = [
    "causal_lm",
    "length_buckets",
    "cldr",
    "collator",
    "packing",
    "sources",
    "bpe_dropout",
    "tokenizer_training",
]


@pytest.mark.parametrize("name", MODULES)
def test_docstring_examples_run_as_printed(name):
    module = importlib.import_module(f"crossmask.data.{name}")
    examples = 0
    for test in doctest.DocTestFinder(exclude_empty=True).find(module):
        for example in test.examples:
            example.want = textwrap.dedent(example.want.replace("```", "")).rstrip() + "\n"
        test.globs["torch"] = torch
        result = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE).run(test)
        assert result.failed == 0
        examples += result.attempted
    assert examples
