"""What cannot be joined, run, saved or resized says so in one line, before anything of the given models changes."""

import copy

import pytest
import torch
from bridge_families import ENCODERS, _config, bridge_of, decoder_of, encoder_of, ids
from huggingface_hub.errors import StrictDataclassError
from transformers import (
    CONFIG_MAPPING,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    MambaConfig,
    MambaForCausalLM,
    MambaModel,
    ViTConfig,
    ViTModel,
    XLNetConfig,
    XLNetLMHeadModel,
)
from transformers.quantizers.quantizer_gguf import GgufHfQuantizer
from transformers.utils.quantization_config import GgufConfig

from crossmask import CrossMaskBridgeConfig, CrossMaskBridgeForConditionalGeneration
from crossmask.masks import MaskError

pytestmark = pytest.mark.filterwarnings("ignore")
join = CrossMaskBridgeForConditionalGeneration.from_encoder_decoder_pretrained
SOURCE, TARGET = ids(2, 7), ids(2, 5, seed=1)
BERT, BART = (_config(family, ENCODERS[family]) for family in ("bert", "bart"))
MAMBA = MambaConfig(vocab_size=60, hidden_size=32, num_hidden_layers=2, state_size=4)
MINIMAX = CONFIG_MAPPING["minimax"](
    vocab_size=60, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, head_dim=8
)
SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}


def vision_model():
    return ViTModel(ViTConfig(**SMALL, image_size=32, patch_size=16))


def xlnet():
    return XLNetLMHeadModel(XLNetConfig(vocab_size=60, d_model=32, n_layer=2, n_head=4, d_inner=48))


WRONG_ENCODERS = {
    "masked-lm": (lambda: AutoModelForMaskedLM.from_config(BERT), "encoder must have no output layer, got BertForM"),
    "causal-lm": (lambda: decoder_of("llama"), "encoder must have no output layer, got LlamaForCausalLM"),
    "classifier": (
        lambda: AutoModelForSequenceClassification.from_config(BERT),
        "encoder must have no output layer, got BertForSequenceClassification",
    ),
    "images": (vision_model, "encoder must read token ids, got ViTModel"),
    "no-attention": (lambda: MambaModel(MAMBA), "encoder must have attention layers, got MambaConfig"),
    "other-dtype": (lambda: encoder_of("bert").bfloat16(), "the same dtype, got torch.bfloat16 and torch.float32"),
    "other-device": (lambda: encoder_of("bert").to("meta"), "must have the same device, got meta and cpu"),
    "not-a-model": (lambda: 3, "must be models of Transformers, got int"),
}  # fmt: skip
WRONG_DECODERS = {
    "encoder-decoder": (
        lambda: AutoModelForSeq2SeqLM.from_config(BART),
        "decoder must be a causal language model, got BartForConditionalGeneration",
    ),
    "masked-lm": (lambda: AutoModelForMaskedLM.from_config(BERT), "decoder must be a causal language model, got Bert"),
    "no-output-layer": (lambda: decoder_of("llama").model, "decoder must be a causal language model, got LlamaModel"),
    "not-causal": (lambda: AutoModelForCausalLM.from_config(BERT), "decoder must be causal, got BertLMHeadModel"),
    "bridge": (bridge_of, "decoder must be a causal language model, got CrossMaskBridge"),
    "no-such-layers": (xlnet, "decoder must have one list of its 2 layers, .* got none in XLNetLMHeadModel"),
    "no-attention": (lambda: MambaForCausalLM(MAMBA), "decoder must have attention layers, got MambaConfig"),
    "own-cache": (
        lambda: AutoModelForCausalLM.from_config(MINIMAX),
        "decoder must have layers of attention with a cache in past_key_values, got MiniMaxForCausalLM",
    ),
    "in-a-bridge": (lambda: bridge_of().decoder, "decoder must not be part of a bridge already, got LlamaForCausalLM"),
    "not-a-model": (lambda: None, "must be models of Transformers, got NoneType"),
}  # fmt: skip
WRONG_FIELDS = [
    ({"bridge_layers": 0}, "bridge_layers must be from 1 to the decoder's 3 layers, got 0"),
    ({"bridge_layers": 4}, "bridge_layers must be from 1 to the decoder's 3 layers, got 4"),
    ({"bridge_layers": [2, 1]}, "bridge_layers must be layer numbers from 0 to 2, ascending"),
    ({"bridge_layers": [0, 3]}, "bridge_layers must be layer numbers from 0 to 2, ascending"),
    ({"bridge_layers": []}, "bridge_layers must be layer numbers from 0 to 2, ascending"),
    ({"bridge_layers": "all"}, "bridge_layers must be an integer or a list"),
    ({"bridge_layers": range(2)}, "bridge_layers must be an integer or a list"),
    ({"tie_word_embeddings": True}, "tie_word_embeddings must be False, .* got True"),
    ({"is_encoder_decoder": False}, "is_encoder_decoder must be True, got False"),
    ({"gate": "open"}, "gate must be one of"),
    ({"num_attention_heads": 0}, "num_key_value_heads must divide num_attention_heads=0"),
    ({"num_attention_heads": 64}, "head_dim must be at least 1, got 0"),
    ({"num_key_value_heads": 3}, "num_key_value_heads must divide num_attention_heads=4, both at least 1, got 3"),
    ({"dropout": 1.0}, "dropout must be from 0 to below 1, got 1.0"),
    ({"rms_norm_eps": 0.0}, "rms_norm_eps must be above 0"),
    ({"initializer_range": -1.0}, "initializer_range at least 0"),
    ({"pad_token_id": 60}, "pad_token_id must be from 0 to 59, the decoder's vocabulary, got 60"),
    ({"eos_token_id": [2, 99]}, "eos_token_id must be from 0 to 59, the decoder's vocabulary, got 99"),
    ({"decoder_start_token_id": -1}, "decoder_start_token_id must be from 0 to 59"),
    ({"cross_mask": "heads({9: full(), 'rest': full()})"}, "a head must be a number from 0 to 3.*got head 9"),
    ({"cross_mask": "layers({2: full(), 'rest': full()})", "bridge_layers": [0, 1]}, "from 0 to 1.*got layer 2"),
    ({"encoder_mask": "nothing()"}, "a rule must have a known name, got .nothing."),
    ({"decoder_mask": "causal() & ~causal()"}, "decoder_mask"),
    ({"brigde_layers": 2}, "no argument is called brigde_layers; did you mean bridge_layers"),
    ({"attn_implementation": "xyz"}, "no argument is called attn_implementation"),
    ({"encoder_kwargs": {"dtype": "auto"}}, "encoder_kwargs must be left out where encoder is a model"),
    ({"decoder_kwargs": {"dtype": "auto"}}, "decoder_kwargs must be left out where decoder is a model"),
]  # fmt: skip


