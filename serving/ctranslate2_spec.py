"""From our own network to CTranslate2's Transformer specification.

Nothing of CTranslate2 is changed: a folder that `save_ctranslate2` writes runs under `ctranslate2.Translator` alone.
"""

from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedTokenizerBase

from ..configuration.crossmask import CrossMaskConfig
from ..modeling.crossmask import CrossMaskForConditionalGeneration
from ..modeling.layers import GatedMLP
from ..seq2seq.cpu_ops import RMSNorm
from ..seq2seq.interactive_attention import MaskedAttention
from ..utils.errors import InputError
from .ctranslate2_refusals import ACTIVATIONS, generation_rules, read_window, refusals
from .generation import end_tokens, exported_generation
from .libraries import require
from .model_checks import check_network, check_tokenizer

_PURPOSE = "export to CTranslate2"
DTYPES = ("float32", "int8", "int8_float32", "bfloat16", "int8_bfloat16", "float16", "int8_float16")


def check_expressible(model: Any) -> None:
    """Refuse a model that CTranslate2 cannot run as `generate()` runs it.

    Raises:
        InputError: with all reasons.
    """
    if isinstance(model.config, CrossMaskConfig):
        check_network(model, "")
    if reasons := refusals(model.config, model.generation_config):
        raise InputError(f"the model must be one that CTranslate2 can express: {'; '.join(reasons)}")


def save_ctranslate2(
    model: CrossMaskForConditionalGeneration, tokenizer: PreTrainedTokenizerBase, folder: Path, dtype: str
) -> None:
    """Write the files that CTranslate2 loads: model.bin, config.json and shared_vocabulary.json.

    Args:
        folder: exists. dtype: one of `DTYPES`: of the weights, and of the others where these are int8.

    Raises:
        InputError: the model has something that CTranslate2 cannot express.
        MissingLibraryError: CTranslate2 is not installed.
    """
    require("ctranslate2", "ctranslate2", _PURPOSE)
    spec = make_spec(model, tokenizer)
    spec.validate()
    spec.optimize(quantization=dtype)
    spec.save(str(folder))


def register_converter() -> None:
    """Make CTranslate2's own `TransformersConverter` take crossmask models.

    ```python
    >>> register_converter()
    >>> ctranslate2.converters.TransformersConverter("runs/multi30k-en-de").convert("ct2", quantization="int8")
    ```

    Raises:
        MissingLibraryError: CTranslate2 is not installed.
    """
    converters = require("ctranslate2.converters.transformers", "ctranslate2", _PURPOSE)

    @converters.register_loader("CrossMaskConfig")
    class CrossMaskLoader(converters.ModelLoader):  # type: ignore[name-defined]  # imported by name
        architecture_name = "AutoModelForSeq2SeqLM"

        def get_model_spec(self, model: Any) -> Any:
            raise NotImplementedError  # not asked: the spec has its vocabulary already

        def __call__(self, model: Any, tokenizer: Any) -> Any:
            return make_spec(model, tokenizer)


@torch.no_grad()
def make_spec(model: CrossMaskForConditionalGeneration, tokenizer: PreTrainedTokenizerBase) -> Any:
    """The model as a `ctranslate2.specs.TransformerSpec`, with its vocabulary.

    Raises:
        InputError: the model has something that CTranslate2 cannot express, or the tokenizer more tokens than it.
        MissingLibraryError: CTranslate2 is not installed.
    """
    check_expressible(model)
    specs = require("ctranslate2.specs.transformer_spec", "ctranslate2", _PURPOSE)
    attention_specs = require("ctranslate2.specs.attention_spec", "ctranslate2", _PURPOSE)
    config: CrossMaskConfig = model.config
    encoder: Any = model.model.encoder
    decoder: Any = model.model.decoder
    factorised, attention = config.embedding_size is not None, _attention_options(config)
    options = {"pre_norm": True, "ffn_glu": True, "activation": _activation(config.hidden_act), **attention}
    sizes = {side: (getattr(config, f"{side}_layers"), config.num_attention_heads) for side in ("encoder", "decoder")}
    spec = specs.TransformerSpec(
        specs.TransformerEncoderSpec(*sizes["encoder"], **options),
        specs.TransformerDecoderSpec(*sizes["decoder"], project_in_out=factorised, **options),
    )
    for layer, rule in zip(spec.decoder.layer, generation_rules(config, "decoder"), strict=True):
        if (earlier := read_window(rule)) >= 0:
            # Not by an option of the decoder, which would cut the source's keys to the window as well.
            layer.self_attention = attention_specs.MultiHeadAttentionSpec(
                self_attention=True, sliding_window=earlier + 1, **attention
            )
    _set_embeddings(spec.encoder, spec.encoder.embeddings[0], encoder)
    _set_embeddings(spec.decoder, spec.decoder.embeddings, decoder)
    for side, module in ((spec.encoder, encoder), (spec.decoder, decoder)):
        side.layer_norm.gamma = _float(module.norm.weight)
        for layer, layer_module in zip(side.layer, module.layers, strict=True):
            _set_self_attention(layer.self_attention, layer_module.self_attn, layer_module.self_attn_norm)
            _set_feed_forward(layer.ffn, layer_module.mlp, layer_module.mlp_norm)
    for layer, layer_module in zip(spec.decoder.layer, decoder.layers, strict=True):
        _set_cross_attention(layer.attention, layer_module.cross_attn, layer_module.cross_attn_norm)
    if factorised:
        del spec.decoder.project_in  # folded into the embeddings
        head: Any = model.head_proj
        spec.decoder.project_out.weight = _float(head.weight)
    spec.decoder.projection.weight = _float(model.lm_head.weight)
    _set_vocabulary(spec, model, tokenizer)
    return spec


