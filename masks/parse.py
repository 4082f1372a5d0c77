"""From text to a mask, by Python's `ast`. Nothing is evaluated.

A text is one line of calls of rules, combined by `&`, `|`, `~` and parentheses. Arguments are numbers, strings, None,
masks, and tuples, lists and dicts of these.
"""

import ast
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from inspect import Signature, signature
from typing import Any

from .expressions import And, Mask, MaskError, Not, Or, as_canonical
from .limits import BRACKETS_LIMIT, RULES_LIMIT, TEXT_LIMIT, brief, shorten
from .parameters import check_text
from .registry import RULES, edition

_STRING = re.compile(r"""'(?:[^'\\\n\r\x00]|\\.)*+'|"(?:[^"\\\n\r\x00]|\\.)*+\"""")
_ESCAPED = re.compile(r"""(?:[^\\]|\\(?:[\\'"abfnrtv]|x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}))*+""")
_NUMBER = re.compile(r"(?<!\w)\.?\d[\w.]*(?:(?<=[eE])[+-]\w*)?")
_DECIMAL = re.compile(r"[0-9]+(?:_[0-9]+)*(?:\.[0-9]*)?(?:[eE][+-]?[0-9]+)?|\.[0-9]+(?:[eE][+-]?[0-9]+)?")
_LONGEST_NUMBER = 40
_FORBIDDEN = {
    "an empty text": re.compile(r"\A\Z"),
    "a comment": re.compile("#"),
    "a second line": re.compile(r"[\r\n\f\v\x1c-\x1e\x85\u2028\u2029]"),
    "a NUL character": re.compile("\0"),
    "a backslash outside of a string": re.compile(r"\\"),
    "a string that does not end": re.compile(r"""(?<!")'|(?<!")"(?!")"""),
    "strings side by side": re.compile(r'""\s*""'),
    "a string with a prefix": re.compile(r'\w""'),
}
"""What the text of a mask must not have; it is searched for after every string has been replaced by `""`."""

_rules_left: ContextVar[list[int] | None] = ContextVar("rules_left", default=None)
"""How many more rules the text that is being read may have, texts inside of it included."""


def parse(text: str) -> Mask:
    """The mask whose text form is `text`: `parse(str(m)) == m`.

    ```python
    >>> parse("wait_k(3) & window(left=16)")
    wait_k(3) & window(left=16)
    ```

    Results are cached until a rule or a function is registered. `limits.py` says how large a text may be.

    Raises:
        MaskError: the text has anything but rules, `&`, `|`, `~` and parentheses, or is too large; the message shows
            the part at fault.
    """
    if not isinstance(text, str):
        hint = "; write str(mask)" if isinstance(text, Mask) else ""
        raise MaskError(
            f"a mask's text must be a string like 'wait_k(3) & window(16)', got {type(text).__name__}{hint}"
        )
    if len(text) > TEXT_LIMIT:
        raise MaskError(
            f"a mask's text must have at most {TEXT_LIMIT:,} characters, got {len(text):,} in {brief(text)}; write a "
            "shorter one, or give a mask or a boolean tensor in the call"
        )
    return (_read_short if len(text) <= 1000 else _read_long)(text, edition())


def _read(text: str, edition: int) -> Mask:
    """`edition` is the registry's, so that nothing is taken from a cache after a name was registered."""
    try:
        text = text.strip()
        _check(text)
        with _count_rules():
            mask = _Reader(text).mask(ast.parse(text, mode="eval").body)
        str(mask)  # which raises where its own text would be too long: a mask that is read can be written
        return mask
    except MaskError:
        raise
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        reason = shorten(str(error.msg if isinstance(error, SyntaxError) else error)) or "it is nested too deep"
        raise MaskError(f"a mask's text must be rules joined by &, | and ~, got {brief(text)}: {reason}") from error


# Only a few long texts are cached, since their masks are large.
_read_short = lru_cache(maxsize=256)(_read)
_read_long = lru_cache(maxsize=8)(_read)


@contextmanager
def _count_rules() -> Iterator[None]:
    """Count the rules of the text that is read inside, together with those of a text that it is a part of."""
    if _rules_left.get() is not None:
        yield
        return
    before = _rules_left.set([RULES_LIMIT])
    try:
        yield
    finally:
        _rules_left.reset(before)


def _check(text: str) -> None:
    """Check the characters of a text before Python's parser gets it, which accepts more than a mask may have.

    Raises:
        ValueError: it is not the text of a mask.
    """
    check_text(text, "a mask's text")
    for string in _STRING.findall(text) if "\\" in text else ():
        if not _ESCAPED.fullmatch(string):
            raise ValueError(f"it has an unknown escape in the string {brief(string)}")
    bare = _STRING.sub('""', text)
    for name, pattern in _FORBIDDEN.items():
        if pattern.search(bare):
            raise ValueError(f"it has {name}" if bare else f"it is {name}")
    for number in _NUMBER.findall(bare):
        if len(number) > _LONGEST_NUMBER or not _DECIMAL.fullmatch(number):
            raise ValueError(
                f"numbers must be decimal and have at most {_LONGEST_NUMBER} characters, got {brief(number)}"
            )
    depth = deepest = 0
    for sign in re.findall(r"[(\[{)\]}]|(?:~\s*)+", bare):
        depth += (sign in "([{") - (sign in ")]}")
        deepest = max(deepest, depth + sign.count("~"))
    if deepest > BRACKETS_LIMIT:
        raise ValueError(f"brackets and ~ must be nested at most {BRACKETS_LIMIT} deep, got {deepest} levels")


