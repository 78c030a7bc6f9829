"""Expire-Span: a transformer memory that predicts, for each memory, how long to keep it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .contract import check_counts, check_flags, check_number, check_positive, check_spans
from .slot_transformer import SlotState, SlotTransformer
from .stack import TransformerConfig


@dataclass(frozen=True)
class ExpireSpanConfig(TransformerConfig):
    """Options of the `expire-span` memory. Spans, ages and the ramp are in environment steps."""

    memory = "expire-span"

    max_span: float = 512
    """L, the longest span that can be predicted, in steps. Costs nothing until it is used."""
    ramp: float = 16
    """R, steps over which an expired memory fades before it is deleted; spans learn only there."""
    initial_span: float = 0.5
    """Span of every memory before learning, as a fraction of max_span."""
    temperature: float = 1.0
    """tau, divides the predictor's logit: larger is slower."""
    shorten: bool = False
    """Regulariser of the paper: in training, spans are cut to u * max_span, u drawn uniformly from
    0 to 1 for every environment and rollout, so that nothing is kept that could be done without."""
    max_live: int | None = None
    """Most memories held per environment and layer, the present step included; None: no bound."""
    max_live_from: float = 0.0
    """Share of the training, 0 to 1, that is done when `max_live` begins to hold. While spans are
    still all alike a bound drops memories at random, what matters among them."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_spans("expire-span", self.initial_span, self.max_span, self.ramp)
        check_positive("expire-span", temperature=self.temperature)
        check_flags("expire-span", shorten=self.shorten)
        if isinstance(self.max_live, int) and self.max_live < 2:
            raise ValueError(
                f"expire-span: max_live = {self.max_live} must be at least 2, the present step and "
                "one memory; for no memory at all use memory='none'"
            )
        if self.max_live is not None:
            check_counts("expire-span", max_live=self.max_live)
        check_number("expire-span", "max_live_from", self.max_live_from)
        if not 0 <= self.max_live_from < 1:
            raise ValueError(
                f"expire-span: max_live_from = {self.max_live_from} must be at least 0 and below "
                "1: it is a share of the training"
            )
        if self.max_live is None and self.max_live_from:
            raise ValueError(
                f"expire-span: max_live_from = {self.max_live_from} needs a max_live to begin "
                "with; without a bound it is 0"
            )


class SpanPredictor(nn.Module):
    """e = L * sigmoid((w . h + b) / tau), a span in steps for each memory of each layer.

    w starts at 0 and b so that every memory starts with the span `initial_span * max_span`.
    Shapes: (B, L', Y, D) -> (B, L', Y). Source: eq. 4 of the paper.
    """

    def __init__(self, config: ExpireSpanConfig) -> None:
        super().__init__()
        self.max_span, self.temperature = config.max_span, config.temperature
        logit = -math.log(1 / config.initial_span - 1) * config.temperature
        self.weight_LD = nn.Parameter(torch.zeros(config.n_layers, config.width))
        self.bias_L = nn.Parameter(torch.full((config.n_layers,), logit))

    def forward(self, hidden_BLYD: Tensor, layers: slice) -> Tensor:
        # by the weights of all layers, of which each memory takes its own layer's: where memories
        # are many, half the time of (hidden * weight).sum(-1)
        own_BYL = (hidden_BLYD @ self.weight_LD[layers].T).diagonal(dim1=1, dim2=3)
        logit_BLY = (own_BYL + self.bias_L[layers]).transpose(1, 2)
        return self.max_span * torch.sigmoid(logit_BLY / self.temperature)


class ExpireSpan(SlotTransformer):
    """Every memory of every layer is kept for a span predicted from the memory itself.

    Spans are computed anew from the remembered vectors whenever they are needed. So the predictor
    learns from memories far older than the gradient window, and after an update of the weights no
    stale span is about.

    Source: Sukhbaatar et al. 2021, arXiv:2105.06548. Differs from the authors' language model in
    what reinforcement learning needs: each environment expires its own memories (theirs go by the
    minimum over the batch), memories expire inside the current segment as they would step by step,
    a step may attend to nothing (so no step depends on dummy keys), and position is a learned mix
    of exponentials of the age (`attention.N_AGE_SCALES`), the same however the segments are cut.
    """

    has_own_spans = True

    def __init__(self, dim_in: int, config: ExpireSpanConfig) -> None:
        super().__init__(dim_in, config, ramp=config.ramp, max_live=config.max_live)
        self.span_predictor = SpanPredictor(config)
        self.max_span, self.shortens = config.max_span, config.shorten
        self.bound, self.bound_from = config.max_live, config.max_live_from

    def set_progress(self, share: float) -> None:
        """The bound holds from `max_live_from` on. See `Memory.set_progress`."""
        self.max_live = self.bound if share >= self.bound_from else None

    def spans(self, hidden_BLYD: Tensor, layers: slice) -> Tensor:
        return self.span_predictor(hidden_BLYD, layers)  # type: ignore[no-any-return]

    def shorten(self, state: SlotState) -> SlotState:
        """Draw a limit u * max_span for every environment, with `shorten`. See `Memory.shorten`."""
        if not self.shortens:
            return state
        return state._replace(limit_B=torch.rand_like(state.limit_B) * self.max_span)
