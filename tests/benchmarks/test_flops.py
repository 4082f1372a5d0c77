"""Counted operations are those that torch sees in a training step over one example without padding."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.baselines import FAMILIES, SIZES, build
from benchmarks.flops import step_flops


@pytest.mark.parametrize("family", FAMILIES)
def test_a_step_has_the_operations_that_torch_counts(family):
    model = build(family, SIZES["tiny"], 300, attn_implementation="eager").train()
    source, target = torch.randint(4, 300, (1, 40)), torch.randint(4, 300, (1, 25))
    with FlopCounterMode(display=False) as counter:
        model(input_ids=source, labels=target).loss.backward()
    # Products that rotate positions are the little that is left out.
    assert step_flops(model, [(40, 25)]) == pytest.approx(counter.get_total_flops(), rel=1e-3)


def test_operations_are_linear_in_weights_and_quadratic_in_attention():
    model = build("crossmask", SIZES["tiny"], 300)
    one, two, four = (step_flops(model, [(10 * n, 10 * n)]) for n in (1, 2, 4))
    width = SIZES["tiny"].width
    assert step_flops(model, [(10, 10)] * 2) == 2 * one
    assert four - 2 * two == 12 * 3 * width * (40 * 40 - 2 * 20 * 20)
