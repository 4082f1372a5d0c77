"""The formats that records are read from, one function each.

A format is a function under `@register_format("name")` that gives records one by one. Its keyword-only parameters are
the options that a recipe may give, and its docstring says what it reads. A new one is a file here, and its name in the
imports below and in `__all__`.
"""

from .babi import read_babi, read_babi_hub
from .cldr import read_cldr
from .hub import read_hub
from .pairs import read_jsonl, read_parallel_lines, read_tsv
from .propbank import read_propbank
from .registry import check_options, files_of, load_records, path_options, read_records, register_format
from .squad import read_squad

__all__ = [
    "check_options",
    "files_of",
    "load_records",
    "path_options",
    "read_babi",
    "read_babi_hub",
    "read_cldr",
    "read_hub",
    "read_jsonl",
    "read_parallel_lines",
    "read_propbank",
    "read_records",
    "read_squad",
    "read_tsv",
    "register_format",
]
