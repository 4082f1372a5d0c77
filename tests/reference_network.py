"""The whole network once more, slowly and in plain tensor operations, as the model must compute it.

Nothing of `crossmask.modeling` is used but a model's weights; masks and attention are those of
`crossmask.masks.reference`. In float64, so that what differs is the model's error.
"""

import math

import torch

from crossmask.masks import Layout, Mask, naive_attention, naive_mask, parse

ACTIVATIONS = {
    "silu": lambda x: x / (1 + torch.exp(-x)),
    "gelu": lambda x: x * (1 + torch.erf(x / math.sqrt(2))) / 2,
    "relu": lambda x: torch.where(x > 0, x, 0.0),
    None: lambda x: x,
}


def layout_of(segments: list[list[int]]) -> Layout:
    """Segment numbers, 0 for padding, to places: positions are counted inside each segment."""
    positions = [[row[:i].count(number) if number else 0 for i, number in enumerate(row)] for row in segments]
    return Layout(torch.tensor(positions), torch.tensor(segments))


class ReferenceNetwork:
    """Computes a model's logits from its weights."""

    def __init__(self, model: torch.nn.Module):
        self.config = model.config
        self.weights = {name: weight.double() for name, weight in model.state_dict().items()}

    def logits(self, source: torch.Tensor, places: Layout, target: torch.Tensor, target_places: Layout):
        """(B, S) and (B, T) ids to (B, T, vocabulary)."""
        hidden = self.embed(source, "model.encoder")
        for index in range(self.config.encoder_layers):
            name = f"model.encoder.layers.{index}"
            hidden = self.self_attend(hidden, places, self.rule("encoder_mask", index), name)
            hidden = self.feed_forward(hidden, name)
        hidden = self.norm(hidden, "model.encoder.norm")
        if self.config.memory_length:
            hidden, places = self.pool(hidden, places)
        memory, hidden = hidden, self.embed(target, "model.decoder")
        for index in range(self.config.decoder_layers):
            name = f"model.decoder.layers.{index}"
            hidden = self.self_attend(hidden, target_places, self.rule("decoder_mask", index), name)
            normed = self.norm(hidden, f"{name}.cross_attn_norm")
            allowed = self.allowed(self.rule("cross_mask", index), target_places, places)
            hidden = hidden + self.interact(normed, memory, allowed, f"{name}.cross_attn")
            hidden = self.feed_forward(hidden, name)
        hidden = self.norm(hidden, "model.decoder.norm")
        if self.config.embedding_size:
            hidden = self.linear(hidden, "head_proj")
        return self.linear(hidden, "lm_head")

    def rule(self, name: str, layer: int) -> Mask:
        """The config's mask of a layer; the mappings in the tests name each layer by itself."""
        text = getattr(self.config, name)
        return parse(text if isinstance(text, str) else text[str(layer)])

    def allowed(self, rule: Mask, query: Layout, key: Layout) -> torch.Tensor:
        return naive_mask(rule, query, key, heads=self.config.num_attention_heads)

    def linear(self, x: torch.Tensor, name: str) -> torch.Tensor:
        return x @ self.weights[f"{name}.weight"].T

    def norm(self, x: torch.Tensor, name: str) -> torch.Tensor:
        mean = (x * x).sum(-1, keepdim=True) / x.shape[-1]
        return x / (mean + self.config.rms_norm_eps).sqrt() * self.weights[f"{name}.weight"]

    def embed(self, ids: torch.Tensor, side: str) -> torch.Tensor:
        table = self.weights[f"{side}.embed_tokens.weight"]
        x = table[ids] * math.sqrt(table.shape[1])
        if self.config.embedding_size:
            x = self.linear(x, f"{side}.embed_proj.proj")
        return ACTIVATIONS[self.config.embedding_act](x)

    def heads(self, x: torch.Tensor, name: str) -> torch.Tensor:
        """Project, split into heads of the config's width, and repeat each key/value head for its group."""
        x = self.linear(x, name)
        split = torch.stack(x.split(self.config.head_dim, dim=-1), dim=1)
        return split.repeat_interleave(self.config.num_attention_heads // split.shape[1], dim=1)

    def rotate(self, x: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        """Turn the plane of coordinates d and d + D/2 by position / 10000^(2d/D)."""
        half = x.shape[-1] // 2
        angle = positions[:, None, :, None] * 10000.0 ** (-torch.arange(half, dtype=torch.float64) / half)
        first, second = x[..., :half], x[..., half:]
        turned = (first * angle.cos() - second * angle.sin(), second * angle.cos() + first * angle.sin())
        return torch.cat(turned, dim=-1)

    def self_attend(self, x: torch.Tensor, places: Layout, rule: Mask, name: str) -> torch.Tensor:
        normed = self.norm(x, f"{name}.self_attn_norm")
        q, k = (
            self.rotate(self.heads(normed, f"{name}.self_attn.{side}_proj"), places.positions) for side in ("q", "k")
        )
        v = self.heads(normed, f"{name}.self_attn.v_proj")
        attended = naive_attention(q, k, v, self.allowed(rule, places, places), self.config.head_dim**-0.5)
        return x + self.linear(attended.transpose(1, 2).flatten(2), f"{name}.self_attn.o_proj")

    def interact(self, x: torch.Tensor, source: torch.Tensor, allowed: torch.Tensor, name: str) -> torch.Tensor:
        q, k, v = (
            self.heads(states, f"{name}.{side}_proj") for side, states in (("q", x), ("k", source), ("v", source))
        )
        if self.config.cross_attention_score == "additive":
            attended = self.additive(q, k, v, allowed, self.weights[f"{name}.score_vector"])
        else:
            attended = naive_attention(q, k, v, allowed, self.config.head_dim**-0.5)
        return self.linear(attended.transpose(1, 2).flatten(2), f"{name}.o_proj")

    @staticmethod
    def additive(q, k, v, allowed, vector) -> torch.Tensor:
        output = torch.zeros_like(q)
        for b, h, i in torch.cartesian_prod(*(torch.arange(n) for n in q.shape[:3])).tolist():
            seen = allowed[b, h, i].nonzero()[:, 0].tolist()
            scores = [math.exp(float(vector[h] @ torch.tanh(q[b, h, i] + k[b, h, j]))) for j in seen]
            for score, j in zip(scores, seen, strict=True):
                output[b, h, i] += score / sum(scores) * v[b, h, j]
        return output

    def feed_forward(self, x: torch.Tensor, name: str) -> torch.Tensor:
        normed = self.norm(x, f"{name}.mlp_norm")
        gate = ACTIVATIONS[self.config.hidden_act](self.linear(normed, f"{name}.mlp.gate_proj"))
        return x + self.linear(gate * self.linear(normed, f"{name}.mlp.up_proj"), f"{name}.mlp.down_proj")

    def pool(self, hidden: torch.Tensor, places: Layout) -> tuple[torch.Tensor, Layout]:
        """Each segment's tokens to N vectors that see that segment and nothing else."""
        segments = int(places.segments.max())
        rows = [[1 + i for i in range(segments) for _ in range(self.config.memory_length)]] * len(hidden)
        memory = layout_of(rows)
        queries = self.weights["model.encoder.memory.queries"].repeat(segments, 1).expand(len(hidden), -1, -1)
        allowed = self.allowed(parse("full()"), memory, places)
        pooled = self.interact(queries, hidden, allowed, "model.encoder.memory.pool")
        return self.norm(queries + pooled, "model.encoder.memory.norm"), memory