def state_of(model) -> dict:
    """All that joining could change of a model."""
    if not isinstance(model, torch.nn.Module):
        return {}
    return {
        "keys": list(model.state_dict()),
        "weights": {name: weight.clone() for name, weight in model.state_dict().items() if not weight.is_meta},
        "modules": {
            name: (type(module), module.training, getattr(module, "_is_hf_initialized", None), sorted(vars(module)))
            for name, module in model.named_modules()
        },
        "config": copy.deepcopy(model.config.to_dict()),
        "attention": model.config._attn_implementation,
        "generation": model.generation_config.to_dict() if model.can_generate() else None,
    }


def check_untouched(before: dict, model) -> None:
    after = state_of(model)
    for name, weight in before.pop("weights", {}).items():
        assert torch.equal(weight, after["weights"][name])
    after.pop("weights", None)
    assert before == after


def unmarked(model):
    """A model as it is after loading by hand: nothing says that its weights are to be kept."""
    if isinstance(model, torch.nn.Module):
        for module in model.modules():
            vars(module).pop("_is_hf_initialized", None)
    return model


def check_refused(encoder, decoder, error, match: str, **fields) -> None:
    before = [state_of(unmarked(part)) for part in (encoder, decoder)]
    with pytest.raises(error, match=match) as caught:
        join(encoder, decoder, **fields)
    reason = str(caught.value).split("\n")
    assert len(reason) == (2 if isinstance(caught.value, StrictDataclassError) else 1)
    for state, part in zip(before, (encoder, decoder), strict=True):
        check_untouched(state, part)


@pytest.mark.parametrize("name", WRONG_ENCODERS)
def test_encoders_that_cannot_be_joined(name):
    build, match = WRONG_ENCODERS[name]
    check_refused(build(), decoder_of("llama"), ValueError, match)


@pytest.mark.parametrize("name", WRONG_DECODERS)
def test_decoders_that_cannot_be_joined(name):
    build, match = WRONG_DECODERS[name]
    check_refused(encoder_of("bert"), build(), ValueError, match)


