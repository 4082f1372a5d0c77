"""The formats that records are read from, one function each.

A format is a function under `@register_format("name")` whose keyword-only parameters are the options that a recipe may
give, and which returns a `Dataset`; its docstring says what it reads. One that has a reader beside it can be streamed.
A new one is a file here, and a line below.
"""

from .babi import load_babi, load_babi_hub
from .cldr import load_cldr
from .hub import load_hub
from .pairs import load_jsonl, load_lines, load_tsv
from .registry import check_options, get_format, get_reader, path_options, register_format
from .squad import load_squad

__all__ = [
    "check_options",
    "get_format",
    "get_reader",
    "load_babi",
    "load_babi_hub",
    "load_cldr",
    "load_hub",
    "load_jsonl",
    "load_lines",
    "load_squad",
    "load_tsv",
    "path_options",
    "register_format",
]
