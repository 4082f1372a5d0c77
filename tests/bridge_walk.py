"""Every causal language model and every text encoder of Transformers, tiny, joined to a fixed other part and measured.

`python tests/bridge_walk.py decoder llama` prints one row.
"""

import json
import sys
import time
import traceback
import warnings
from inspect import signature

import torch
import transformers
from bridge_families import (
    DECODERS,
    ENCODERS,
    SIZES,
    decoder_of,
    encoder_of,
    ids,
    open_blocks,
    packed_and_alone,
    sharpen,
)
from family_walk import first_line, isolated, outcome, same, tiny_values, without_chance
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel
from transformers.models.auto import modeling_auto as auto
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from crossmask.bridge import CrossMaskBridgeForConditionalGeneration
from crossmask.seq2seq.pretrained_parts import build_encoder

MULTI_LATENT = [
    "axk1",
    "axk2",
    "deepseek_v2",
    "deepseek_v3",
    "deepseek_v32",
    "glm4_moe_lite",
    "glm_moe_dsa",
    "minicpm3",
    "youtu",
]
# What a field that several others depend on must be, by family.
SPECIAL: dict[str, dict] = {family: {"num_key_value_heads": 4} for family in MULTI_LATENT}
SPECIAL |= {family: {"num_key_value_heads": 1} for family in ("deepseek_v4", "hy_v4")}
SPECIAL |= {family: {"head_dim": 8} for family in ("hunyuan_v1_dense", "hunyuan_v1_moe", "ministral")}
SPECIAL["gpt_neo"] = {"attention_types": [[["global", "local"], 2]]}
SPECIAL["bailing_hybrid"] = {"layer_group_size": 2}
SPECIAL["jamba"] = {"attn_layer_period": 2, "attn_layer_offset": 1}
SPECIAL["roc_bert"] = {"eos_token_id": 2}
SPECIAL["zaya"] = {"num_experts_per_tok": 1}
SPECIAL["mamba2"] = {"num_heads": 8}
SPECIAL["bamba"] = {"mamba_n_heads": 8, "attn_layer_indices": [1, 3]}
SPECIAL["falcon_h1"] = {"mamba_d_ssm": 32, "mamba_n_heads": 4}
SPECIAL["dots1"] = {"n_routed_experts": 4, "n_shared_experts": 1, "num_experts_per_tok": 2}
SPECIAL["deepseek_v2"] = SPECIAL["deepseek_v2"] | {"n_routed_experts": 4, "num_experts_per_tok": 2}
SPECIAL["gemma4_text"] = {"num_kv_shared_layers": 0, "layer_types": ["sliding_attention", "full_attention"] * 2}
SPECIAL["granitemoehybrid"] = {"mamba_n_heads": 8}
SPECIAL["lfm2_moe"] = {"layer_types": ["conv", "full_attention"] * 2}
SPECIAL["zamba2"] = {"layers_block_type": ["mamba", "hybrid"] * 2}
SPECIAL["reformer"] = {"axial_pos_embds": False}
SPECIAL["gemma3n_text"] = {"num_kv_shared_layers": 0}


def tiny_config(family: str, known: dict[str, dict]) -> PreTrainedConfig:
    config_class = CONFIG_MAPPING[family]
    fields = SPECIAL.get(family, {})
    if family in known:
        layers = known[family].get("layer_types")
        return without_chance(
            config_class(
                **{**SIZES, **({"num_hidden_layers": len(layers)} if layers else {}), **known[family], **fields}
            )
        )
    return without_chance(config_class(**(tiny_values(config_class) | fields)))


def closed(model, plain) -> str | None:
    source, target = ids(2, 7), ids(2, 6, seed=1)
    alone = plain(target, use_cache=False).logits  # some round differently with a cache
    joined = model(input_ids=source, decoder_input_ids=target, use_cache=False).logits
    return None if torch.equal(joined, alone) else "WRONG"


def acts(model) -> str | None:
    """The source matters, and only where the mask allows it."""
    source, target = ids(2, 7), ids(2, 6, seed=1)
    a, b = (model(input_ids=s, decoder_input_ids=target).logits for s in (source, source.flip(1)))
    if torch.equal(a, b):
        return "WRONG: the source does not matter"
    return None


