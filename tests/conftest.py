"""What all tests share: environment, one thread, few garbage collections, kernels that no CPU has, and a Hub."""

import base64
import gc
import os

import huggingface_hub
import hypothesis
import pytest
import torch
import transformers
from flash_reference import flash_attn_func, flash_attn_varlen_func
from loopback_hub import TOKEN, LoopbackHub
from torch.nn.attention import flex_attention as flex
from transformers import modeling_flash_attention_utils as flash_utils

from crossmask.tasks.group_scores import score_groups

gc.disable()  # until all is imported, which then takes three quarters of the time
torch.set_num_threads(1)  # on tensors as small as the tests', threads mostly wait for each other
hypothesis.settings.register_profile("busy machine", hypothesis.settings(), deadline=None)
hypothesis.settings.load_profile("busy machine")
for name in ("GITHUB_ACTIONS", "FORCE_COLOR", "PY_COLORS"):  # by which commands colour what they print
    os.environ.pop(name, None)
os.environ["NO_PROXY"] = os.environ["no_proxy"] = "127.0.0.1,localhost"
PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
"""A whole PNG file."""


def pytest_collection_finish():
    """Keep all that was imported out of garbage collections; each run of Trainer asks for one of everything."""
    gc.freeze()
    gc.enable()


@pytest.fixture(autouse=True, scope="module")
def short_collections():
    """Keep what a module's tests leave behind out of later collections too, which otherwise take ever longer."""
    yield
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def one_thread():
    """CTranslate2 and `threads` options change their number for the whole process."""
    yield
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def same_verbosity():
    """Commands of the package keep messages of Transformers away, in the process that they run in."""
    before = transformers.logging.get_verbosity()
    yield
    transformers.logging.set_verbosity(before)


@pytest.fixture
def without_kernels(monkeypatch):
    """FlexAttention without its kernel, which takes minutes to build; FlashAttention's functions in plain torch."""
    monkeypatch.setattr(flex, "_FLEX_ATTENTION_DISABLE_COMPILE_DEBUG", True)
    functions = (flash_attn_func, flash_attn_varlen_func, None, None, None)
    monkeypatch.setattr(flash_utils, "_lazy_imports", lambda *args, **kwargs: functions)
    monkeypatch.setattr(flash_utils, "_loaded_implementation", None)
    torch.compiler.set_stance("force_eager")
    yield
    torch.compiler.set_stance("default")


@pytest.fixture
def without_drawing(monkeypatch):
    """Figures are made but not drawn, which would be most of a short run: their files are one pixel."""
    monkeypatch.setattr("matplotlib.figure.Figure.savefig", lambda figure, file, **options: file.write(PIXEL))


@pytest.fixture
def few_resamples(monkeypatch):
    """The intervals of groups' scores come from 10 samples instead of 200."""
    monkeypatch.setitem(score_groups.__kwdefaults__, "resamples", 10)


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A loopback Hub that this process talks to."""
    with LoopbackHub() as hub:
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", hub.endpoint)
        template = hub.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(transformers.utils.hub, "_hf_api", None)  # made once, with the endpoint of that moment
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield hub
        assert hub.unknown == []
