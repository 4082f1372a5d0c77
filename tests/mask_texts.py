"""Texts that are expensive or odd to read as masks, made at random, and what reading one costs."""

import random
import tracemalloc
import warnings

from processor_time import loops

from crossmask import masks
from crossmask.masks import equivalence, parse

MOST_LOOPS = 500
"""The most time that reading may take, in loops. The longest takes 80; what this guards against takes hours."""
MOST_BYTES = 50 * 2**20

SEEDS = (
    "full()", "causal()", "wait_k(3) & window(left=16)", "causal() & (blocks(4) | prefix(2))", "~causal()",
    "heads({0: window(left=8), '1-3': causal() | prefix(2), 'rest': full()})",
    "layers({0: heads({0: full(), 'rest': causal()}), 'rest': full()})",
    "keep((2, 5), (9, 11)) & ~keep(examples=(((2, 5),), ((0, 1), (7, 9))))", "drop((1, 2), passages=None)",
    "alignment((1, 2), width=3) | alignment(width=1, examples=((1,), (2, 0)))", "monotonic(slope=0.8, width=1)",
    "blind((2, 3)) & random(p=0.25, seed=7)", "heads({0: 'causal()', 1: \"window(2)\"})", "keep(passages=(0, 2))",
    "lookup('nowhere', n=1e-07, s='a\\'b')", "chunked(size=3, lookback=1) & dilated(3) | passages() & segments()",
)  # fmt: skip
PIECES = (
    "&", "|", "~", "(", ")", "[", "]", "{", "}", ",", ":", "=", "'", '"', "\\", "#", "\n", "\0", "\ud800", " ", "-",
    "*", "**", ".", "...", ":=", "lambda:", "lambda x: x", "f'{1}'", "b'x'", "not ", "and", "or", "if", "else",
    "yield", "0", "1", "-1", "1.5", "1e999", "1e-07", "nan", "inf", "True", "None", "1j", "0x10", "1_0", "9" * 30, "é",
    "ﬀ", "🙂", "\u202e", "\u2028", "\xa0", "'rest'", "'0-3'", "0: full()", "full()", "causal()", "window(1)", "wait_k",
    "heads({", "layers({", "keep(", "examples=", "__import__('os')", "x[0]", "x.y", "<", "@", "^", "\\x41",
)  # fmt: skip


