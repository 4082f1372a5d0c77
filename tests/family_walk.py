"""What walks over all families of Transformers share: tiny configs, own processes, what a check found, tables."""

import contextlib
import dataclasses
import os
import re
import resource
import signal
import traceback
from collections.abc import Callable, Mapping, Sequence
from multiprocessing import get_context
from pathlib import Path

import torch
from transformers import PreTrainedConfig

LAYERS, VOCABULARY = 4, 60
SECONDS, GIGABYTES = 120, 6
TINY = [
    (32,
     "hidden_size n_embd d_model dim emb_dim word_embed_proj_dim embedding_size hidden_dim lru_width "
     "attention_hidden_size q_lora_rank kv_lora_rank hidden_size_per_layer_input mamba_d_model "
     "enc_hidden_size d_embed"),
    (48,
     "intermediate_size n_inner ffn_dim d_ff encoder_ffn_dim decoder_ffn_dim moe_intermediate_size "
     "shared_expert_intermediate_size ffn_hidden_size shared_intermediate_size "
     "moe_shared_expert_intermediate_size intermediate_size_mlp expert_ffn_hidden_size "
     "dense_intermediate_size mlp_hidden_size moe_shared_intermediate_size "
     "prefix_dense_intermediate_size"),
    (4,
     "num_attention_heads n_head num_heads encoder_attention_heads decoder_attention_heads "
     "attention_heads n_heads num_encoder_attention_heads num_decoder_attention_heads "
     "linear_num_value_heads n_routed_experts num_experts num_local_experts rotary_dim "
     "qk_rope_head_dim mamba_n_heads mamba_num_heads moe_num_experts"),
    (2,
     "num_key_value_heads num_kv_heads linear_num_key_heads num_experts_per_tok num_experts_per_token "
     "top_k_experts moe_topk moe_k n_shared_experts mamba_n_groups n_groups top_k moe_top_k"),
    (1,
     "topk_group n_group first_k_dense_replace num_nextn_predict_layers moe_num_shared_experts "
     "num_shared_experts"),
    (8,
     "head_dim qk_nope_head_dim v_head_dim linear_key_head_dim linear_value_head_dim d_kv qk_head_dim "
     "attention_head_dim index_head_dim global_head_dim kv_channels mamba_d_state mamba_head_dim "
     "mamba_d_head state_size mamba_state_dim ssm_state_size time_step_rank d_head"),
    (16,
     "mamba_chunk_size chunk_size mamba_dt_rank index_topk max_window_layers"),
    (LAYERS,
     "num_hidden_layers n_layer n_layers num_layers encoder_layers decoder_layers num_encoder_layers "
     "num_decoder_layers depth encoder_num_hidden_layers decoder_num_hidden_layers"),
    (VOCABULARY,
     "vocab_size vocab_size_per_layer_input src_vocab_size tgt_vocab_size bigram_vocab_size"),
    (64,
     "max_position_embeddings n_positions max_seq_len max_seq_length max_sequence_length n_ctx "
     "context_length seq_length max_target_positions"),
]  # fmt: skip
VALUES = {name: value for value, names in TINY for name in names.split()}
VALUES |= {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}


def tiny_values(config_class: type[PreTrainedConfig], depth: int = 0) -> dict:
    """The fields of a config class at which its model is tiny, nested configs included."""
    default = vars(config_class())  # by attribute, those that differ between layers raise an error
    fields = {field.name for field in dataclasses.fields(config_class)} | set(config_class.attribute_map)
    values = {
        name: value for name, value in VALUES.items() if name in fields and name not in config_class.attribute_map
    }
    values = {
        n: v
        for n, v in values.items()
        if isinstance(default.get(n), int) or "token" in n or n == "num_key_value_heads"
    }
    count = default.get("num_hidden_layers")
    for field in dataclasses.fields(config_class):
        given = default.get(field.name)
        of_layers = isinstance(given, list) and count and len(given) == count and field.default is not None
        if of_layers and (field.default, field.default_factory) != (dataclasses.MISSING, dataclasses.MISSING):
            values[field.name] = _spread(given)
    for name in config_class.sub_configs:
        part = default.get(name)
        if isinstance(part, PreTrainedConfig) and depth < 3:
            values[name] = {"model_type": part.model_type, **tiny_values(type(part), depth + 1)}
    return values


def _spread(values: list) -> list:
    """A value for each layer, of all kinds that occur."""
    kinds = []
    for value in values:
        if value not in kinds:
            kinds.append(value)
    return [*kinds, *values][:LAYERS]


