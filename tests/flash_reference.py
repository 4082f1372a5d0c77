"""FlashAttention's two functions as its documentation describes them, in plain torch."""

import torch


def flash_attn_varlen_func(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    cu_seqlens_q: torch.Tensor,
    cu_seqlens_k: torch.Tensor,
    max_seqlen_q: int,
    max_seqlen_k: int,
    dropout_p: float = 0.0,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size: tuple[int, int] = (-1, -1),
) -> torch.Tensor:
    """(tokens, H, D) each. Query i of a sequence sees keys i + keys - queries - left to i + keys - queries + right."""
    assert cu_seqlens_q.dtype == cu_seqlens_k.dtype == torch.int32
    assert not causal
    assert dropout_p == 0
    k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], dim=1) for x in (k, v))
    bounds_q, bounds_k = cu_seqlens_q.tolist(), cu_seqlens_k.tolist()
    assert len(bounds_q) == len(bounds_k)
    assert (bounds_q[0], bounds_q[-1], bounds_k[0], bounds_k[-1]) == (0, len(q), 0, len(k))
    left, right = window_size
    outputs = [q[:0]]
    for n in range(len(bounds_q) - 1):
        queries, keys = slice(*bounds_q[n : n + 2]), slice(*bounds_k[n : n + 2])
        rows, columns = queries.stop - queries.start, keys.stop - keys.start
        assert 0 <= rows <= max_seqlen_q
        assert 0 <= columns <= max_seqlen_k
        beside = torch.arange(rows)[:, None] + columns - rows
        j = torch.arange(columns)[None]
        seen = ((left == -1) | (j >= beside - left)) & ((right == -1) | (j <= beside + right))
        scores = torch.einsum("thd,shd->hts", q[queries] * softmax_scale, k[keys]).masked_fill(~seen, -1e30)
        weights = scores.softmax(-1) * seen
        outputs.append(torch.einsum("hts,shd->thd", weights, v[keys]))
    return torch.cat(outputs)


def flash_attn_func(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    dropout_p: float = 0.0,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size: tuple[int, int] = (-1, -1),
) -> torch.Tensor:
    """(B, L, H, D) each, everything allowed."""
    assert not causal
    assert dropout_p == 0
    assert window_size == (-1, -1)
    k, v = (x.repeat_interleave(q.shape[2] // x.shape[2], dim=2) for x in (k, v))
    weights = torch.einsum("bthd,bshd->bhts", q * softmax_scale, k).softmax(-1)
    return torch.einsum("bhts,bshd->bthd", weights, v)