def attack(rng: random.Random) -> str:
    """A text of a family that is meant to be expensive, of a size around the limits."""
    n = rng.choice([10, 100, 400, 1000, 1100, 3000, 10_000, 40_000])
    count = rng.randrange(2, 14)
    literal = lambda: rng.choice(["", "~"]) + f"prefix({rng.randrange(count)})"  # noqa: E731
    piece = rng.choice(
        ["1,", "(1, 2),", "((),", "[[],", "'a',", "a.b", "a(", "a|", "~", "-", "not ", "full()^", "(", "{0:", "2**",
         "lambda:", "x[0]", "1 if 1 else ", "'", '"', "\\", "9", "a<", "heads(", "causal()&", "é", "🙂", "\0", "\n"]
    )  # fmt: skip
    match rng.randrange(14):
        case 0:
            return piece * (n // len(piece) + 1)
        case 1:
            return (
                rng.choice(["keep(", "alignment((", "keep(examples=(", "heads(", "lookup('x',n=("])
                + piece * (n // len(piece))
                + rng.choice(["", ")", "))", "))))"])
            )
        case 2:
            return parity([*range(1, count)])
        case 3:
            inner = rng.choice(["full()", "window({0})", "wait_k({0}) & causal()", "'prefix({0})'", "'bad('"])
            step = rng.choice([1, 2, 10_001, 100_000])
            keys = (f"'{i * step}-{i * step + rng.choice([0, step - 1])}'" for i in range(n // 8))
            pairs = ", ".join(f"{key}: {inner}".format(number + 1) for number, key in enumerate(keys))
            return f"{rng.choice(['heads', 'layers'])}({{{pairs}}})"
        case 4:
            return rng.choice("&|").join(f"prefix({i})" for i in range(n // 8))
        case 5:
            return nested(rng, rng.randrange(1, 7), rng.randrange(2, 4), literal)
        case 6:
            return "prefix(0) & " + " & ".join(f"(~prefix({i}) | prefix({i + 1}))" for i in range(n // 24))
        case 7:
            clause = "|".join(f"prefix({i})" for i in range(n // 20))
            return "&".join([f"({clause})", *(f"~prefix({i})" for i in range(n // 20))][:: rng.choice([1, -1])])
        case 8:
            return "(" * (n // 10) + "causal()" + ")" * (n // 10)
        case 9:
            depth = min(n // 20, 120)
            opened = "".join(f"(prefix({i}) & (wait_k({i + 1}) | " for i in range(depth))
            return opened + "causal()" + "))" * depth
        case 10:
            return rng.choice(["wait_k({})", "lookup('x', n={})", "monotonic({}, 1)", "heads({{{}: full()}})"]).format(
                "9" * n
            )
        case 11:
            text = "causal()"
            for _ in range(rng.randrange(1, 12)):
                text = f"{rng.choice(['heads', 'layers'])}({{0: {text!r}, 'rest': full()}})"
            return text
        case 12:
            return "wait_k(" + ",".join(f"a{i}=1" for i in range(n // 6)) + ")"
        case _:
            groups = (f"({'|'.join(f'prefix({4 * i + j})' for j in range(4))})" for i in range(n // 50))
            return "&".join(groups)


def parity(numbers: list[int]) -> str:
    """A text that allows where an odd number of rules does: its normal forms are as long as can be."""
    text = "wait_k(1)"
    for number in numbers[1:]:
        rule = f"wait_k({number})"
        text = f"(({text}) & ~{rule} | ~({text}) & {rule})"
    return text


def nested(rng: random.Random, depth: int, width: int, literal) -> str:
    if not depth:
        return literal()
    sign = rng.choice(["&", "|"])
    return f"({sign.join(nested(rng, depth - 1, width, literal) for _ in range(width))})"


def mutated(rng: random.Random) -> str:
    """A good text, or two, with pieces of it repeated, dropped, moved, and odd pieces put in."""
    text = rng.choice(SEEDS)
    if rng.random() < 0.5:
        text = f"{text} {rng.choice('&|')} {rng.choice(SEEDS)}"
    for _ in range(rng.randrange(5)):
        start, end = sorted((rng.randrange(len(text) + 1), rng.randrange(len(text) + 1)))
        match rng.randrange(4):
            case 0:
                text = text[:start] + rng.choice(PIECES) + text[start:]
            case 1:
                text = text[:start] + text[end:]
            case 2:
                text = text[:start] + text[start:end] * rng.choice([2, 3, 100]) + text[end:]
            case _:
                text = text[:start] + rng.choice(PIECES) + text[end:]
        text = text[:50_000]
    return text


def garbage(rng: random.Random) -> str:
    if rng.random() < 0.5:
        return "".join(rng.choices(PIECES, k=rng.choice([1, 3, 10, 100, 2000])))
    top = rng.choice([128, 0x3000, 0x110000])
    return "".join(chr(rng.randrange(top)) for _ in range(rng.choice([1, 5, 50, 5000])))


def random_text(rng: random.Random) -> str:
    return rng.choices([mutated, attack, garbage], weights=[6, 2, 2])[0](rng)


def forget() -> None:
    """Empty the caches, so that a text is read for the first time."""
    for cached in (parse.__globals__["_read_short"], parse.__globals__["_read_long"], equivalence._cached):
        cached.cache_clear()


def read(text: str) -> tuple[masks.Mask | None, str]:
    """The mask of a text, and the error where it has none; any error but a `MaskError` is the caller's."""
    try:
        return masks.parse(text), ""
    except masks.MaskError as error:
        return None, str(error)


def cost(call, *arguments) -> float:
    """Processor time of a call that reads texts for the first time, in loops (processor_time.py)."""
    return loops(call, *arguments, before=forget, most=MOST_LOOPS)


def peak(call, *arguments) -> int:
    """The most bytes that a call holds at a time."""
    forget()
    tracemalloc.start()
    try:
        call(*arguments)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def check(text: str, memory: bool = True) -> tuple[float, int]:
    """Check a text: cheap to read, refused in one short line if at all, and equal to what its own text says.

    Returns:
        loops and bytes.
    """
    used = cost(read, text)
    assert used < MOST_LOOPS, (used, text[:200])
    held = peak(read, text) if memory else 0
    assert held < MOST_BYTES, (held, text[:200])
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        forget()
        mask, error = read(text)
    assert not warned, (warned[0].message, text[:200])
    if mask is None:
        assert error.isprintable(), repr(error)
        assert len(error) < 2000, len(error)
    else:
        assert masks.parse(str(mask)) == mask, text[:200]
    return used, held
