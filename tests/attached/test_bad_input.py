"""One clear error for whatever masks cannot be put on, and the model is then what it was."""

import pytest
import torch
from attached_families import BART, BERT, T5, TOKENS, attached, ids, plain
from small_models import small_model
from transformers import (
    AutoModelForSeq2SeqLM,
    BertConfig,
    BertModel,
    GPT2Config,
    GPT2LMHeadModel,
    T5Config,
    T5EncoderModel,
    VisionEncoderDecoderConfig,
    VisionEncoderDecoderModel,
    ViTConfig,
)
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from crossmask import attach, detach
from crossmask.attached.sides import source_of
from crossmask.masks import MaskError

pytestmark = pytest.mark.filterwarnings("ignore")


def state_of(model) -> list:
    """What a model and its modules have beside their weights."""
    state: list = [model.config.to_dict()]
    for name, module in model.named_modules():
        implementation = getattr(getattr(module, "config", None), "_attn_implementation", None)
        hooks = [*module._forward_hooks, *module._forward_pre_hooks]
        state.append((name, type(module), sorted(vars(module)), hooks, implementation))
    return state


def build(name: str, *fields: dict):
    merged = dict(TOKENS)
    for each in fields:
        merged |= each
    return AutoModelForSeq2SeqLM.from_config(CONFIG_MAPPING[name](**merged))


NOT_ON_INTERFACE = {
    "mvp": (BART,),
    "led": (BART, {"attention_window": 4}),
    "prophetnet": ({"hidden_size": 32, "num_encoder_layers": 1, "num_decoder_layers": 1,
                    "num_encoder_attention_heads": 2, "num_decoder_attention_heads": 2,
                    "encoder_ffn_dim": 8, "decoder_ffn_dim": 8},),
    "fsmt": (BART, {"src_vocab_size": 60, "tgt_vocab_size": 60, "langs": ["de", "en"]}),
}  # fmt: skip


@pytest.mark.parametrize("family", NOT_ON_INTERFACE)
def test_models_that_are_not_on_the_attention_interface_are_refused_by_name(family):
    model = build(family, *NOT_ON_INTERFACE[family])
    before = state_of(model)
    with pytest.raises(ValueError, match=f"attention interface, got {type(model).__name__}, .*another family"):
        attach(model, cross_mask="wait_k(3)")
    assert state_of(model) == before


WRONG_MODELS = {
    "a name": (lambda: "facebook/bart-base", TypeError, "model must be a model of Transformers, got str"),
    "a module": (lambda: torch.nn.Linear(2, 2), TypeError, "a model of Transformers, got Linear"),
    "compiled": (lambda: torch.compile(plain("bart")), TypeError, "before anything wraps it"),
    "decoder": (
        lambda: GPT2LMHeadModel(GPT2Config(n_layer=1, n_head=1, n_embd=8, vocab_size=60)),
        ValueError,
        "model must have an encoder and a decoder, got GPT2LMHeadModel",
    ),
    "encoder": (lambda: BertModel(BertConfig(**BERT)), ValueError, "an encoder and a decoder, got BertModel"),
    "half": (lambda: T5EncoderModel(T5Config(**T5)), ValueError, "an encoder and a decoder, got T5EncoderModel"),
    "ours": (small_model, ValueError, "without masks, got CrossMaskForConditionalGeneration"),
    "attached": (
        lambda: attached("bart"),
        ValueError,
        "must not be attached already, got BartForConditionalGeneration",
    ),
}


@pytest.mark.parametrize("case", WRONG_MODELS)
def test_other_models_are_refused(case):
    make, error, message = WRONG_MODELS[case]
    model = make()
    before = state_of(model) if hasattr(model, "config") else None
    with pytest.raises(error, match=message):
        attach(model)
    assert before is None or state_of(model) == before


def test_a_model_with_a_forward_of_its_own_is_refused():
    model = plain("bart")
    model.forward = model.forward
    with pytest.raises(
        ValueError, match="the forward of its class, got BartForConditionalGeneration with one of its own"
    ):
        attach(model)


def test_what_is_not_attached_cannot_be_detached():
    model = plain("bart")
    with pytest.raises(
        ValueError, match=r"must be one that crossmask\.attach returned, got BartForConditionalGeneration"
    ):
        detach(model)
    with pytest.raises(ValueError, match=r"must be one that crossmask\.attach returned"):
        detach(detach(attach(model)))


