"""Memories whose span is a constant: the last W steps (`transformer-xl`), or nothing (`none`)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .contract import check_counts
from .slot_transformer import SlotTransformer


@dataclass(frozen=True)
class TransformerXLConfig:
    """Options of the `transformer-xl` memory."""

    width: int = 64
    """Size of the vectors remembered and of the output."""
    n_layers: int = 2
    """Transformer layers; each remembers its own inputs."""
    n_heads: int = 4
    """Attention heads; must divide width."""
    ffn_width: int = 128
    """Hidden units of each layer's feed-forward half."""
    window: int = 64
    """Steps remembered, the same for every memory."""

    def __post_init__(self) -> None:
        check_counts("transformer-xl", **vars(self))


@dataclass(frozen=True)
class NoMemoryConfig:
    """Options of `none`, the control without memory."""

    width: int = 64
    """Size of the output."""
    n_layers: int = 2
    """Transformer layers, each seeing the present step alone."""
    n_heads: int = 4
    """Attention heads; must divide width. They have nothing to attend to."""
    ffn_width: int = 128
    """Hidden units of each layer's feed-forward half."""

    def __post_init__(self) -> None:
        check_counts("none", **vars(self))


class FixedWindow(SlotTransformer):
    """Every memory is kept for `window` steps: a hard mask, which is a ramp of one step.

    With a window the layers are those of Transformer-XL (Dai et al. 2019, arXiv:1901.02860): past
    inputs of each layer are read without gradient; position is by log-spaced age instead of a
    sinusoid. With window 0 a step reads nothing: the control that proves a task needs memory,
    equal in depth and parameters to the transformers beside it.
    """

    def __init__(self, dim_in: int, config: TransformerXLConfig | NoMemoryConfig) -> None:
        self.window = config.window if isinstance(config, TransformerXLConfig) else 0
        super().__init__(
            dim_in,
            width=config.width,
            n_layers=config.n_layers,
            n_heads=config.n_heads,
            ffn_width=config.ffn_width,
            ramp=1.0,
            max_live=None,
        )

    def spans(self, hidden_BLYD: Tensor, layers: slice) -> Tensor:
        return torch.full_like(hidden_BLYD[..., 0], float(self.window))
