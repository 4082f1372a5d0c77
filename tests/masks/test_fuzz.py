"""Random texts, none of which may cost more than a moment, or fail by anything but a `MaskError` in one line."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mask_cases import randomised
from mask_texts import check, random_text


def test_some_hundred_texts_are_cheap_and_end_in_a_mask_or_one_line():
    rng = random.Random(20)
    for number in range(400):
        check(random_text(rng), memory=number % 4 == 0)


@randomised
@given(st.text(st.characters(exclude_categories=())))
def test_any_text_ends_in_a_mask_or_one_line(text):
    check(text, memory=False)


@pytest.mark.slow
def test_a_hundred_thousand_texts_are_cheap():
    rng = random.Random(2020)
    longest = largest = 0
    for number in range(100_000):
        text = random_text(rng)
        used, held = check(text, memory=len(text) > 8000 or number % 100 == 0)
        longest, largest = max(longest, used), max(largest, held)
    print(f"at most {longest:.1f} loops and {largest / 2**20:.1f} MB")
