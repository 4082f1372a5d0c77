"""What a mask may cost, as a text, in a config and in Python, and that one limit serves all of them."""

import json
from functools import reduce

import pytest
from huggingface_hub.errors import StrictDataclassError
from mask_texts import MOST_BYTES, MOST_LOOPS, check, cost, parity, peak
from transformers import AutoConfig

import crossmask
from crossmask import masks
from crossmask.masks.expressions import Or
from crossmask.masks.limits import DEPTH_LIMIT, NUMBERS_LIMIT, RULES_LIMIT, TEXT_LIMIT

RANGES = [f"{10_001 * i}-{10_001 * i + 10_000}" for i in range(2000)]
CLAUSES = "&".join(f"(wait_k({i + 1})|prefix({i}))" for i in range(180))
ODD_LAYERS = "layers({" + ", ".join(f"{2 * i}: full()" for i in range(400)) + ", 'rest': causal()})"
EXPENSIVE = {
    "parity of eight": parity([*range(1, 9)]),
    "parity of nine": parity([*range(1, 10)]),
    "parity of ten": parity([*range(1, 11)]),
    "500 ranges": "heads({" + ", ".join(f"'{key}': full()" for key in RANGES[:500]) + "})",
    "1000 masks": "heads({" + ", ".join(f"'{key}': wait_k({i + 1})" for i, key in enumerate(RANGES[:900])) + "})",
    "2000 ranges": "heads({" + ", ".join(f"'{key}': full()" for key in RANGES) + "})",
    "texts in a text": "heads({" + ", ".join(f"{i}: 'wait_k({i + 1})'" for i in range(1000)) + "})",
    "a thousand rules": " | ".join(f"prefix({i})" for i in range(1000)),
    "one rule after the other": "prefix(0)&" + "&".join(f"(~prefix({i})|prefix({i + 1}))" for i in range(450)),
    "a clause and its contraries": "&".join(
        ["(" + "|".join(f"prefix({i})" for i in range(500)) + ")", *(f"~prefix({i})" for i in range(499))]
    ),
    "clauses": "&".join(f"({'|'.join(f'prefix({4 * i + j})' for j in range(4))})" for i in range(250)),
    "a long tuple": "alignment((" + "1," * 16_000 + "))",
    "empty tuples": "keep(examples=(" + "()," * 10_000 + "))",
    "a long number": "wait_k(" + "9" * 5000 + ")",
    "long texts": "lookup('" + "a" * 30_000 + "')",
    "many names": "wait_k(" + ",".join(f"a{i}=1" for i in range(4000)) + ")",
    "deep": "".join(f"(prefix({i}) & (wait_k({i + 1}) | " for i in range(45)) + "causal()" + "))" * 45,
    "attributes": "a.b" * 10_000,
    "conditions": "1 if 1 else " * 2000 + "1",
    "comparisons": "a()<" * 8000 + "a()",
    "signs": "~" * 30_000,
}


@pytest.mark.parametrize("text", EXPENSIVE.values(), ids=EXPENSIVE.keys())
def test_no_text_is_expensive(text):
    check(text)


CONFIGS = {
    "three texts": {f"{scope}_mask": EXPENSIVE["parity of nine"] for scope in ("encoder", "decoder", "cross")},
    "three wide texts": {f"{scope}_mask": EXPENSIVE["a thousand rules"] for scope in ("encoder", "decoder", "cross")},
    "masks of many layers": {
        f"{scope}_mask": f"{ODD_LAYERS} | {CLAUSES}" for scope in ("encoder", "decoder", "cross")
    },
    "a thousand layers": {
        f"{scope}_mask": "layers({" + ", ".join(f"{i}: wait_k({i + 1})" for i in range(1000)) + ", 'rest': full()})"
        for scope in ("encoder", "cross")
    },
    "a mapping": {"encoder_mask": {str(i): f"wait_k({i + 1}) & causal()" for i in range(1000)} | {"rest": "full()"}},
    "a range of a mapping": {"encoder_mask": {"0-999999999": "full()"}},
    "a long key": {"encoder_mask": {"9" * 5000: "full()"}},
    "a mask for one layer": {"encoder_mask": {"0": "full()"}},
    "a table": {"cross_mask": EXPENSIVE["a long tuple"]},
    "ranges of heads": {f"{scope}_mask": EXPENSIVE["500 ranges"] for scope in ("encoder", "decoder", "cross")},
    "a memory": {"memory_length": 4, "cross_mask": EXPENSIVE["a thousand rules"]},
}


@pytest.mark.parametrize("layers", [6, 10_000, 10**12])
@pytest.mark.parametrize("fields", CONFIGS.values(), ids=CONFIGS.keys())
def test_no_config_is_expensive(fields, layers, tmp_path):
    config = {"model_type": "crossmask", "encoder_layers": layers, "decoder_layers": layers, **fields}
    text = json.dumps(config)
    assert len(text) < 50_000
    (tmp_path / "config.json").write_text(text)

    def load() -> str:
        try:
            return str(AutoConfig.from_pretrained(tmp_path).encoder_layers)
        except StrictDataclassError as error:
            return str(error)

    assert cost(load) < MOST_LOOPS
    assert peak(load) < MOST_BYTES
    assert len(load()) < 1000


def test_a_balanced_mask_of_a_thousand_rules_is_read_back():
    level = [masks.prefix(n) for n in range(1000)]
    while len(level) > 1:
        level = [reduce(lambda a, b: a | b, level[i : i + 2]) for i in range(0, len(level), 2)]
    assert masks.parse(str(level[0])) == level[0]


