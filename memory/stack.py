"""What all transformer memories are made of: pre-norm layers, and how their halves are added."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from .attention import FeedForward, MemoryAttention, initialise
from .contract import Memory, check_counts, check_flags


@dataclass(frozen=True)
class TransformerConfig:
    """Options of every transformer memory."""

    memory: ClassVar[str]
    """Name of the memory, for messages."""

    width: int = 64
    """Size of the vectors remembered and of the output."""
    n_layers: int = 2
    """Transformer layers; each has memories of its own."""
    n_heads: int = 4
    """Attention heads of each layer; must divide width."""
    ffn_width: int = 128
    """Hidden units of each layer's feed-forward half."""
    gated: bool = False
    """Whether layers are joined by the gates of GTrXL instead of sums (arXiv:1910.06764)."""

    def __post_init__(self) -> None:
        check_flags(self.memory, gated=self.gated)
        check_counts(
            self.memory,
            width=self.width,
            n_layers=self.n_layers,
            n_heads=self.n_heads,
            ffn_width=self.ffn_width,
        )


KEEPS_INPUT = 2.0
"""Bias b_g of a gate towards its input, which makes a new layer close to the identity."""


class Sum(nn.Module):
    """The plain residual connection, x + y."""

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return x + y


class GRUGate(nn.Module):
    """A gated residual connection: a GRU step with the layer's input as the hidden state.

    r = sigmoid(W_r y + U_r x); z = sigmoid(W_z y + U_z x - b); h = tanh(W_g y + U_g (r * x));
    (1 - z) * x + z * h, for y = relu(output). Shapes: (..., D) each.

    Source: Parisotto et al. 2020, "Stabilizing Transformers for Reinforcement Learning",
    arXiv:1910.06764, sec. 3.2 (GTrXL).
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.from_output = nn.Linear(width, 3 * width, bias=False)
        self.from_input = nn.Linear(width, 2 * width, bias=False)
        self.from_reset = nn.Linear(width, width, bias=False)
        self.keep = nn.Parameter(torch.full((width,), KEEPS_INPUT))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        reset_y, update_y, new_y = self.from_output(torch.relu(y)).chunk(3, -1)
        reset_x, update_x = self.from_input(x).chunk(2, -1)
        update = torch.sigmoid(update_y + update_x - self.keep)
        new = torch.tanh(new_y + self.from_reset(torch.sigmoid(reset_y + reset_x) * x))
        return torch.lerp(x, new, update)


class Layer(nn.Module):
    """One transformer layer: attention to memories, then a feed-forward network."""

    def __init__(self, width: int, n_heads: int, ffn_width: int, gated: bool) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.attention = MemoryAttention(width, n_heads)
        self.ffn = FeedForward(width, ffn_width)
        initialise(self.attention, self.ffn)
        self.after_attention, self.after_ffn = (
            GRUGate(width) if gated else Sum() for _ in range(2)
        )

    def finish(self, x: Tensor, read: Tensor) -> Tensor:
        """The layer's output from its input and what its attention read."""
        x = self.after_attention(x, read)
        return self.after_ffn(x, self.ffn(x))  # type: ignore[no-any-return]


class TransformerMemory(Memory):
    """The parameters of a transformer memory. Subclasses decide what is remembered, and read it."""

    def __init__(self, dim_in: int, config: TransformerConfig) -> None:
        super().__init__()
        width = config.width
        self.dim_in, self.dim_out = dim_in, width
        self.width, self.n_layers = width, config.n_layers
        self.embed = nn.Linear(dim_in, width)
        self.layers = nn.ModuleList(
            Layer(width, config.n_heads, config.ffn_width, config.gated)
            for _ in range(config.n_layers)
        )
        self.final_norm = nn.LayerNorm(width)
        nn.init.orthogonal_(self.embed.weight)
        nn.init.zeros_(self.embed.bias)

    def layer(self, i: int) -> Layer:
        """Layer `i`, from 0."""
        return self.layers[i]  # type: ignore[return-value]

    def state_like(self) -> Tensor:
        """What the vectors of a state are like, in type and device.

        Raises: TypeError for weights in half precision, in which ages of more than 256 steps
        (bfloat16) or the exponentials of positions (float16) are wrong.
        """
        weight = self.embed.weight
        if weight.dtype not in (torch.float32, torch.float64):
            raise TypeError(
                f"the memory's weights are {weight.dtype}, in which steps cannot be counted; leave "
                "it in torch.float32 or torch.float64: memory.float()"
            )
        return weight
