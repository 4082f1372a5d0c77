"""The library of rules: a line here makes a rule known to texts, to `crossmask.masks`, to the docs and to all tests.

Code that reads a text imports `parse` from here, so that every rule is known. `import name as name` is how a type
checker is told that a module passes a name on.
"""

from ..parse import parse as parse
from ..registry import RULES as RULES
from ..registry import rule as rule
from .alignment import alignment as alignment
from .alignment import monotonic as monotonic
from .custom import lookup as lookup
from .custom import register as register
from .per_head_and_layer import heads as heads
from .per_head_and_layer import layers as layers
from .positional import blocks as blocks
from .positional import causal as causal
from .positional import chunked as chunked
from .positional import dilated as dilated
from .positional import full as full
from .positional import prefix as prefix
from .positional import wait_k as wait_k
from .positional import window as window
from .random import random as random
from .segments import passages as passages
from .segments import segments as segments
from .spans import blind as blind
from .spans import drop as drop
from .spans import keep as keep
