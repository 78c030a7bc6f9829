"""Memories whose span is a constant: the last W steps (`transformer-xl`), or nothing (`none`)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .contract import check_counts
from .slot_transformer import SlotTransformer
from .stack import TransformerConfig


@dataclass(frozen=True)
class TransformerXLConfig(TransformerConfig):
    """Options of the `transformer-xl` memory."""

    memory = "transformer-xl"

    window: int = 64
    """Steps remembered, the same for every memory."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_counts(self.memory, window=self.window)


@dataclass(frozen=True)
class NoMemoryConfig(TransformerConfig):
    """Options of `none`, the control without memory: layers whose attention has nothing to read."""

    memory = "none"


class FixedWindow(SlotTransformer):
    """Every memory is kept for `window` steps: a hard mask, which is a ramp of one step.

    With a window the layers are those of Transformer-XL (Dai et al. 2019, arXiv:1901.02860): past
    inputs of each layer are read without gradient; what differs is the attention, which is that of
    all memories here (`attention.MemoryAttention`): positions are a learned mix of exponentials of
    the age, a step does not read itself, and may read nothing. With window 0 it reads nothing:
    the control that proves a task needs memory, equal in depth and parameters to the
    transformers beside it.
    """

    def __init__(self, dim_in: int, config: TransformerXLConfig | NoMemoryConfig) -> None:
        self.window = config.window if isinstance(config, TransformerXLConfig) else 0
        super().__init__(dim_in, config, ramp=1.0, max_live=None)

    def spans(self, hidden_BLYD: Tensor, layers: slice) -> Tensor:
        return torch.full_like(hidden_BLYD[..., 0], float(self.window))
