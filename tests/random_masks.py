"""Texts of masks, made at random."""

import random

SIZES = {"rows": 9, "columns": 11, "heads": 3, "layers": 2}
"""What most of the masks fit."""


def random_rule(rng: random.Random, depth: int) -> str:
    """The text of a rule with random parameters that fit `SIZES`, or, now and then, do not."""
    n = lambda least=0: rng.choice([least, least + 1, rng.randrange(least, 7)])  # noqa: E731

    def span(longest: int = 9) -> str:
        start = rng.randrange(longest)
        return f"({start}, {rng.randrange(start + 1, 12)})"

    spans = ", ".join(span() for _ in range(rng.randrange(3)))
    points = ", ".join(str(rng.randrange(11)) for _ in range(9))
    text = rng.choice(
        [
            "full()", "causal()", "segments()", "passages()", f"window({n()})", f"window(left={n()}, right={n()})",
            f"window({n()}, None)", f"wait_k({n(1)})", f"wait_k(k={n(1)})", f"prefix({n()})", f"blocks({n(1)})",
            f"chunked({n(1)})", f"chunked(size={n(1)}, lookback={n()})", f"dilated({n(1)})",
            f"monotonic({rng.choice([0, 1, 0.8, 1.25, 1e-06, 0.333333, 2.5])}, {n()})",
            f"monotonic(slope={rng.random() * 3:.4f}, width={n()})", f"keep({spans})", f"drop({spans})",
            f"blind({spans})", f"keep(examples=(({spans + ',' if spans else ''}),))", "keep(passages=(0,))",
            "drop(passages=[0])", f"alignment(({points}))", f"alignment([{points}], width={n()})",
            f"random(p={rng.choice([0, 0.25, 0.5, 0.9])}, seed={rng.randrange(2**31)})", f"random(0.5, {n()}, {n()})",
        ]
    )  # fmt: skip
    if depth and rng.random() < 0.25:
        inner = [random_text(rng, 0, "layers") for _ in range(3)]
        text = f"heads({{0: {inner[0]}, '1-2': {inner[1]!r}}})"
        text = rng.choice([text, f"heads({{1: {inner[0]}, 'rest': {inner[2]}}})"])
    return text


def random_text(rng: random.Random, depth: int = 1, without: str = "") -> str:
    """The text of a mask: rules, combined."""
    parts = [random_rule(rng, depth) for _ in range(rng.choice([1, 1, 2, 3]))]
    parts = [f"~{part}" if rng.random() < 0.2 else part for part in parts]
    text = parts[0]
    for part in parts[1:]:
        text = f"{text} {rng.choice('&|')} {part}"
        text = f"~({text})" if rng.random() < 0.1 else text
    if not without and rng.random() < 0.15:
        text = f"layers({{0: {text}, 'rest': {random_rule(rng, 0)}}})"
    return text
