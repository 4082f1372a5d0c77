"""`attach` and `detach`: masks on a pretrained encoder-decoder, in place."""

import inspect

from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from ..configuration.layer_masks import LayerTexts, as_text, check_heads, check_lasting
from ..masks.expressions import Mask, MaskError
from ..masks.scope import SCOPES, Scope
from ..seq2seq.generation import MASKS
from ..seq2seq.mask_compiler import LayerMasks
from ..seq2seq.pretrained_parts import first_position_of
from ..seq2seq.subclasses import parts_of, subclass_of
from .attached_model import CHECKPOINT, AttachedModel, keep_calls
from .attachment import Attachment, leaks_of
from .attention_functions import use_masks, use_plain
from .attention_sites import SITE, Attentions, Site, configs_with_attention, depth, eager_of, find_attentions, heads_of
from .current_call import AttachedCall, KeepsCall
from .packing import packing_refusal
from .positions import GivesPositions, TakesPositions, position_table
from .sides import NO_ENCODER_MASK, OWN_RULE, AfterSide, DecoderSide, EncoderSide, check_states_are_counted

MaskOrText = Mask | LayerTexts


def attach(
    model: PreTrainedModel,
    encoder_mask: MaskOrText | None = None,
    decoder_mask: MaskOrText | None = None,
    cross_mask: MaskOrText | None = None,
) -> PreTrainedModel:
    """Put masks on a pretrained encoder-decoder of Transformers, in place; no weight changes.

    ```python
    model = AutoModelForSeq2SeqLM.from_pretrained("Helsinki-NLP/opus-mt-en-de")
    crossmask.attach(model, encoder_mask="causal()", cross_mask="wait_k(3)")
    model.generate(**inputs, cross_mask="window(16)", num_beams=4)
    crossmask.detach(model)
    ```

    Afterwards `forward` and `generate` take `encoder_mask` (source to source), `decoder_mask` (target to target) and
    `cross_mask` (target to source): a mask, its text, or a boolean tensor (B, S), (B, T, S) or (B, H, T, S), True =
    allowed. They take `passage_ids` (B, S) int64 for masks that speak of passages, too. `forward` takes `segment_ids`
    (B, S) and `decoder_segment_ids` (B, T) of packed rows, integers, 0 for padding: every example is then what it is
    alone, and families in which it would not be are refused. A call's masks are and-ed with
    those given here, and with what the model forbids by itself (later target tokens, padding, windows): masks only
    ever close. A query with nothing to see gets zero. Where nothing is masked, outputs are those of the untouched
    model, to the bit.

    The model keeps its class's name, its weights and its methods; `isinstance` and `save_pretrained` work as before,
    `deepcopy`, `pickle`, `Trainer`, PEFT and `torch.compile` too. Masks that are given here are written into the
    config, and so into a saved `config.json`.

    `passage_mass` says how much attention went to each passage, `audit(model, batch)` what is really read, and
    `stream(tokens)` writes while a source arrives; the encoder encodes anew all that has arrived by then.

    Families: those whose attention goes through Transformers' attention interface, which their code is asked about:
    BART, Marian, mBART, M2M100, Pegasus, Blenderbot, PLBart, T5 and its kin, T5Gemma, T5Gemma2, Switch, NLLB-MoE,
    Whisper, Speech2Text, `EncoderDecoderModel` of BERT, RoBERTa and GPT-2, and others. Where an encoder is sparse
    (LongT5, Pegasus-X, BigBird-Pegasus) or convolves between its layers (conformers) only the decoder and the
    interactive attention take masks. docs/attached-families.md has all families of Transformers.

    To know:
        - A model that was saved and is loaded without `attach` runs without masks, and nothing says so. Load it by
          `crossmask.attach(AutoModelForSeq2SeqLM.from_pretrained(folder))`, which reads the masks from the config, or
          with `trust_remote_code=True`, by the code file beside it. `README.md` there says so.
        - An encoder that was trained to look both ways loses quality under `causal()` until it is fine-tuned.
        - Masks are tensors of T x S or S x S, and no attention is saved by them: generation takes somewhat longer.
        - Attention must be `sdpa` or `eager`; `model.set_attn_implementation(...)` keeps the masks.
        - `blind` is refused where a hidden token shows all the same, as in experts of limited capacity (Switch,
          NLLB-MoE).
        - Attach before `get_peft_model`, `torch.compile` and `accelerate`, which wrap the model.
        - `use_reentrant=True` in gradient checkpointing is wrong in some models of Transformers already.

    Args:
        model: a model with an encoder and a decoder, as `AutoModelForSeq2SeqLM` or `AutoModelForSpeechSeq2Seq` loads.
        encoder_mask, decoder_mask, cross_mask: a mask, its text, or a mapping from layers to texts. By default those
            of the model's config, where it has none `full()`.

    Returns:
        The same model.

    Raises:
        TypeError: what is not a model of Transformers.
        ValueError: a model that masks cannot be put on, with the reason. It is then as it was.
        MaskError: a mask that cannot be read, that names layers or heads that are not there, that the model cannot be
            given, or a blind span that something could read. The model is then as it was.
    """
    check_model(model)
    attentions = find_attentions(model)
    given = {"encoder_mask": encoder_mask, "decoder_mask": decoder_mask, "cross_mask": cross_mask}
    texts = {name: as_text(mask, name) for name, mask in given.items() if mask is not None}
    config = model.config
    attachment = Attachment(
        masks={},
        attentions=attentions,
        current_call=AttachedCall(),
        configs=configs_with_attention(model, attentions),
        fields={name: value for name, value in vars(config).items() if name in MASKS},
    )
    try:
        for name, text in texts.items():
            setattr(config, name, text)
        for scope in SCOPES:
            attachment.masks[scope] = _compiler(model, scope, attentions)
        attachment.leaks = leaks_of(model.get_encoder())
        attachment.packing_refusal = packing_refusal(model, attentions)
        attachment.check_blind(**dict.fromkeys(MASKS))
        use_masks(attachment.configs)
    except ValueError:
        _restore_fields(config, attachment.fields)
        raise
    # Nothing fails from here on.
    for scope in SCOPES if not attentions.merged else SCOPES[:2]:
        for layer, module in enumerate(attentions.of(scope)):
            is_merged = attentions.merged and scope == "decoder"
            setattr(module, SITE, Site(scope, layer, is_merged, eager_of(module), attachment.current_call))
    _hook(model, attachment)
    model.__class__ = subclass_of(AttachedModel, type(model))
    model.attachment = attachment  # type: ignore[assignment]  # torch knows tensors and modules only
    keep_calls(model)
    return model


