"""A model that `trust_remote_code` loads has a copy of the masks; values of the package's masks work on it too."""

import pytest
from new_process import run_cases

from crossmask.masks import Mask, wait_k
from crossmask.masks.foreign import is_foreign

SETUP = """
import torch
from transformers import AutoConfig, AutoModelForSeq2SeqLM

torch.set_num_threads(1)
model = AutoModelForSeq2SeqLM.from_pretrained(sys.argv[1], trust_remote_code=True).eval()
remote = sys.modules[type(model).__module__]
assert "crossmask" not in sys.modules
from crossmask import CrossMaskConfig, CrossMaskForConditionalGeneration, masks

assert type(model) is not CrossMaskForConditionalGeneration
own = CrossMaskForConditionalGeneration.from_pretrained(sys.argv[1]).eval()
copied = sys.modules[remote.__package__ + ".masks_crossmask"]
source, target = torch.arange(4, 12).view(2, 4), torch.arange(5, 15).view(2, 5)
inputs = {"input_ids": source, "decoder_input_ids": target}

def logits(model, **options):
    with torch.no_grad():
        return model(**inputs, **options).logits

def refused(call, *words):
    try:
        call()
    except ValueError as error:
        assert all(word in str(error) for word in words), error
    else:
        raise AssertionError("not refused")
"""

CASES = {
    "rules": """
        of_heads = "heads({0: 'wait_k(1)', 'rest': 'full()'})"
        texts = ("wait_k(1)", "prefix(1) | window(1)", "~causal() & keep((0, 2))", of_heads)
        for text in texts:
            want = logits(own, cross_mask=text)
            assert not torch.equal(want, logits(own))
            foreign, native = copied.parse(text), masks.parse(text)
            assert type(foreign) is not type(native)
            for mask in (foreign, native):
                assert torch.equal(logits(model, cross_mask=mask), want)
                assert torch.equal(logits(own, cross_mask=mask), want)
        for scope in ("encoder_mask", "decoder_mask"):
            for mask in (masks.window(1), copied.window(1)):
                want = logits(own, **{scope: "window(1)"})
                assert torch.equal(logits(model, **{scope: mask}), want)
                assert torch.equal(logits(own, **{scope: mask}), want)
        """,
    "tensors": """
        allowed = torch.tril(torch.ones(2, 5, 4, dtype=torch.bool))
        want = logits(own, cross_mask=allowed)
        assert not torch.equal(want, logits(own))
        for wrap in (masks.tensor, copied.tensor):
            assert torch.equal(logits(model, cross_mask=wrap(allowed)), want)
            assert torch.equal(logits(own, cross_mask=wrap(allowed)), want)
        """,
    "generation": """
        options = {"max_new_tokens": 6, "min_new_tokens": 6, "num_beams": 2}
        allowed = torch.tril(torch.ones(2, 3, 4, dtype=torch.bool))
        for make in (lambda m: m.wait_k(1), lambda m: m.tensor(allowed, repeat_last=True)):
            results = [
                one.generate(source, **options, cross_mask=make(library))
                for one in (model, own)
                for library in (masks, copied)
            ]
            assert all(torch.equal(result, results[0]) for result in results)
        refused(lambda: model.generate(source, cross_mask=masks.tensor(allowed), max_new_tokens=6), "repeat_last")
        """,
    "a layer": """
        hidden, memory = torch.randn(2, 5, 16), torch.randn(2, 4, 16)
        for one in (model, own):
            attention = one.model.decoder.layers[0].cross_attn
            for name in ("wait_k", "causal"):
                text = f"{name}({1 if name == 'wait_k' else ''})"
                want, _ = attention(hidden, memory, text)
                for mask in (masks.parse(text), copied.parse(text)):
                    assert torch.equal(attention(hidden, memory, mask)[0], want)
            allowed = torch.tril(torch.ones(2, 5, 4, dtype=torch.bool))
            for wrap in (masks.tensor, copied.tensor):
                assert torch.equal(attention(hidden, memory, wrap(allowed))[0], attention(hidden, memory, allowed)[0])
        """,
    "configs": """
        for config, library in ((type(model.config), masks), (CrossMaskConfig, copied)):
            made = config(cross_mask=library.wait_k(3), encoder_mask={"0": library.window(2), "rest": "full()"})
            assert made.cross_mask == "wait_k(3)"
            assert made.encoder_mask == {"0": "window(left=2)", "rest": "full()"}
        before = model.config.cross_mask
        model.config.cross_mask = masks.wait_k(1)
        assert torch.equal(logits(model), logits(own, cross_mask="wait_k(1)"))
        model.config.cross_mask = before
        loaded = AutoConfig.from_pretrained(sys.argv[1], cross_mask=copied.wait_k(2))
        assert type(loaded) is CrossMaskConfig and loaded.cross_mask == "wait_k(2)"
        """,
    "a rule of one copy": """
        from dataclasses import dataclass

        @masks.rule
        @dataclass(frozen=True, repr=False)
        class every(masks.Rule):
            n: int
            name = "every"

            def allows(self, q, k):
                return (q.position - k.position) % self.n == 0

        logits(own, cross_mask=every(2))
        for call in (lambda: logits(model, cross_mask=every(2)), lambda: model.generate(source, cross_mask=every(2))):
            refused(call, "cross_mask: ", "the copy of crossmask that reads it", "'every'", "import crossmask")
        class Mask:
            pass
        refused(lambda: logits(model, cross_mask=Mask()), "must be a mask, its text or a boolean tensor")
        """,
}


@pytest.fixture(scope="module")
def failed(model, tmp_path_factory) -> dict[str, str]:
    """The tracebacks of the cases that failed, by name."""
    folder = tmp_path_factory.mktemp("copies")
    model.save_pretrained(folder / "m")
    return run_cases(SETUP, CASES, folder / "m", cwd=folder, has_crossmask=True)


@pytest.mark.parametrize("case", CASES)
def test_masks_of_the_package_on_a_model_with_its_own_code(case, failed):
    assert case not in failed, failed[case]


@pytest.mark.parametrize(
    ("module", "is_of_a_copy"),
    [
        ("transformers_modules.m.masks_crossmask", True),
        ("transformers_modules.m.masks_expressions", True),
        ("transformers_modules.m.masks_base", True),
        ("other.masks.expressions", True),
        ("transformers_modules.m.modeling_crossmask", False),
        ("expressions", False),
        ("__main__", False),
    ],
)
def test_a_mask_of_a_copy_is_known_by_its_class_and_module(module, is_of_a_copy):
    kind = type("Mask", (), {"__module__": module})
    for value in (kind(), type("wait_k", (kind,), {"__module__": "__main__"})()):
        assert is_foreign(value, Mask) is is_of_a_copy
    assert not is_foreign(type("Other", (), {"__module__": module})(), Mask)
    assert not is_foreign(wait_k(1), Mask)
