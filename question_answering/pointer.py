"""The pointer: learned queries that read the question, and then point at tokens of the context.

Letters: B batch, S source length, H heads, Q queries: the start, the end, and, where the model knows it, no answer.
"""

from typing import Any

import torch
from torch import nn

from ..heads.query_layer import QueryLayer
from ..modeling.layers import rms_norm


class AnswerPointer(nn.Module):
    """Start and end scores of tokens by scaled dot products with queries that have read the question.

    Pointer networks are by Vinyals et al. 2015 (https://arxiv.org/abs/1506.03134), for answers by Wang and Jiang 2017
    (https://arxiv.org/abs/1608.07905).
    """

    def __init__(self, config: Any):
        super().__init__()
        hidden = config.hidden_size
        self.queries = nn.Parameter(torch.empty(3 if config.no_answer else 2, hidden))
        self.layers = nn.ModuleList([QueryLayer(config, index) for index in range(config.pointer_layers)])
        self.norm = rms_norm(config)
        self.q_proj = nn.Linear(hidden, hidden, bias=False)
        self.k_proj = nn.Linear(hidden, hidden, bias=False)
        self.no_answer_proj = nn.Linear(hidden, 1) if config.no_answer else None
        self.scaling = hidden**-0.5

    def forward(
        self, states: torch.Tensor, question: torch.Tensor, answerable: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None, tuple[torch.Tensor | None, ...]]:
        """Point at tokens.

        Args:
            states: (B, S, hidden), the encoder's.
            question: (B, S) bool, the tokens that all queries read.
            answerable: (B, 2, S) bool, where an answer may start, and where it may end. The query for no answer reads
                these tokens too.

        Returns:
            start and end scores, (B, S) each, in float32 or better, with the lowest number where no answer may start
            or end; the score of no answer, (B,), or None; the weights of each layer, (B, H, Q, S) or None.
        """
        batch = states.shape[0]
        readable = question[:, None].expand(-1, len(self.queries), -1)
        if self.no_answer_proj is not None:
            everything = question | answerable.any(1)
            readable = torch.stack((question, question, everything), dim=1)
        queries = self.queries.to(states.dtype).expand(batch, -1, -1)
        all_weights = []
        for layer in self.layers:
            queries, weights = layer(queries, states, readable[:, None])
            all_weights.append(weights)
        queries = self.norm(queries)
        scores = self.q_proj(queries[:, :2]) @ self.k_proj(states).transpose(1, 2) * self.scaling
        scores = scores.to(torch.promote_types(scores.dtype, torch.float32))
        start, end = scores.masked_fill(~answerable, torch.finfo(scores.dtype).min).unbind(1)
        none = None
        if self.no_answer_proj is not None:
            none = self.no_answer_proj(queries[:, 2]).squeeze(-1).to(scores.dtype)
        return start, end, none, tuple(all_weights)