@pytest.mark.parametrize(("fields", "match"), WRONG_FIELDS, ids=lambda value: str(value)[:40])
def test_fields_that_do_not_fit(fields, match):
    check_refused(
        encoder_of("bert"), decoder_of("gpt2"), (ValueError, TypeError, StrictDataclassError), match, **fields
    )


def test_nothing_is_changed_before_everything_is_built(monkeypatch):
    def fail(model):
        raise ValueError("the last thing that is built")

    monkeypatch.setattr("crossmask.bridge.bridge.DecoderSide", fail)
    check_refused(encoder_of("bert"), decoder_of("llama"), ValueError, "the last thing that is built")


def test_a_failed_joining_can_be_repeated():
    encoder, decoder = unmarked(encoder_of("bert")), unmarked(decoder_of("llama"))
    weights = {name: weight.clone() for name, weight in decoder.state_dict().items()}
    logits = decoder(TARGET).logits
    for _ in range(2):
        with pytest.raises(StrictDataclassError):
            join(encoder, decoder, gate="open")
    model = join(encoder, decoder)
    assert torch.equal(model(input_ids=SOURCE, decoder_input_ids=TARGET).logits, logits)
    assert all(torch.equal(weights[name], weight) for name, weight in decoder.state_dict().items())
    with pytest.raises(ValueError, match="part of a bridge already"):
        join(encoder, decoder)
    join(encoder, decoder_of("gpt2"))  # an encoder is not changed, and may serve two


def test_given_models_keep_their_weights_in_the_constructor_too():
    encoder, decoder = unmarked(encoder_of("bert")), unmarked(decoder_of("llama"))
    logits = decoder(TARGET).logits
    config = CrossMaskBridgeConfig(encoder=encoder.config, decoder=decoder.config)
    model = CrossMaskBridgeForConditionalGeneration(config, encoder, decoder).eval()
    assert torch.equal(model(input_ids=SOURCE, decoder_input_ids=TARGET).logits, logits)


@pytest.mark.parametrize("part", [None, 3, {}, {"hidden_size": 3}])
def test_configs_without_parts(part):
    with pytest.raises(ValueError, match="encoder must be a config or a dictionary of one with its model_type"):
        CrossMaskBridgeConfig(encoder=part, decoder=decoder_of("llama").config)


@pytest.mark.parametrize(("family", "most"), [("bert", 64), ("roberta", 62), ("t5", 64), ("bart", 64)])
@torch.no_grad()
def test_sources_longer_than_the_encoder_takes(family, most):
    model = bridge_of(encoder=family)
    given = {"decoder_input_ids": TARGET[:1]}
    assert model.max_source_length == most
    model(input_ids=ids(1, most), **given)
    match = f"the source must have at most {most} tokens, which is what the encoder takes, got {most + 1}"
    with pytest.raises(ValueError, match=match):
        model(input_ids=ids(1, most + 1), **given)
    with pytest.raises(ValueError, match=match):
        model.generate(ids(1, most + 1), max_new_tokens=2)


@pytest.mark.parametrize("family", ["llama", "gpt2", "opt"])
@torch.no_grad()
def test_targets_longer_than_the_decoder_takes(family):
    model = bridge_of(decoder=family)
    model(input_ids=SOURCE[:1], labels=ids(1, 64))
    with pytest.raises(
        ValueError, match="the target must have at most 64 tokens, which is what the decoder takes, got 65"
    ):
        model(input_ids=SOURCE[:1], labels=ids(1, 65))
    cache = model(input_ids=SOURCE[:1], decoder_input_ids=ids(1, 64), use_cache=True).past_key_values
    with pytest.raises(ValueError, match="the target must have at most 64 tokens"):
        model(input_ids=SOURCE[:1], decoder_input_ids=ids(1, 1), past_key_values=cache)


@torch.no_grad()
def test_packed_rows_may_be_longer_and_their_examples_not():
    model = bridge_of(decoder="gpt2")
    for length, other, match in ((40, 40, None), (70, 10, "the source must have"), (10, 70, "the target must have")):
        given = {
            "input_ids": ids(1, length + 10),
            "segment_ids": torch.tensor([[1] * length + [2] * 10]),
            "decoder_input_ids": ids(1, other + 10),
            "decoder_segment_ids": torch.tensor([[1] * other + [2] * 10]),
        }
        if match is None:
            model(**given)
            continue
        with pytest.raises(ValueError, match=f"{match} at most 64 tokens, .* got 70"):
            model(**given)