def cached(model) -> str | None:
    source, options = ids(2, 11), {"max_new_tokens": 8, "eos_token_id": None, "output_logits": True}
    options |= {"return_dict_in_generate": True}
    results = []
    for use_cache in (True, False):
        out = model.generate(source, use_cache=use_cache, **options)
        results.append(torch.stack(out.logits))
    return same(*results)


def beams(model) -> str | None:
    source, options = ids(2, 11), {"max_new_tokens": 6, "eos_token_id": None, "num_beams": 3}
    results = [model.generate(source, use_cache=use_cache, **options) for use_cache in (True, False)]
    return None if torch.equal(*results) else "WRONG"


def padded(model) -> str | None:
    source, short, long = ids(2, 7), ids(1, 3, seed=1), ids(1, 5, seed=2)
    rows = torch.cat([torch.nn.functional.pad(short, (2, 0), value=3), long])
    mask = torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 1, 1]])
    both = model(input_ids=source, decoder_input_ids=rows, decoder_attention_mask=mask).logits
    return same(both[0, 2:], model(input_ids=source[:1], decoder_input_ids=short).logits[0])


def masked(model) -> str | None:
    source, target = ids(2, 7), ids(2, 6, seed=1)
    changed = target.clone()
    changed[:, 0] = 3
    for attention in ("eager", "sdpa"):
        try:
            model.decoder.set_attn_implementation(attention)
        except ValueError:
            continue
        found = [
            model(input_ids=source, decoder_input_ids=t, decoder_mask="window(0)").logits for t in (target, changed)
        ]
        if wrong := same(found[0][:, 1:], found[1][:, 1:], f" ({attention})"):
            return wrong
        if torch.equal(found[0][:, 0], found[1][:, 0]):
            return f"WRONG ({attention}): the first token does not matter to itself"
        options = {"max_new_tokens": 6, "eos_token_id": None, "decoder_mask": "window(1)", "output_logits": True}
        options |= {"return_dict_in_generate": True}
        steps = [torch.stack(model.generate(source, use_cache=c, **options).logits) for c in (True, False)]
        if wrong := same(*steps, f" (cached, {attention})"):
            return wrong
    return None


def packed(model) -> str | None:
    return same(*packed_and_alone(model))


def trains(model) -> str | None:
    def gradients() -> torch.Tensor:
        model.zero_grad()
        model(input_ids=ids(2, 7), labels=ids(2, 6, seed=1)).loss.backward()
        missing = [n for n, p in model.bridge.named_parameters() if p.grad is None or not p.grad.abs().max() > 0]
        if missing:
            raise AssertionError(f"no gradient: {missing[0]}")
        return torch.cat([p.grad.flatten() for p in model.bridge.parameters()])

    with torch.enable_grad():
        model.train()
        plain = gradients()
        if not model.decoder.supports_gradient_checkpointing:
            return None
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": True})
        try:
            checkpointed = gradients()
        except AttributeError:  # embeddings that give a tuple
            return "no, as without a bridge"
        return same(checkpointed, plain, " (checkpointing)")


def source_padded(model) -> str | None:
    short, long, target = ids(1, 4), ids(1, 7, seed=1), ids(2, 5, seed=2)
    source = torch.cat([torch.nn.functional.pad(short, (0, 3), value=0), long])
    mask = torch.tensor([[1] * 4 + [0] * 3, [1] * 7])
    alone = model.encoder(short)[0]
    if same(model.encoder(source, attention_mask=mask)[0][:1, : alone.shape[1]], alone):
        return "no, as without a bridge"  # convolutions read padding
    both = model(input_ids=source, attention_mask=mask, decoder_input_ids=target).logits
    return same(both[:1], model(input_ids=short, decoder_input_ids=target[:1]).logits)


