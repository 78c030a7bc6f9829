"""Adaptive-Span: a transformer memory whose heads each learn one span for all memories."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .contract import check_spans
from .segment import Stretches
from .slot_transformer import SlotTransformer
from .span_mask import SpanLosses, shrink_loss
from .stack import TransformerConfig


@dataclass(frozen=True)
class AdaptiveSpanConfig(TransformerConfig):
    """Options of the `adaptive-span` memory. Spans, ages and the ramp are in environment steps."""

    memory = "adaptive-span"

    max_span: float = 512
    """L, the longest span a head can learn, in steps. Costs nothing until it is used."""
    ramp: float = 16
    """R, steps over which a memory fades for a head once it is older than the head's span."""
    initial_span: float = 0.5
    """Span of every head before learning, as a fraction of max_span."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_spans("adaptive-span", self.initial_span, self.max_span, self.ramp)


class AdaptiveSpan(SlotTransformer):
    """Every head keeps every memory for one span of its own; a memory lives as long as the longest.

    The span is z = L * p with p in [0, 1] learned directly. Where p leaves the interval z is cut
    but passes the gradient of the task on, so that a head whose span has shrunk to 0 can come back.
    The loss is the mean span of the heads, and presses on no span that is 0 but on one that is cut
    at L, which in episodes shorter than L nothing else would bring back.

    Source: Sukhbaatar et al. 2019, "Adaptive Attention Span in Transformers", arXiv:1905.07799,
    eq. 1 and 2. Differs from it in the attention, which is that of all memories here
    (`attention.MemoryAttention`): positions are a learned mix of exponentials of the age, a step
    does not read itself, and may read nothing.
    """

    def __init__(self, dim_in: int, config: AdaptiveSpanConfig) -> None:
        super().__init__(dim_in, config, ramp=config.ramp, max_live=None)
        self.max_span = config.max_span
        self.fraction_LH = nn.Parameter(
            torch.full((config.n_layers, config.n_heads), config.initial_span)
        )

    def head_spans(self, layers: slice) -> Tensor:
        fraction_LH = self.fraction_LH[layers]
        cut_LH = fraction_LH.clamp(0, 1)
        return self.max_span * (fraction_LH + (cut_LH - fraction_LH).detach())

    def spans(self, hidden_BLYD: Tensor, layers: slice) -> Tensor:
        longest_L1 = self.head_spans(layers).detach().amax(-1, keepdim=True)
        return longest_L1.expand(hidden_BLYD.shape[:-1])

    def _losses(
        self,
        layer: int,
        born_BT: Tensor,
        span_BNW: Tensor,
        stretches: Stretches,
        paying_BNCW: Tensor,
    ) -> SpanLosses:
        """The heads' spans pay, whatever was read."""
        span_H = self.head_spans(slice(layer, layer + 1))[0]
        span_H = torch.where(self.fraction_LH[layer] >= 0, span_H, 0.0)
        return SpanLosses(span_H.mean(), shrink_loss(span_H).mean(), span_H.new_zeros(()))