WRONG_MASKS = {
    "no rule": ({"cross_mask": "wait(3)"}, "cross_mask.*wait_k"),
    "a tensor": ({"cross_mask": torch.ones(2, 3) > 0}, "cross_mask must be a mask or its text.*Tensor|got tensor"),
    "a layer": ({"cross_mask": {5: "full()", "rest": "full()"}}, "cross_mask: .*layer 5, but there are 2 layers"),
    "a rule of layers": ({"decoder_mask": "layers({5: full(), 'rest': full()})"}, "decoder_mask: .*layer 5"),
    "a head": ({"encoder_mask": "heads({7: full(), 'rest': full()})"}, "encoder_mask: .*head 7"),
    "chance": ({"cross_mask": "random(0.5, seed=1)"}, "cross_mask: .* give it in the call"),
    "nothing": ({"cross_mask": "~full()"}, "cross_mask"),
    "half blind": ({"cross_mask": "blind((1, 2))"}, "encoder_mask must have blind"),
    "blind in the target": ({"decoder_mask": "blind((1, 2))"}, "decoder_mask must be without blind spans"),
}


@pytest.mark.parametrize("case", WRONG_MASKS)
def test_masks_that_cannot_hold_are_refused(case):
    given, message = WRONG_MASKS[case]
    model = plain("bart")
    model.config.cross_mask = "window(3)"
    before = state_of(model)
    with pytest.raises(ValueError, match=message):
        attach(model, **given)
    assert state_of(model) == before
    attach(model)


def test_masks_of_a_config_are_checked_too():
    model = plain("bart")
    model.config.cross_mask = "wait(3)"
    with pytest.raises(ValueError, match=r"cross_mask.*wait_k"):
        attach(model)
    assert model.config.cross_mask == "wait(3)"


def test_flash_attention_is_refused():
    model = plain("bart")
    model.config._attn_implementation_internal = "flash_attention_2"
    before = state_of(model)
    with pytest.raises(ValueError, match=r"attn_implementation must be one of .* got 'flash_attention_2'"):
        attach(model, cross_mask="wait_k(2)")
    assert state_of(model) == before


BLIND = {"encoder_mask": "blind((1, 2))", "cross_mask": "blind((1, 2))"}


@pytest.mark.parametrize("family", ["switch_transformers", "nllb-moe"])
def test_blind_is_refused_where_experts_have_a_limited_capacity(family):
    model = plain(family)
    before = state_of(model)
    with pytest.raises(ValueError, match=r"must be without blind spans.* experts of limited capacity.* write drop"):
        attach(model, **BLIND)
    assert state_of(model) == before
    with pytest.raises(ValueError, match="experts of limited capacity"):
        attach(model).generate(ids(1, 5), max_new_tokens=2, **BLIND)


def test_an_encoder_mask_is_refused_where_the_encoder_is_sparse():
    model = plain("longt5")
    before = state_of(model)
    with pytest.raises(ValueError, match=r"encoder_mask must be full\(\) on this model.*give a cross_mask"):
        attach(model, encoder_mask="causal()")
    assert state_of(model) == before
    attach(model)
    for call in ({"encoder_mask": "causal()"}, {"encoder_mask": torch.ones(1, 5, 5) > 0}):
        with pytest.raises(ValueError, match=r"encoder_mask must be full\(\) on this model"):
            model(input_ids=ids(1, 5), decoder_input_ids=ids(1, 3), **call)
        with pytest.raises(ValueError, match=r"encoder_mask must be full\(\) on this model"):
            model.get_encoder()(ids(1, 5), **call)


