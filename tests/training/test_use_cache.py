"""Whether a trained model generates with a cache: Trainer sets `use_cache` to False in every config that it trains."""

import inspect
import json

import pytest
from saved_parts import UNPACKED, save_parts
from training_jobs import job_of, recipe_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM

from crossmask.bridge import CrossMaskBridgeForConditionalGeneration
from crossmask.training.run import execute

pytestmark = pytest.mark.usefixtures("without_drawing")


def parts_that_were_trained(folder) -> dict:
    """An encoder and a decoder whose configs say False, as those of all models that Trainer has saved."""
    fields = save_parts(folder)
    for name in ("encoder", "decoder"):
        config = AutoConfig.from_pretrained(folder / name)
        config.use_cache = False
        config.save_pretrained(folder / name)
    return fields


BART = {
    "model_type": "bart", "d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2,
    "decoder_attention_heads": 2, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48,
}  # fmt: skip
KINDS = {
    "our own": lambda folder: {},
    "of Transformers": lambda folder: {"model": BART, **UNPACKED},
    "a bridge": parts_that_were_trained,
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_trained_model_generates_with_a_cache(tmp_path, kind):
    job = job_of(recipe_file(tmp_path, **KINDS[kind](tmp_path), save_strategy="steps", save_steps=2))
    seen = []
    forward = job.trainer.model.forward

    def noted(*args, **kwargs):
        output = forward(*args, **kwargs)
        if job.trainer.model.training:
            seen.append(output.get("past_key_values"))
        return output

    noted.__signature__ = inspect.signature(forward)
    job.trainer.model.forward = noted
    execute(job)
    assert seen
    assert all(cache is None for cache in seen)
    assert json.loads((tmp_path / "run" / "config.json").read_text()).get("use_cache", True) is True
    loaded = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "run")
    assert loaded.generation_config.use_cache is True


def test_a_bridge_generates_with_a_cache_whatever_the_configs_of_its_parts_say(tmp_path):
    parts_that_were_trained(tmp_path)
    decoder = AutoModelForCausalLM.from_pretrained(tmp_path / "decoder")
    assert decoder.config.use_cache is False
    model = CrossMaskBridgeForConditionalGeneration.from_encoder_decoder_pretrained(str(tmp_path / "encoder"), decoder)
    assert model.generation_config.use_cache is True