def source_masked(model) -> str | None:
    long, target = ids(1, 7, seed=1), ids(1, 5, seed=2)
    blind = {"encoder_mask": "blind((2, 5))", "cross_mask": "blind((2, 5))"}
    changed = long.clone()
    changed[:, 2:5] = torch.tensor([getattr(model.config.encoder, "pad_token_id", None) or 0, 3, 3])
    for attention in ("eager", "sdpa"):
        try:
            model.encoder.set_attn_implementation(attention)
        except ValueError:
            continue
        a, b = (model(input_ids=s, decoder_input_ids=target, **blind).logits for s in (long, changed))
        if wrong := same(a, b, f" ({attention})"):
            return wrong
        # the encoder alone: each token sees itself
        first = long.clone()
        first[:, 0] = 3
        a, b = (model.encode(s, encoder_mask="window(0)").last_hidden_state for s in (long, first))
        if wrong := same(a[:, 1:], b[:, 1:], f" (window, {attention})"):
            return wrong
        if torch.equal(a[:, :1], b[:, :1]):
            return f"WRONG ({attention}): the first token does not matter"
    return None


DECODER_CHECKS = {
    "acts": acts,
    "cached": cached,
    "beams": beams,
    "padded": padded,
    "decoder_mask": masked,
    "packed": packed,
    "trains": trains,
}
ENCODER_CHECKS = {
    "acts": acts,
    "cached": cached,
    "padded": source_padded,
    "encoder_mask": source_masked,
    "packed": packed,
    "trains": trains,
}


def build(side: str, family: str) -> PreTrainedModel:
    torch.manual_seed(0)
    if side == "decoder":
        config = tiny_config(family, DECODERS)
        config.get_text_config(decoder=True).is_decoder = True
        return sharpen(AutoModelForCausalLM.from_config(config), seed=1)
    return sharpen(build_encoder(tiny_config(family, ENCODERS)), seed=2)


@torch.no_grad()
def row_of(side: str, family: str) -> dict[str, str]:
    """What a family does, by the name of the check."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    try:
        part = build(side, family)
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1].filename.split("/")[-1]
        return {"built": f"ERROR {first_line(error)} at {where}"}
    row = {"class": type(part).__name__}
    try:
        if side == "decoder":
            part(ids(2, 6, seed=1))
        else:
            part(ids(2, 7))
    except Exception as error:
        return row | {"built": f"ERROR {first_line(error)}, alone"}

    def bridge() -> CrossMaskBridgeForConditionalGeneration:
        parts = (
            (encoder_of("bert"), build(side, family))
            if side == "decoder"
            else (build(side, family), decoder_of("llama"))
        )
        return CrossMaskBridgeForConditionalGeneration.from_encoder_decoder_pretrained(*parts)

    row["joined"] = outcome(lambda: bridge() and None)
    if row["joined"] != "yes":
        return row
    if side == "decoder":
        row["closed"] = outcome(closed, bridge(), part)
    else:
        row["closed"] = outcome(closed, bridge(), decoder_of("llama"))
    for name, check in (DECODER_CHECKS if side == "decoder" else ENCODER_CHECKS).items():
        row[name] = outcome(lambda check=check: check(open_blocks(bridge())))
    return row


def families(side: str) -> list[str]:
    if side == "decoder":
        return sorted(auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
    known = [family for family in auto.MODEL_MAPPING_NAMES if family in CONFIG_MAPPING]
    return sorted(family for family in known if reads_text(family))


def reads_text(family: str) -> bool:
    """Whether the base model of a family takes ids and can do without images or sound."""
    name = auto.MODEL_MAPPING_NAMES[family]
    model_class = getattr(transformers, name if isinstance(name, str) else name[0], None)
    try:
        names = set(signature(model_class.forward).parameters) if model_class else set()
    except ImportError:  # a library for sound or images is missing
        return False
    others = {"pixel_values", "input_features", "input_values", "pixel_values_videos", "images", "bbox"}
    return "input_ids" in names and not names & others


if __name__ == "__main__":
    side, *names = sys.argv[1:]
    for name in names or families(side):
        began = time.time()
        row = isolated(row_of, side, name)
        print(json.dumps({"family": name, **row, "s": round(time.time() - began, 1)}), flush=True)
