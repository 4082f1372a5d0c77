"""From text to a mask, through `ast`; nothing is ever evaluated.

The grammar is the text form itself: rule calls combined by `&`, `|`, `~` and brackets. Their arguments are numbers,
strings, None, masks, and tuples, lists and dicts of these.
"""

import ast
from inspect import signature
from typing import Any

from .base import Mask, MaskError
from .library import RULES


def parse(text: str) -> Mask:
    """The mask whose text form is `text`: `parse(str(m)) == m`.

    ```python
    >>> parse("wait_k(3) & window(left=16)")
    wait_k(3) & window(left=16)
    ```

    Raises:
        MaskError: the text is anything but rules, `&`, `|`, `~` and brackets; the offending part is shown.
    """
    if not isinstance(text, str):
        mend = ": write str(mask)" if isinstance(text, Mask) else ""
        raise MaskError(
            f"a mask's text must be a string like 'wait_k(3) & window(16)', got {type(text).__name__}{mend}"
        )
    try:
        return _build(ast.parse(text.strip(), mode="eval").body, text.strip())
    except MaskError:
        raise
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        reason = error.msg if isinstance(error, SyntaxError) else error
        raise MaskError(f"cannot read the mask {_short(text)}: {reason}; write rules joined by &, | and ~") from error


def _build(node: ast.expr, text: str) -> Mask:
    match node:
        case ast.BinOp(left=left, op=ast.BitAnd(), right=right):
            return _build(left, text) & _build(right, text)
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            return _build(left, text) | _build(right, text)
        case ast.UnaryOp(op=ast.Invert(), operand=operand):
            return ~_build(operand, text)
        case ast.Call(func=ast.Name(id=name), args=args, keywords=keywords):
            return _call(node, name, args, keywords, text)
        case ast.Name(id=name) if name in RULES:
            raise MaskError(f"{name!r} in the mask {_short(text)} lacks its brackets: write {name}(...)")
    raise MaskError(
        f"{_short(ast.get_source_segment(text, node))} in the mask {_short(text)} is not a rule: "
        f"use {', '.join(sorted(RULES))} with &, | and ~"
    )


def _call(node: ast.Call, name: str, args: list[ast.expr], keywords: list[ast.keyword], text: str) -> Mask:
    where = f"{_short(ast.get_source_segment(text, node))} in the mask {_short(text)}"
    if name not in RULES:
        raise MaskError(f"{where}: no rule is named {name!r}; there are {', '.join(sorted(RULES))}")
    names = [keyword.arg for keyword in keywords]
    if None in names or len(set(names)) < len(names):
        raise MaskError(f"{where}: every parameter must be named once")
    positional = [_value(arg, where, text) for arg in args]
    named = {keyword.arg: _value(keyword.value, where, text) for keyword in keywords}
    try:
        signature(RULES[name]).bind(*positional, **named)
        return RULES[name](*positional, **named)
    except (TypeError, MaskError) as error:
        raise MaskError(f"{where}: {error}") from error


def _value(node: ast.expr, where: str, text: str) -> Any:
    match node:
        case ast.Constant(value=int() | float() | str() | None as value):
            return value
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as value)):
            return -value
        case ast.Tuple(elts=parts) if not any(isinstance(part, ast.Starred) for part in parts):
            return tuple(_value(part, where, text) for part in parts)
        case ast.List(elts=parts) if not any(isinstance(part, ast.Starred) for part in parts):
            return [_value(part, where, text) for part in parts]
        case ast.Dict(keys=keys, values=values) if None not in keys:
            return {
                _key(key, where, text): _value(value, where, text) for key, value in zip(keys, values, strict=True)
            }
        case ast.Call() | ast.BinOp(op=ast.BitAnd() | ast.BitOr()) | ast.UnaryOp(op=ast.Invert()):
            return _build(node, text)
    shown = ast.get_source_segment(text, node)
    raise MaskError(
        f"{where}: a parameter must be a number, a string, a mask, or a tuple, list or dict of these, got {shown}"
    )


def _key(node: ast.expr, where: str, text: str) -> int | str:
    if isinstance(node, ast.Constant) and isinstance(node.value, int | str):
        return node.value
    raise MaskError(f"{where}: a key must be a number or a string, got {ast.get_source_segment(text, node)}")


def _short(text: str) -> str:
    return repr(text if len(text) <= 100 else f"{text[:97]}...")
