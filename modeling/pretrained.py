"""What all models of the family share: flags, initialisation, embeddings."""

import os
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel, initialization
from transformers.modeling_utils import LoadStateDictConfig, LoadStateDictInfo
from transformers.utils import logging

from ..configuration.crossmask import CrossMaskConfig
from ..seq2seq.call_checks import check_length
from ..seq2seq.interactive_attention import InteractiveAttention
from ..seq2seq.token_ids import check_batch_of_ids, check_ids, check_tokens
from .memory import FixedLengthMemory
from .ties import TIED, change_ties, complete, differing, names_of_one, present_ties, tie_again

logger = logging.get_logger(__name__)

_ATTENTION = {"q_proj": "colwise", "k_proj": "colwise", "v_proj": "colwise", "o_proj": "rowwise"}
_FEED_FORWARD = {"gate_proj": "colwise", "up_proj": "colwise", "down_proj": "rowwise"}


def tensor_parallel_plan(*attentions: str) -> dict[str, str]:
    """How a side's layers, with these kinds of attention, are spread over devices."""
    parts = {**dict.fromkeys(attentions, _ATTENTION), "mlp": _FEED_FORWARD}
    return {f"layers.*.{part}.{name}": style for part, plan in parts.items() for name, style in plan.items()}


class CrossMaskPreTrainedModel(PreTrainedModel):
    """Base class: loading, saving and initialisation by Transformers."""

    config: CrossMaskConfig
    config_class = CrossMaskConfig
    base_model_prefix = "model"
    main_input_name = "input_ids"
    supports_gradient_checkpointing = True
    _no_split_modules = ["EncoderLayer", "DecoderLayer"]
    _skip_keys_device_placement = ["past_key_values"]
    _supports_sdpa = True
    _supports_flex_attn = True
    _supports_flash_attn = True
    _supports_attention_backend = True
    _can_compile_fullgraph = True

    def __setattr__(self, name: str, value: Any) -> None:
        """PEFT puts linear layers in the place of tied embeddings: they become embeddings of the same weight."""
        if name == "embed_tokens":
            value = as_embedding(value, self.config.pad_token_id)
        super().__setattr__(name, value)

    def load_state_dict(
        self, state_dict: Mapping[str, torch.Tensor], strict: bool = True, assign: bool = False
    ) -> NamedTuple:
        """As in PyTorch; a strict load takes a tied weight from under any one of its names: files have it once.

        A load that is not strict reports its other names as missing, which safetensors and accelerate count on.
        """
        ties = names_of_one(self)
        if names := differing(state_dict, ties):
            logger.warning(f"tied weights differ in the state dict; the last is kept: {', '.join(names)}")
        result = super().load_state_dict(complete(state_dict, ties) if strict else state_dict, strict, assign)
        if assign:
            tie_again(self, ties, state_dict)
        return result

    def tie_weights(self, missing_keys: set[str] | None = None, recompute_mapping: bool = True) -> None:
        """As in Transformers. Trainer is not to warn of the further names of tied weights: no file has them."""
        super().tie_weights(missing_keys, recompute_mapping)
        self._keep_ties_out_of_files()

    def save_pretrained(self, save_directory: str | os.PathLike, *args, **kwargs) -> None:
        """As in Transformers, with a config that says which embeddings are one weight now."""
        ties = present_ties(self)
        if ties != self.config.tie_word_embeddings:
            logger.warning(f"saving with tie_word_embeddings={ties!r}: these embeddings are one weight now")
            self.config.tie_word_embeddings = ties
        self._keep_ties_out_of_files()
        super().save_pretrained(save_directory, *args, **kwargs)

    def _keep_ties_out_of_files(self) -> None:
        self._keys_to_ignore_on_save = {name for names in names_of_one(self) for name in names[1:]}

    @staticmethod
    def _finalize_model_loading(
        model: PreTrainedModel, load_config: LoadStateDictConfig, loading_info: LoadStateDictInfo
    ) -> LoadStateDictInfo:
        """As in Transformers, after the embeddings of a checkpoint with other ties are carried over.

        Raises:
            ValueError: the ties are to change while weights stay on the disk or are spread over devices.
        """
        saved = saved_ties(model.config, load_config)
        if saved is not None and saved != model.config.tie_word_embeddings:
            if load_config.device_mesh is not None or "disk" in (load_config.device_map or {}).values():
                raise ValueError(
                    f"tie_word_embeddings must be {saved!r} as in the checkpoint where weights are loaded to the disk "
                    f"or over several devices, got {model.config.tie_word_embeddings!r}; load the model on one device "
                    "first, and save it"
                )
            mismatched = {name for name, *_ in loading_info.mismatched_keys}
            change_ties(model, saved, loading_info.missing_keys, mismatched, load_config.device_map)
        return PreTrainedModel._finalize_model_loading(model, load_config, loading_info)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, nn.Linear) and self.config.residual_initializer_range is not None:
            if self._is_added_to_residual(module):
                initialization.normal_(module.weight, std=self.config.residual_initializer_range)
        elif isinstance(module, FixedLengthMemory):
            initialization.normal_(module.queries)
        elif isinstance(module, InteractiveAttention) and self.config.cross_attention_score == "additive":
            initialization.normal_(module.score_vector, std=module.head_dim**-0.5)

    def _is_added_to_residual(self, module: nn.Linear) -> bool:
        """Whether a layer is the last of its attention or feed-forward block."""
        names = ("o_proj", "down_proj")
        return any(module is getattr(block, name, None) for block in self.modules() for name in names)

    def _resize_token_embeddings(
        self, new_num_tokens: int | None, pad_to_multiple_of: int | None = None, mean_resizing: bool = True
    ) -> nn.Embedding:
        """As Transformers does, for the decoder's own embedding too where it is not tied to the encoder's."""
        resized = super()._resize_token_embeddings(new_num_tokens, pad_to_multiple_of, mean_resizing)
        decoder = self.get_decoder()
        if decoder.embed_tokens.num_embeddings != resized.num_embeddings:
            decoder.embed_tokens = self._get_resized_embeddings(
                decoder.embed_tokens, resized.num_embeddings, mean_resizing=mean_resizing
            )
        return resized

    def check_length(self, length: int, side: str, packed: bool) -> None:
        """Refuse a sequence longer than `max_position_embeddings`; a packed row may be longer, its examples not.

        Not under `torch.export`, where a limit would become a condition on the exported program's inputs.

        Raises:
            ValueError: with the length, the limit and how to fix it.
        """
        if not packed and not torch.compiler.is_exporting():
            check_length(side, length, self.config.max_position_embeddings)