def test_vocabularies_are_those_of_the_parts(tmp_path):
    model = bridge_of()
    with pytest.raises(ValueError, match=r"must be called on one part: model\.encoder\.resize_token_embeddings"):
        model.resize_token_embeddings(70)
    with pytest.raises(RuntimeError, match="size mismatch"):
        model.decoder.load_state_dict(decoder_of("llama", vocab_size=70).state_dict())
    with pytest.raises(ValueError, match="labels must be from 0 to 59"):
        model(input_ids=SOURCE, labels=torch.full((2, 3), 60))
    model.encoder.resize_token_embeddings(80)
    model.decoder.resize_token_embeddings(70)
    given = {"input_ids": torch.full((2, 3), 79), "labels": torch.full((2, 3), 69)}
    loss = model(**given).loss
    with pytest.raises(ValueError, match="labels must be from 0 to 69"):
        model(input_ids=SOURCE, labels=torch.full((2, 3), 70))
    model.save_pretrained(tmp_path)
    assert torch.equal(AutoModelForSeq2SeqLM.from_pretrained(tmp_path)(**given).loss, loss)


@pytest.mark.parametrize("implementation", ["flex_attention", "flash_attention_2"])
@pytest.mark.parametrize(("part", "mask"), [("encoder", "causal()"), ("decoder", "window(1)")])
def test_masks_of_parts_whose_kernels_take_none(part, mask, implementation):
    model = bridge_of()
    getattr(model, part).config._attn_implementation = implementation
    with pytest.raises(MaskError, match=rf"{part}_mask needs attn_implementation to be one of \('eager', 'sdpa'\)"):
        model(input_ids=SOURCE, decoder_input_ids=TARGET, **{f"{part}_mask": mask})


LAYERS = "layers({0: window(1), 'rest': full()})"
HEADS = "heads({0: window(1), 'rest': full()})"


@pytest.mark.parametrize(
    ("parts", "given", "match"),
    [
        ({"decoder": "bloom"}, {"decoder_mask": "window(1)"}, "decoder_mask must be causal.* where BloomForCausalLM"),
        *(
            ({"decoder": "xglm"}, {"decoder_mask": mask}, "decoder_mask must be the same for all heads .* XGLMFor")
            for mask in (HEADS, torch.ones(2, 4, 5, 5, dtype=torch.bool).tril())
        ),
        ({"decoder": "llama"}, {"decoder_mask": LAYERS}, "decoder_mask must be the same in every layer"),
        ({"decoder": "gemma3_text"}, {"decoder_mask": LAYERS}, "must be the same in every sliding_attention"),
        ({"encoder": "bert"}, {"encoder_mask": LAYERS}, "encoder_mask must be the same in every layer"),
        ({"encoder": "bart"}, {"segment_ids": torch.ones_like(SOURCE)}, "BartEncoder encodes: it numbers"),
        ({"encoder": "deberta-v2"}, {"encoder_mask": "causal()"}, "where DebertaV2Model encodes: it does not obey"),
        ({"encoder": "deberta-v2"}, {"segment_ids": torch.ones_like(SOURCE)}, "DebertaV2Model encodes: it does not"),
        ({"encoder": "t5"}, {"token_type_ids": torch.zeros_like(SOURCE)}, "token_type_ids must be left out"),
    ],
)  # fmt: skip
@torch.no_grad()
def test_what_a_family_cannot_take(parts, given, match):
    model = bridge_of(**parts)
    for _ in range(2):
        with pytest.raises(ValueError, match=match):
            model(input_ids=SOURCE, decoder_input_ids=TARGET, **given)
    model(input_ids=SOURCE, decoder_input_ids=TARGET)


@pytest.mark.parametrize("part", ["encoder", "decoder"])
@torch.no_grad()
def test_quantised_parts_are_not_saved(part, tmp_path):
    model = bridge_of()
    logits = model(input_ids=SOURCE, decoder_input_ids=TARGET).logits
    # What a model has that was loaded from a GGUF file with its weights unpacked.
    loaded = getattr(model, part)
    loaded.config.quantization_config = GgufConfig(dequantize=True)
    loaded.hf_quantizer = GgufHfQuantizer(loaded.config.quantization_config)
    loaded.quantization_method, loaded.is_quantized = loaded.config.quantization_config.quant_method, True
    with pytest.raises(ValueError, match=f"{part} must not be quantised where it is saved"):
        model.save_pretrained(tmp_path / "model")
    assert not (tmp_path / "model").exists()
    loaded.hf_quantizer.remove_quantization_config(loaded)
    model.save_pretrained(tmp_path / "model")
    again = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "model")
    assert torch.equal(again(input_ids=SOURCE, decoder_input_ids=TARGET).logits, logits)
