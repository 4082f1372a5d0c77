"""Values against declared types, where the fields of recipes and sources do not reach."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import pytest

from crossmask.utils.type_checks import check_choice, check_type

GOOD = [
    (1, int), (1, float), (1.5, float | None), (None, float | None), (True, bool), ("a", str | int), (2, str | int),
    ("b", Literal["a", "b"]), (["a"], list[str]), ([], list[int]), ({"a": [1]}, dict), ({"a": 1}, Mapping[str, int]),
    (("a", "b"), Sequence[str]), ("a", str | Path), (Path("a"), str | Path),
    (object(), Any), ({"a": 1}, dict[str, Any]),
]  # fmt: skip
BAD = [
    (True, int, "a whole number"), (1.0, int, "a whole number"), (False, float | None, "a number"),
    (None, int, "a whole number"), (1, bool, "true or false"), (1, Literal["a", "b"], "one of a, b"),
    (1, Literal[True] | None, "True"), (["a", 1], list[str], "a list, each item text"),
    ("ab", Sequence[str], "a list, each item text"), ("", str | Path | None, "a path"),
    (3, str, "text; put it in quotes"),
    ({"a": "b"}, Mapping[str, int], "a mapping from text to a whole number"), ([], dict, "a mapping"),
]  # fmt: skip


@pytest.mark.parametrize(("value", "declared"), GOOD)
def test_what_is_of_its_type_passes(value, declared):
    check_type("field", value, declared)


@pytest.mark.parametrize(("value", "declared", "expected"), BAD)
def test_what_is_not_is_named(value, declared, expected):
    with pytest.raises(ValueError, match=r"^field must be ") as error:
        check_type("field", value, declared)
    words, _, fix = expected.partition("; ")
    assert str(error.value) == f"field must be {words}, got {value!r}{fix and f'; {fix}'}"


def test_a_choice_that_is_far_from_all_has_no_nearest():
    with pytest.raises(ValueError, match=r"^field must be one of near, far, got 'xyz'$"):
        check_choice("field", "xyz", ["near", "far"])