WRONG_CALLS = {
    "text": ({"cross_mask": "wait(3)"}, "cross_mask: .*wait_k"),
    "float": ({"cross_mask": torch.ones(2, 6, 9)}, "cross_mask: a tensor mask must be boolean"),
    "list": ({"cross_mask": [[True]]}, "cross_mask must be a mask, its text or a boolean tensor, got list"),
    "rows": (
        {"cross_mask": torch.ones(2, 3, 9) > 0},
        "cross_mask must have a row for each of 6 decoder tokens, got 3",
    ),
    "columns": ({"cross_mask": torch.ones(2, 6, 8) > 0}, "cross_mask must have a column for each of 9 tokens"),
    "batch": ({"cross_mask": torch.ones(3, 6, 9) > 0}, "cross_mask must be for the 2 examples of the batch"),
    "heads": ({"cross_mask": torch.ones(2, 3, 6, 9) > 0}, "cross_mask must be for the 4 heads of the model"),
    "encoder rows": ({"encoder_mask": torch.ones(2, 3, 9) > 0}, "encoder_mask must have a row for each of 9"),
    "half blind": ({"cross_mask": "blind((1, 2))"}, "encoder_mask must have blind"),
}


@pytest.mark.parametrize("case", WRONG_CALLS)
def test_masks_of_a_call_that_do_not_fit_are_refused(case):
    given, message = WRONG_CALLS[case]
    model = attached("bart")
    batch = {"input_ids": ids(2, 9), "decoder_input_ids": ids(2, 6)}
    before = model(**batch).logits
    with pytest.raises(ValueError, match=message):
        model(**batch, **given)
    assert torch.equal(model(**batch).logits, before)


def test_an_encoder_mask_beside_outputs_made_without_it_is_refused():
    model = attached("bart")
    outputs = model.get_encoder()(ids(2, 9))
    with pytest.raises(
        ValueError, match=r"encoder_mask causal\(\) has no effect on encoder_outputs that were made under none"
    ):
        model(encoder_outputs=outputs, decoder_input_ids=ids(2, 6), encoder_mask="causal()")
    outputs = model.get_encoder()(ids(2, 9), encoder_mask="causal()")
    model(encoder_outputs=outputs, decoder_input_ids=ids(2, 6), encoder_mask="causal()")


@pytest.mark.parametrize("family", ["bart", "t5", "bert2gpt2"])
@pytest.mark.parametrize(
    "name", ["cross_maks", "encoder_msk", "decodr_mask", "passage_id", "segments_ids", "crossmask"]
)
def test_misspelt_arguments_of_a_call_are_refused(family, name):
    model = attached(family)
    with pytest.raises(TypeError, match=f"no argument is called {name}; did you mean"):
        model(input_ids=ids(1, 4), decoder_input_ids=ids(1, 3), **{name: "wait_k(2)"})


def test_unknown_arguments_are_refused():
    model = attached("bart")
    with pytest.raises(ValueError, match="cros_mask"):
        model.generate(ids(1, 4), cros_mask="wait_k(2)", max_new_tokens=2)
    with pytest.raises(ValueError, match="segment_ids"):
        model.generate(ids(1, 4), segment_ids=torch.ones(1, 4), max_new_tokens=2)


class BrokenEncoder:
    """As Moonshine's streaming encoder: its number of states is computed from a field that it does not have."""

    main_input_name, config = "input_values", None

    def _get_feat_extract_output_lengths(self, lengths):
        return self.config.encoder_config


def test_an_encoder_of_which_nothing_tells_the_number_of_states_is_refused():
    with pytest.raises(ValueError, match=r"encoder_mask must be full\(\) where BrokenEncoder encodes"):
        source_of(BrokenEncoder(), {"input_values": torch.zeros(1, 8)})


def test_an_encoder_of_images_takes_no_mask_and_a_decoder_does():
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
    encoder = ViTConfig(**sizes, image_size=32, patch_size=16)
    decoder = BertConfig(**sizes, vocab_size=60, is_decoder=True, add_cross_attention=True)
    model = VisionEncoderDecoderModel(VisionEncoderDecoderConfig.from_encoder_decoder_configs(encoder, decoder)).eval()
    model.set_attn_implementation("eager")
    with pytest.raises(MaskError, match=r"encoder_mask must be full\(\) where ViTModel encodes, since nothing tells"):
        attach(model, encoder_mask="window(1)")
    assert type(model) is VisionEncoderDecoderModel
    attach(model, cross_mask="keep((0, 2))")
    images, target = torch.randn(1, 3, 32, 32), torch.tensor([[1, 5]])
    outputs = model(pixel_values=images, decoder_input_ids=target, output_attentions=True)
    assert outputs.cross_attentions[0][..., 2:].abs().max() == 0