def detach(model: PreTrainedModel) -> PreTrainedModel:
    """Take the masks off a model that `attach` put them on, in place; it is what it was before.

    Returns:
        The same model.

    Raises:
        ValueError: a model that is not attached.
    """
    if not isinstance(model, AttachedModel):
        raise ValueError(
            f"model must be one that crossmask.attach returned, got {type(model).__name__}; attach it first"
        )
    attachment = model.attachment
    for handle in attachment.handles:
        handle.remove()
    for module in attachment.attentions.all():
        delattr(module, SITE)
    use_plain(attachment.configs)
    _restore_fields(model.config, attachment.fields)
    for module in model.modules():
        if isinstance(function := getattr(module, CHECKPOINT, None), KeepsCall):
            setattr(module, CHECKPOINT, function.checkpoint)
    del model.attachment
    _, model.__class__ = parts_of(type(model))
    return model


def check_model(model: object) -> None:
    """Refuse what masks cannot be put on.

    Raises:
        TypeError: what is not a model of Transformers.
        ValueError: a model that is no encoder-decoder, is attached already, takes masks by itself, or is wrapped.
    """
    name = type(model).__name__
    if not isinstance(model, PreTrainedModel):
        raise TypeError(
            f"model must be a model of Transformers, got {name}; attach to the model before anything wraps it, as "
            "get_peft_model, torch.compile and DataParallel do"
        )
    if isinstance(model, AttachedModel):
        raise ValueError(
            f"model must not be attached already, got {name} with masks; call crossmask.detach(model) first"
        )
    if "encoder_mask" in inspect.signature(model.forward).parameters:
        raise ValueError(f"model must be one without masks, got {name}, which takes them by itself; use it as it is")
    sides = (model.get_encoder(), model.get_decoder())
    if model in sides or sides[0] is sides[1] or not all(isinstance(side, nn.Module) for side in sides):
        raise ValueError(
            f"model must have an encoder and a decoder, got {name}; load one by AutoModelForSeq2SeqLM.from_pretrained"
        )
    if "forward" in vars(model):
        raise ValueError(
            f"model must have the forward of its class, got {name} with one of its own, as accelerate gives to models "
            "that are spread over devices; load it onto one device"
        )


def _compiler(model: PreTrainedModel, scope: Scope, attentions: Attentions) -> LayerMasks:
    """The masks of a scope, checked against the layers and heads that there are."""
    modules = attentions.of(scope)
    layers = len(modules) or depth(model.get_encoder())
    heads = heads_of(modules[0]) if modules else 1
    name, own = f"{scope}_mask", OWN_RULE[scope]
    masks = LayerMasks(model.config, scope, layers=layers, heads=heads, own=own if scope == "decoder" else None)
    rules, _ = masks.rules()
    if not modules and rules != (own,):
        raise MaskError(NO_ENCODER_MASK)
    if scope == "encoder" and rules != (own,):
        check_states_are_counted(model.get_encoder())
    check_heads(masks.of_layers, heads, name)
    check_lasting(masks.of_layers, name)
    return masks


def _hook(model: PreTrainedModel, attachment: Attachment) -> None:
    """Put hooks before and after both sides and their tables of positions."""
    encoder, decoder = model.get_encoder(), model.get_decoder()
    masks, current_call = attachment.masks, attachment.current_call
    first = EncoderSide(encoder, masks, current_call, is_reachable=bool(attachment.attentions.encoder))
    attachment.handles = [
        encoder.register_forward_pre_hook(first, with_kwargs=True),
        encoder.register_forward_hook(AfterSide("encoder", current_call)),
        decoder.register_forward_pre_hook(DecoderSide(decoder, masks, current_call), with_kwargs=True),
        decoder.register_forward_hook(AfterSide("decoder", current_call)),
    ]
    for name, side in (("encoder", encoder), ("decoder", decoder)):
        if (table := position_table(side)) is not None:
            counts_from = first_position_of(table)
            before, after = (kind(current_call, name, counts_from) for kind in (GivesPositions, TakesPositions))
            attachment.handles.append(table.register_forward_pre_hook(before, with_kwargs=True))
            attachment.handles.append(table.register_forward_hook(after))


def _restore_fields(config: PreTrainedConfig, fields: dict[str, object]) -> None:
    """Give a config back the mask fields that it had."""
    for name in MASKS:
        if name in fields:
            setattr(config, name, fields[name])
        elif name in vars(config):
            delattr(config, name)