def test_values_have_the_limits_of_texts():
    wide = masks.parse(" | ".join(f"prefix({n})" for n in range(RULES_LIMIT)))
    assert masks.parse(str(wide)) == wide
    assert wide | wide == wide
    for build in (
        lambda: wide | masks.causal(),
        lambda: masks.parse(f"{wide} | causal()"),
        lambda: masks.heads({0: wide}),
        lambda: masks.parse(f"heads({{0: {wide}}})"),
    ):
        with pytest.raises(masks.MaskError, match=r"at most 1,024 rules") as error:
            build()
        assert len(str(error.value)) < 1000


def test_nesting_ends_at_the_same_depth_for_values_and_texts():
    mask, number = masks.causal(), 0
    while mask.extent.depth < DEPTH_LIMIT:
        number += 1
        mask = masks.prefix(number) & mask if number % 2 else masks.prefix(number) | mask
        assert masks.parse(str(mask)) == mask
    other = "&" if isinstance(mask, Or) else "|"
    with pytest.raises(masks.MaskError, match=f"at most {DEPTH_LIMIT} levels"):
        masks.prefix(0) & mask if other == "&" else masks.prefix(0) | mask
    with pytest.raises(masks.MaskError, match=f"at most {DEPTH_LIMIT} levels"):
        masks.parse(f"prefix(0) {other} ({mask})")


def test_a_mask_too_long_for_a_text_is_a_value_all_the_same():
    long = masks.alignment(examples=[[n] * 200 for n in range(100)])
    for mask in (long, long & masks.causal(), ~long, masks.heads({0: long, "rest": "full()"})):
        for write in (str, lambda mask: masks.parse(mask.text())):
            with pytest.raises(masks.MaskError, match=f"at most {TEXT_LIMIT:,} characters") as error:
                write(mask)
            assert len(str(error.value)) < 500
        assert len(repr(mask)) < 500
        assert f"{mask}" == repr(mask)
    assert long & long == long
    with pytest.raises(StrictDataclassError, match="at most 32,768 characters"):
        crossmask.CrossMaskConfig(cross_mask=long)


@pytest.mark.parametrize("text", [f"alignment(({'1,' * 16_000}))", f"keep(examples=({'((1,2),(4,5)),' * 2300}))"])
def test_what_is_read_can_be_written(text):
    assert len(text) < TEXT_LIMIT
    with pytest.raises(masks.MaskError, match="at most 32,768 characters"):  # it would be written with more spaces
        masks.parse(text)


@pytest.mark.parametrize(
    "build",
    [
        lambda: masks.alignment([0] * NUMBERS_LIMIT),
        lambda: masks.alignment(examples=[[]] * NUMBERS_LIMIT + [[1]]),
        lambda: masks.keep(*[(0, 1)] * NUMBERS_LIMIT),
        lambda: masks.blind(examples=[[]] * NUMBERS_LIMIT + [[]]),
        lambda: masks.alignment(range(10**15)),
    ],
)
def test_endless_tables_are_refused(build):
    with pytest.raises(masks.MaskError, match=r"at most 1,048,576 .* give a boolean tensor"):
        build()


@pytest.mark.parametrize(
    "build",
    [
        lambda: masks.alignment(iter(int, 1)),
        lambda: masks.alignment({1, 2}),
        lambda: masks.alignment("12"),
        lambda: masks.alignment(examples={0: (1,)}),
        lambda: masks.alignment(10**5000),
        lambda: masks.alignment((10**5000,)),
        lambda: masks.keep(examples=iter(int, 1)),
        lambda: masks.keep(examples={(1, 2): ()}),
        lambda: masks.keep((0, 10**5000)),
        lambda: masks.keep(passages=[10**5000]),
        lambda: masks.window(10**5000),
        lambda: masks.wait_k(-(10**5000)),
        lambda: masks.monotonic(10**5000, 1),
        lambda: masks.monotonic("1" * 10**6, 1),
        lambda: masks.heads({10**5000: "full()"}),
        lambda: masks.heads({True: "full()"}),
        lambda: masks.heads({0: "full()", "0": "full()"}),
        lambda: masks.heads({"١": "full()"}),
        lambda: masks.heads({str(n): "full()" for n in range(RULES_LIMIT + 1)}),
        lambda: masks.heads([10**6] * 10**6),
        lambda: masks.lookup(["a"] * 10**6),
    ],
)
def test_odd_parameters_are_refused_in_one_short_line(build):
    with pytest.raises(masks.MaskError) as error:
        build()
    assert len(str(error.value)) < 500
    assert str(error.value).isprintable()


def test_ranges_are_kept_as_ranges():
    mask = masks.heads({"0-499999999": "causal()", "500000000-999999999": "causal()"})
    assert str(mask) == "heads({'0-999999999': causal()})"
    assert mask == masks.parse("heads({'0-999999999': causal()})")
    with pytest.raises(
        masks.MaskError, match="a head must be a number from 0 to 3, since there are 4, got head 999999999"
    ):
        mask.check_count(4)
    with pytest.raises(
        masks.MaskError,
        match=r"every layer must have a mask, got none for layers \[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11\]",
    ):
        masks.layers({10**8: "full()"}).check_count(10**9)
    chosen = masks.layers({"0-9": "causal()", "20-999999999": "full()", "rest": "prefix(1)"})
    resolved = [str(chosen.for_layer(layer, 10**9)) for layer in (0, 9, 10, 19, 20, 10**9 - 1)]
    assert resolved == ["causal()", "causal()", "prefix(1)", "prefix(1)", "full()", "full()"]