def without_chance(config: PreTrainedConfig) -> PreTrainedConfig:
    for name, value in vars(config).items():
        if isinstance(value, PreTrainedConfig):
            without_chance(value)
        elif isinstance(value, float) and re.search(r"drop|jitter|mask_\w+_prob", name):
            setattr(config, name, 0.0)
    return config


def first_line(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}"[:220]


def outcome(check: Callable[..., str | None], *args) -> str:
    """What a check found: yes, the words of a refusal, or what went wrong."""
    try:
        return check(*args) or "yes"
    except ValueError as error:
        last = traceback.extract_tb(error.__traceback__)[-1].filename
        ours = "site-packages" not in last
        return f"refused: {str(error)[:400]}" if ours else f"ERROR {first_line(error)} at {last.split('/')[-1]}"
    except Exception as error:  # what a family raises is what the table says
        where = traceback.extract_tb(error.__traceback__)[-1]
        return f"ERROR {first_line(error)} at {where.filename.split('/')[-1]}:{where.lineno}"


def apart(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).abs().max() / (1e-6 + b.abs().max())) if a.isfinite().all() and b.isfinite().all() else 9.0


def same(a: torch.Tensor, b: torch.Tensor, name: str = "") -> str | None:
    return None if apart(a, b) < 1e-3 else f"WRONG{name} by {apart(a, b):.1g}"


def _child(row_of: Callable[..., dict[str, str]], args: tuple, pipe) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (GIGABYTES << 30, GIGABYTES << 30))
    signal.alarm(SECONDS)
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stderr(nowhere):
        pipe.send(row_of(*args))


def isolated(row_of: Callable[..., dict[str, str]], *args: str) -> dict[str, str]:
    """`row_of(*args)` in a process of its own, which may fail, hang, or ask for too much memory."""
    ours, theirs = get_context("fork").Pipe(duplex=False)
    process = get_context("fork").Process(target=_child, args=(row_of, args, theirs))
    process.start()
    theirs.close()
    try:
        row = ours.recv()
    except EOFError:
        row = {"built": "ERROR the process ended without a result"}
    process.join()
    return row


def cell(found: str) -> str:
    """What a table shows of an `outcome`."""
    return {"W": "**wrong**", "E": "error", "r": "refused"}.get(found[0], found)


def clean(text: str) -> str:
    """The reason in an `outcome`, without what the reader of an error is told to do."""
    return text.removeprefix("refused: ").removeprefix("ERROR ").split("; take")[0].replace("|", "\\|")


def table(rows: Mapping[str, Mapping[str, str]], names: Sequence[str], joined: str) -> str:
    """A row for each family, a column for each check, and why not.

    Args:
        rows: the outcomes of each family by the names of checks; `"built"` where it could not be built.
        joined: the name of the check without which there are no others.
    """
    header = " | ".join(f"`{name}`" if "mask" in name else name for name in names)
    lines = [f"| family | {header} | why not |", "|---|" + "---|" * (len(names) + 1)]
    for family, row in rows.items():
        stop = row.get("built") or (row[joined] if row.get(joined) != "yes" else None)
        if stop:
            state = "not built here" if "built" in row else "refused" if stop.startswith("refused") else "error"
            lines.append(f"| {family} | {state} |{' |' * (len(names) - 1)} {clean(stop)} |")
            continue
        reasons = dict.fromkeys(clean(row[name]) for name in names if cell(row[name]) != row[name])
        lines.append(f"| {family} | {' | '.join(cell(row[name]) for name in names)} | {'; '.join(reasons)} |")
    return "\n".join(lines)


def write_table(page: Path, name: str, text: str) -> None:
    """Put a table into a page, where the docs are to be written (CROSSMASK_WRITE_DOCS=1)."""
    if os.environ.get("CROSSMASK_WRITE_DOCS"):
        begin, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->"
        before, _, rest = page.read_text().partition(begin)
        _, _, after = rest.partition(end)
        page.write_text(f"{before}{begin}{text}\n{end}{after}")


def outcomes(rows: Mapping[str, Mapping[str, str]], kind: str) -> dict[str, dict[str, str]]:
    """The checks of models that were built whose outcome begins with `kind`, by family."""
    of_kind = {
        family: {name: found for name, found in row.items() if name != "built" and found.startswith(kind)}
        for family, row in rows.items()
    }
    return {family: row for family, row in of_kind.items() if row}
