"""Use extends life: a memory that was needed at age n is given a span of at least 2 n.

The paper's loss learns spans from what the task's gradient says on the ramp, and once a task is
solved there is none. That a memory is needed shows all the same, in what the outputs owe to it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from .contract import Read
from .span_mask import limit_loss, shrink_loss

LIFE_AFTER_USE = 2.0
"""Span a memory should have at least, as a multiple of the age at which it was last used."""

LONGEST_LIFE = 0.9
"""Share of max_span asked for at most: the sigmoid reaches 1 only for an infinite logit."""

NEEDED_FROM = 0.1
"""Influence on a preference from which a memory counts as used, in mean sizes of preferences."""

ATTENDED_FROM = 0.3
"""Share of a head's attention from which a memory counts as used, by attention."""


def influences(reads: Sequence[Read], preference_BT: Tensor) -> list[Tensor]:
    """How much the preferences of a segment owe to every memory at every step, by layer.

    |sum over heads of a * d preference / d a|, to first order what is lost with what was read from
    the memory; that of a step's own preference, and of later ones through what the step wrote. (The
    slope by the mask would not do: where all attention is on one memory the softmax is flat.)
    Differentiates once, without a gradient for any weight; the graph stays. Shapes: (B, T) ->
    (B, N, C, W) for each read.
    """
    attentions = [read.attention_MHCW for read in reads]
    slopes = torch.autograd.grad(preference_BT.sum(), attentions, retain_graph=True)
    return [
        (slope_MHCW * read.attention_MHCW.detach()).sum(1).abs().view_as(read.age_BNCW)
        for slope_MHCW, read in zip(slopes, reads, strict=True)
    ]


def use_loss(reads: Sequence[Read], preference_BT: Tensor | None) -> Tensor:
    """Pushes the span of every memory in use up to `LIFE_AFTER_USE` times the age of its last use.

    By influence: a memory is used by a step where without it what the agent prefers would change by
    `NEEDED_FROM` of the mean size of preferences; no span is asked for that is nearly max_span.
    By attention, with `preference_BT` None: where a head gives it `ATTENDED_FROM`. That says less,
    since a head has to look somewhere, also where nothing depends on it
    (docs/experiments/corridor.md, "Which memories are in use").

    preference (B, T) with its graph: any measure of how decided each output is that does not
    saturate, such as the log-odds of the action taken. Returns a scalar, the sum of the gaps in
    `shrink_loss` (by influence, and `limit_loss`) over memories and layers divided by the number of
    steps. It is taken once for every stretch of steps that share keys, so it depends a little on
    how segments are cut.
    """
    if preference_BT is None:
        most = [read.attention_MHCW.detach().amax(1).view_as(read.age_BNCW) for read in reads]
        used = [most_BNCW >= ATTENDED_FROM for most_BNCW in most]
        limits = [math.inf for _ in reads]
    else:
        needed = NEEDED_FROM * preference_BT.detach().abs().mean()
        used = [
            (influence >= needed) & (influence > 0)
            for influence in influences(reads, preference_BT)
        ]
        limits = [read.max_span for read in reads]
    gaps = [
        _gap_after_use(read, used_BNCW, limit).sum() / read.n_steps
        for read, used_BNCW, limit in zip(reads, used, limits, strict=True)
    ]
    return torch.stack(gaps).sum()


def _gap_after_use(read: Read, used_BNCW: Tensor, limit: float) -> Tensor:
    """How far each key's span is below what its use asks for, (B, N, W); 0 for keys not used."""
    age_of_use_BNW = torch.where(used_BNCW, read.age_BNCW, 0).amax(-2)
    wanted_BNW = (LIFE_AFTER_USE * age_of_use_BNW).clamp(max=LONGEST_LIFE * limit)
    gap_BNW = _size(wanted_BNW, limit) - _size(read.span_BNW, limit)
    return torch.relu(gap_BNW) * (age_of_use_BNW > 0)


def _size(spans: Tensor, limit: float) -> Tensor:
    return shrink_loss(spans) + limit_loss(spans, limit)
