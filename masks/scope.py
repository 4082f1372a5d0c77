"""Which attention a mask is for."""

from typing import Literal, get_args

Scope = Literal["encoder", "decoder", "cross"]
"""Source to source, target to target, or target to source."""

SCOPES: tuple[Scope, ...] = get_args(Scope)