def saved_ties(config: PreTrainedConfig, load_config: LoadStateDictConfig) -> bool | str | None:
    """`tie_word_embeddings` in the config beside a checkpoint, or None where there is none."""
    name = load_config.pretrained_model_name_or_path
    if name is None:
        return None
    try:
        commit = getattr(config, "_commit_hash", None)  # saves a request to the Hub
        values, _ = config.get_config_dict(name, _commit_hash=commit, **(load_config.download_kwargs or {}))
    except OSError:
        return None
    saved = values.get("tie_word_embeddings", True)
    return saved if saved in list(TIED) else None


def as_embedding(module: nn.Module, padding_idx: int | None) -> nn.Module:
    """A linear layer as an embedding with the same weight, also where a wrapper of PEFT holds it."""
    if type(module) is nn.Linear:
        rows, width = module.weight.shape
        embedding = nn.Embedding(rows, width, padding_idx, device="meta")
        embedding.weight = module.weight
        return embedding.train(module.training)
    saved = getattr(module, "modules_to_save", None)
    if isinstance(saved, nn.ModuleDict):
        for adapter in saved:
            saved[adapter] = as_embedding(saved[adapter], padding_idx)
    return module


def embed(side: PreTrainedModel, input_ids: torch.Tensor | None, inputs_embeds: torch.Tensor | None) -> torch.Tensor:
    """The embeddings (B, L, E) of one side, from its ids (B, L) or as given.

    Raises:
        ValueError: both or neither are given, or they hold no tokens, or none of this vocabulary.
    """
    if (input_ids is None) == (inputs_embeds is None):
        raise ValueError(
            "give either ids or embeddings of the source, and likewise of the target: exactly one of the two"
        )
    name = type(side).__name__
    if inputs_embeds is not None:
        check_tokens(name, "inputs_embeds", inputs_embeds)
        width, shape = side.config.embedding_size or side.config.hidden_size, tuple(inputs_embeds.shape)
        if len(shape) != 3 or shape[2] != width:
            raise ValueError(f"the {name}'s inputs_embeds must be (batch, length, {width}), got {shape}")
        return inputs_embeds
    check_batch_of_ids(name, input_ids)
    if torch.compiler.is_compiling():  # which reads no handlers of errors
        return side.embed_tokens(input_ids)
    try:
        return side.embed_tokens(input_ids)
    except IndexError:
        check_ids("ids", side, input_ids)
        raise