def _activation(name: str) -> Any:
    return getattr(require("ctranslate2.specs", "ctranslate2", _PURPOSE).Activation, ACTIVATIONS[name])


def _attention_options(config: CrossMaskConfig) -> dict[str, Any]:
    """What all self-attention of the specification is built with."""
    scaling = require("ctranslate2.specs.attention_spec", "ctranslate2", _PURPOSE).RotaryScalingType
    rope: dict[str, Any] = config.rope_parameters or {}
    is_linear = rope.get("rope_type") == "linear"
    return {
        "rms_norm": True,
        "num_heads_kv": config.num_key_value_heads,
        "head_dim": config.head_dim,
        "rotary_dim": config.head_dim,
        "rotary_interleave": False,
        "rotary_base": rope["rope_theta"],
        "rotary_scaling_type": scaling.Linear if is_linear else None,
        "rotary_scaling_factor": rope["factor"] if is_linear else 1,
    }


def _float(weight: torch.Tensor) -> torch.Tensor:
    """A copy: CTranslate2 quantises what it is given in place."""
    return weight.detach().to("cpu", torch.float32, copy=True)


def _set_embeddings(side: Any, spec: Any, module: Any) -> None:
    """A table of embeddings; projection and activation of a factorised one are folded into it."""
    table, scale = _float(module.embed_tokens.weight), module.embed_proj.scale
    if module.config.embedding_size is None:
        spec.weight = table
        return
    projection = module.embed_proj
    spec.weight = projection.act(nn.functional.linear(table * scale, _float(projection.proj.weight)))
    side.scale_embeddings = False


def _set_self_attention(spec: Any, module: MaskedAttention, norm: RMSNorm) -> None:
    spec.layer_norm.gamma = _float(norm.weight)
    projections = module.q_proj, module.k_proj, module.v_proj
    spec.linear[0].weight = torch.cat([_float(projection.weight) for projection in projections])
    spec.linear[1].weight = _float(module.o_proj.weight)


def _set_cross_attention(spec: Any, module: MaskedAttention, norm: RMSNorm) -> None:
    spec.layer_norm.gamma = _float(norm.weight)
    spec.linear[0].weight = _float(module.q_proj.weight)
    spec.linear[1].weight = torch.cat([_float(module.k_proj.weight), _float(module.v_proj.weight)])
    spec.linear[2].weight = _float(module.o_proj.weight)


def _set_feed_forward(spec: Any, module: GatedMLP, norm: RMSNorm) -> None:
    spec.layer_norm.gamma = _float(norm.weight)
    spec.linear_0.weight = _float(module.gate_proj.weight)
    spec.linear_0_noact.weight = _float(module.up_proj.weight)
    spec.linear_1.weight = _float(module.down_proj.weight)


def _set_vocabulary(spec: Any, model: CrossMaskForConditionalGeneration, tokenizer: PreTrainedTokenizerBase) -> None:
    config: Any = model.config
    tokens = vocabulary(tokenizer, config.vocab_size)
    spec.register_source_vocabulary(tokens)
    spec.register_target_vocabulary(tokens)
    generation: Any = exported_generation(model)
    start, (end,) = generation.decoder_start_token_id, end_tokens(generation)
    unknown: Any = tokenizer.unk_token_id
    # CTranslate2 adds special tokens that the vocabulary lacks, and then no longer fits the weights.
    spec.config.unk_token = tokens[config.pad_token_id if unknown is None else unknown]
    spec.config.bos_token = tokens[start if config.bos_token_id is None else config.bos_token_id]
    spec.config.eos_token = tokens[end]
    spec.config.decoder_start_token = tokens[start]
    spec.config.layer_norm_epsilon = config.rms_norm_eps


def vocabulary(tokenizer: PreTrainedTokenizerBase, size: int) -> list[str]:
    """The token of every id below `size`, with a name for those that the tokenizer does not have.

    Raises:
        InputError: the tokenizer has more tokens than `size`.
    """
    check_tokenizer(tokenizer, size)
    names = {number: token for token, number in tokenizer.get_vocab().items()}
    known = set(names.values())
    unused = (name for number in range(size) if (name := f"<unused{number}>") not in known)
    return [names[number] if number in names else next(unused) for number in range(size)]
