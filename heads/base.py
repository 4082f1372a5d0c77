"""What models with a head on a text encoder share: the encoder, its masks, and what it makes of a batch."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from torch import nn
from transformers import AutoModel, PreTrainedModel

from ..masks.expressions import Mask
from ..masks.layout import Layout, lay_out
from ..masks.materialize import materialize_unchecked
from ..masks.rules import full
from ..masks.scope import Scope
from ..masks.tensor_mask import MaskLike, TensorMask, as_mask
from ..seq2seq.foreign_encoder import ForeignEncoder
from ..seq2seq.pretrained_parts import encoder_of
from .configuration import EncoderHeadConfig
from .encoder import check_encoder, encode, new_encoder, shown_tokens, without_pooler
from .hidden_spans import blind_part

_RECORDED = ("output_attentions", "output_hidden_states")


@dataclass(frozen=True)
class EncodedTokens:
    """What an encoder made of a batch.

    Attributes:
        states: (B, S, hidden). source: the layout of the tokens.
        shown: (B, S) bool, tokens that are neither padding nor in a blind span.
        config_mask, cross_mask: the cross masks of config and call; of heads without one, `full()` and None.
        hidden_states, attentions: the encoder's, where they are asked for.
        wants_attentions: whether they are asked for.
    """

    states: torch.Tensor
    source: Layout
    shown: torch.Tensor
    config_mask: Mask
    cross_mask: Mask | TensorMask | None
    hidden_states: tuple[torch.Tensor, ...] | None
    attentions: tuple[torch.Tensor, ...] | None
    wants_attentions: bool


class EncoderHeadModel(PreTrainedModel):
    """An encoder of any kind, to which a subclass adds a head. A subclass calls `post_init` once it is whole."""

    config: EncoderHeadConfig
    base_model_prefix = "encoder"
    main_input_name = "input_ids"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True

    def __init__(self, config: EncoderHeadConfig, encoder: PreTrainedModel | None = None):
        """With `encoder`, that module with its weights, of the config's `encoder`, takes the place of a new one."""
        super().__init__(config)
        if encoder is None:
            encoder = new_encoder(config.encoder)
        else:
            for module in encoder.modules():
                module._is_hf_initialized = True  # type: ignore[assignment]
        self.encoder = encoder
        self.foreign_encoder = ForeignEncoder(encoder)
        self.masks_of_config: dict[Scope, tuple[Any, Mask]] = {}
        for scope in config.mask_sizes():
            self.config_mask(scope)
        config.encoder = encoder.config  # one object: what is set in it holds for the module
        self.supports_gradient_checkpointing = encoder.supports_gradient_checkpointing

    @property
    def max_source_length(self) -> int | None:
        """The most tokens of a text, None for any number."""
        return self.foreign_encoder.max_length

    @classmethod
    def from_encoder_pretrained(
        cls, encoder: str | PreTrainedModel, *, encoder_kwargs: dict[str, Any] | None = None, **fields: Any
    ) -> Self:
        """A model with a pretrained encoder and a new head, in evaluation mode.

        Args:
            encoder: a folder or a Hub id that `AutoModel` loads; or a model, which is copied and stays as it is.
            encoder_kwargs: for `AutoModel.from_pretrained`, where a name is given: `dtype`, `attn_implementation`.
            fields: of the class's config, all but `encoder`.

        Raises:
            ValueError: options for a model that is loaded already, or an encoder that leaves no states of tokens.
            StrictDataclassError: fields that do not fit.
            OSError: nothing is there, or it cannot be fetched.
        """
        if not isinstance(encoder, PreTrainedModel):
            base = AutoModel.from_pretrained(encoder, **(encoder_kwargs or {}))
        elif encoder_kwargs:
            raise ValueError(
                f"encoder_kwargs {encoder_kwargs} have no effect on a model that is loaded; set them as it is loaded"
            )
        else:
            base = encoder.base_model
        check_encoder(base.config)
        config_class: Any = cls.config_class
        config = config_class(encoder=base.config, **fields)
        part = encoder_of(base)
        if isinstance(encoder, PreTrainedModel):
            part = copy.deepcopy(part)
        part.config.name_or_path = ""
        if part.config._attn_implementation is not None:
            config._attn_implementation = part.config._attn_implementation  # the head's attention too
        model = cls(config, without_pooler(part))
        for name, module in model.named_children():
            if name != "encoder":
                module.to(device=part.device, dtype=part.dtype)
        model.take_weights(base)
        return model.eval()

    def take_weights(self, base: PreTrainedModel) -> None:
        """Copy what the head can use of the pretrained model beside its encoder."""

    def config_mask(self, scope: Scope) -> Mask:
        """The config's mask of a scope, parsed when its text changes: a compiled forward pass cannot parse."""
        text = getattr(self.config, f"{scope}_mask")
        known = self.masks_of_config.get(scope)
        if known is None or known[0] != text:
            (rule,) = self.config.layer_masks(scope)
            known = self.masks_of_config[scope] = (text, rule)
        return known[1]

    def get_input_embeddings(self) -> nn.Module:
        return self.encoder.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.encoder.set_input_embeddings(value)

    def encode_tokens(
        self,
        inputs: Mapping[str, torch.Tensor | None],
        attention_mask: torch.Tensor | None,
        encoder_mask: MaskLike | None,
        cross_mask: MaskLike | None,
        options: dict[str, Any],
    ) -> EncodedTokens:
        """Run the encoder under the masks of config and call.

        Args:
            inputs: `input_ids` or `inputs_embeds`, and beside them `token_type_ids` and `passage_ids`, each a tensor
                or None.
            options: keywords of the call, of which those that ask for more outputs count.

        Raises:
            ValueError: no tokens or too many. MaskError: masks that cannot be read, do not fit, or cannot be run.
        """
        cross_mask, encoder_mask = as_mask(cross_mask, "cross_mask"), as_mask(encoder_mask, "encoder_mask")
        tokens = check_inputs(inputs.get("input_ids"), inputs.get("inputs_embeds"), self.foreign_encoder.max_length)
        batch, length = tokens.shape[:2]
        passages = inputs.get("passage_ids")
        source = lay_out(length, tokens.device, attention_mask=attention_mask, passage_ids=passages, rows=batch)
        rules = {f"config.{scope}_mask": self.config_mask(scope) for scope in self.config.mask_sizes()}
        hidden = blind_part(**rules, cross_mask=cross_mask, encoder_mask=encoder_mask)
        encoder_mask = self._joined(rules["config.encoder_mask"], encoder_mask, source)
        wanted = {
            name: options.get(name) if options.get(name) is not None else getattr(self.config, name)
            for name in _RECORDED
        }
        encoded: Any = encode(self.foreign_encoder, inputs, attention_mask, source, encoder_mask, hidden, **wanted)
        shown = torch.ones(batch, length, dtype=torch.bool, device=tokens.device)
        if attention_mask is not None:
            shown = attention_mask != 0
        if hidden is not None:
            shown = shown & shown_tokens(hidden, source)
        return EncodedTokens(
            states=encoded.last_hidden_state,
            source=source,
            shown=shown,
            config_mask=rules.get("config.cross_mask", full()),
            cross_mask=cross_mask,
            hidden_states=encoded.hidden_states,
            attentions=encoded.attentions,
            wants_attentions=bool(wanted["output_attentions"]),
        )

    def _joined(self, rule: Mask, encoder_mask: Mask | TensorMask | None, source: Layout) -> Mask | TensorMask | None:
        """The encoder masks of config and call as one; None where both allow everything."""
        if rule == full():
            return encoder_mask
        if encoder_mask is None:
            return rule
        if isinstance(encoder_mask, Mask):
            return rule & encoder_mask
        tokens = replace(source, segments=None)  # padding is closed later
        heads = int(getattr(self.config.encoder, "num_attention_heads", None) or 1)
        allowed = materialize_unchecked(rule.for_layer(0, 1, self.training), tokens, tokens, None, heads)
        return encoder_mask if allowed is None else TensorMask(encoder_mask.as_4d & allowed)


def check_inputs(
    input_ids: torch.Tensor | None, inputs_embeds: torch.Tensor | None, limit: int | None
) -> torch.Tensor:
    """The tokens, as ids (B, S) or embeddings (B, S, E).

    Raises:
        ValueError: both or neither are given, they have another shape, or are more than the encoder takes.
    """
    if (input_ids is None) == (inputs_embeds is None):
        raise ValueError("give either input_ids or inputs_embeds: exactly one of the two")
    tokens, name, dimensions = (
        (input_ids, "input_ids", 2) if inputs_embeds is None else (inputs_embeds, "inputs_embeds", 3)
    )
    assert tokens is not None
    if tokens.ndim != dimensions or 0 in tokens.shape[:2]:
        wanted = "(batch, length)" if dimensions == 2 else "(batch, length, width)"
        raise ValueError(f"{name} must be {wanted} with at least one token, got {tuple(tokens.shape)}")
    if limit is not None and not torch.compiler.is_exporting() and tokens.shape[1] > limit:
        raise ValueError(
            f"{name} must have at most {limit} tokens, which is what the encoder takes, got {tokens.shape[1]}; cut "
            "the text, or cut a context into windows, as `question_answering.windows.encode_windows` does"
        )
    return tokens