@lru_cache(maxsize=256)
def _signature(builder: Callable[..., Mask]) -> Signature:
    return signature(builder)


def _known_rules() -> str:
    return f"write one of {shorten(', '.join(sorted(RULES)), 500)}"


class _Reader:
    """Builds the mask of one text from its syntax tree."""

    def __init__(self, text: str):
        self.text = text
        self.encoded = text.encode()

    def shown(self, node: ast.expr) -> str:
        """The part of the text that a node was read from; offsets are in bytes, and the text is one line."""
        return self.encoded[node.col_offset : node.end_col_offset].decode()

    def where(self, node: ast.expr) -> str:
        return f"{brief(self.shown(node))} in the mask {brief(self.text)}"

    def mask(self, node: ast.expr) -> Mask:
        """The mask, simplified when it is complete: to simplify each part on the way would take too long."""
        mask = self.build(node)
        return as_canonical(mask) if isinstance(mask, And | Or | Not) else mask

    def build(self, node: ast.expr) -> Mask:
        match node:
            case ast.BinOp(op=ast.BitAnd() | ast.BitOr() as sign):
                return (And if isinstance(sign, ast.BitAnd) else Or)(tuple(self.chain(node, type(sign))))
            case ast.UnaryOp(op=ast.Invert(), operand=operand):
                return Not(self.build(operand))
            case ast.Call(func=ast.Name(id=name)):
                return self.call(node, name)
            case ast.Name(id=name) if name in RULES:
                raise MaskError(f"a rule must have brackets, got {self.where(node)}; write {name}(...)")
        raise MaskError(f"a mask must be made of rules with &, | and ~, got {self.where(node)}; {_known_rules()}")

    def chain(self, node: ast.expr, sign: type[ast.operator]) -> list[Mask]:
        """The parts of `a & b & c`, which Python reads as `(a & b) & c`."""
        parts = []
        while isinstance(node, ast.BinOp) and isinstance(node.op, sign):
            parts.append(node.right)
            node = node.left
        return [self.build(part) for part in (node, *reversed(parts))]

    def call(self, node: ast.Call, name: str) -> Mask:
        left = _rules_left.get()
        assert left is not None, "every text is read inside of _count_rules()"
        left[0] -= 1
        if left[0] < 0:
            raise MaskError(
                f"a mask must have at most {RULES_LIMIT:,} rules, got more in {brief(self.text)}; join fewer"
            )
        if name not in RULES:
            raise MaskError(
                f"a rule must have a known name, got {brief(name)} in the mask {brief(self.text)}; {_known_rules()}"
            )
        named = {keyword.arg: keyword.value for keyword in node.keywords if keyword.arg is not None}
        if len(named) < len(node.keywords):
            raise MaskError(f"every parameter must be named once, got {self.where(node)}; write name=value")
        positional = [self.value(arg, node) for arg in node.args]
        options = {name: self.value(value, node) for name, value in named.items()}
        try:
            _signature(RULES[name]).bind(*positional, **options)
            return RULES[name](*positional, **options)
        except (TypeError, MaskError) as error:
            raise MaskError(f"{self.where(node)}: {shorten(str(error), 1000)}") from error

    def value(self, node: ast.expr, call: ast.Call) -> Any:
        match node:
            case ast.Constant(value=int() | float() | str() | None as value):
                return value
            case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as value)) if not isinstance(
                value, bool
            ):
                return -value
            case ast.Tuple(elts=parts) if not any(isinstance(part, ast.Starred) for part in parts):
                return tuple([self.value(part, call) for part in parts])
            case ast.List(elts=parts) if not any(isinstance(part, ast.Starred) for part in parts):
                return [self.value(part, call) for part in parts]
            case ast.Dict(keys=keys) if None not in keys:
                return self.mapping(node, call)
            case ast.Call() | ast.BinOp(op=ast.BitAnd() | ast.BitOr()) | ast.UnaryOp(op=ast.Invert()):
                return self.mask(node)
        raise MaskError(
            f"{self.where(call)}: a parameter must be a number, a string, a mask, or a tuple, list or dict of these, "
            f"got {shorten(self.shown(node))}"
        )

    def mapping(self, node: ast.Dict, call: ast.Call) -> dict[int | str, Any]:
        result: dict[int | str, Any] = {}
        for key, value in zip(node.keys, node.values, strict=True):
            written = key.value if isinstance(key, ast.Constant) else None
            if isinstance(written, bool) or not isinstance(written, int | str):
                raise MaskError(
                    f"{self.where(call)}: a key must be a number or a string, got {shorten(self.shown(key or node))}"
                )
            if written in result:
                raise MaskError(f"{self.where(call)}: every key must be there once, got {brief(written)} twice")
            result[written] = self.value(value, call)
        return result
