"""No fast path is taken while something records or transforms a computation, or for tensors of other kinds."""

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd import forward_ad
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils.flop_counter import FlopCounterMode

from crossmask.masks.fast_paths import fast_path_allowed, is_observed

ANSWERS: list[tuple[bool, bool]] = []  # no attribute of the module: export takes back what happens to those


class Asks(nn.Module):
    """Notes whether a fast path may be taken where it is called."""

    def forward(self, x):
        ANSWERS.append((fast_path_allowed(x), is_observed()))
        return x * 2


def in_dual_level(ask, x):
    with forward_ad.dual_level():
        ask(forward_ad.make_dual(x, torch.ones_like(x)))


def in_fake_mode(ask, x):
    with FakeTensorMode() as mode:
        ask(mode.from_tensor(x))


def in_flop_counter(ask, x):
    with FlopCounterMode(display=False):
        ask(x)


OBSERVERS = {
    "jit.trace": lambda ask, x: torch.jit.trace(ask, x, check_trace=False),
    "export": lambda ask, x: torch.export.export(ask, (x,), strict=False),
    "fx": lambda ask, x: torch.fx.Tracer().trace(ask),
    "make_fx": lambda ask, x: make_fx(ask)(x),
    "vmap": lambda ask, x: torch.vmap(ask)(x),
    "grad": lambda ask, x: torch.func.grad(lambda x: ask(x).sum())(x),
    "vjp": lambda ask, x: torch.func.vjp(ask, x),
    "jvp": lambda ask, x: torch.func.jvp(ask, (x,), (x,)),
    "functionalize": lambda ask, x: torch.func.functionalize(ask)(x),
    "dual": in_dual_level,
    "fake": in_fake_mode,
    "flops": in_flop_counter,
}


@pytest.mark.parametrize("name", OBSERVERS)
def test_no_fast_path_while_something_observes(name):
    ask = Asks()
    ANSWERS.clear()
    OBSERVERS[name](ask, torch.randn(3, 4))
    assert ANSWERS
    assert set(ANSWERS) == {(False, True)}
    ANSWERS.clear()
    ask(torch.randn(3, 4))
    assert ANSWERS == [(True, False)]  # and nothing stays behind


def test_no_fast_path_under_a_compiler():
    def double(x):
        return x * 2 if fast_path_allowed(x) else x * 3

    torch._dynamo.reset()
    x = torch.ones(2)
    assert torch.compile(double, fullgraph=True, backend="eager")(x).equal(x * 3)
    assert double(x).equal(x * 2)


class Subclass(torch.Tensor):
    pass


ODD = {
    "subclass": lambda: torch.ones(2, 3).as_subclass(Subclass),
    "parameter of a subclass": lambda: nn.Parameter(torch.ones(2, 3).as_subclass(Subclass)),
    "sparse": lambda: torch.eye(3).to_sparse(),
    "meta": lambda: torch.ones(2, device="meta"),
    "nested": lambda: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]),
    "quantised": lambda: torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8),
}


@pytest.mark.parametrize("name", ODD)
@pytest.mark.filterwarnings("ignore")
def test_no_fast_path_for_tensors_of_other_kinds(name):
    for devices in (("cpu",), None):
        assert not fast_path_allowed(torch.ones(2), ODD[name](), devices=devices)
    assert not is_observed()


def test_ordinary_tensors_of_the_right_kind():
    weight = nn.Parameter(torch.ones(2))
    assert fast_path_allowed(weight, torch.ones(2), None)
    assert fast_path_allowed(weight, dtypes=(torch.float32,))
    assert not fast_path_allowed(weight.bfloat16(), dtypes=(torch.float32,))
    assert not fast_path_allowed(weight, devices=("cuda",))
